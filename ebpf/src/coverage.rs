//! The third line, where the other programs attach below the root: a cgroup that is removed and made anew has none of
//! them, and whoever is in it before the agent has seen that would speak in the clear. This program runs for the whole
//! hierarchy. It lets a workload's process have no TCP socket outside the cgroup that the others are attached to.

use aya_ebpf::programs::SockContext;
use sheath_common::counters::Counter;
use sheath_common::event::{Event, EventKind};
use sheath_common::maps::MAX_CGROUP_DEPTH;
use sheath_common::net::IPPROTO_TCP;

use crate::maps::CAPTURE;
use crate::report::{by_current_task, count, send};
use crate::{ctx, pods, workload};

const ALLOW: i32 = 1;
/// The system call fails with EPERM.
const REFUSE: i32 = 0;

const IPPROTO_MPTCP: u32 = 262;

pub fn socket_created(ctx: &SockContext) -> i32 {
    let protocol = ctx::new_sockets_protocol(ctx);
    if protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP {
        return ALLOW;
    }
    let workload = workload::of_current_task();
    if workload.is_nobody() || is_covered() {
        return ALLOW;
    }
    if workload.is_held() && pods::spare(ctx::netns(ctx)) {
        return ALLOW;
    }
    count(Counter::SocketRefused);
    send(Event { workload: workload.id, ..by_current_task(EventKind::SocketRefused) });
    REFUSE
}

/// True if the current task is in the cgroup that the programs are attached to, or below.
#[inline(always)]
fn is_covered() -> bool {
    let Some(capture) = CAPTURE.get(0) else {
        return false;
    };
    for level in 1..=MAX_CGROUP_DEPTH {
        let cgroup = workload::ancestor_of_current_task(level);
        if cgroup == 0 {
            return false;
        }
        if cgroup == *capture {
            return true;
        }
    }
    false
}
