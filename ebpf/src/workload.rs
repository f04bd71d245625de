//! Which workload, if any, is behind a task or a packet: the innermost cgroup on the way from the root that
//! is the root of one.

use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_skb_ancestor_cgroup_id,
};
use aya_ebpf::programs::SkBuffContext;
use sheath_common::maps::MAX_CGROUP_DEPTH;
use sheath_common::workload::Workload;

use crate::maps::WORKLOADS;

/// The workload of the task that makes the current system call.
#[inline(always)]
pub fn of_current_task() -> Option<Workload> {
    // SAFETY: the helper takes no pointer.
    innermost(|level| unsafe { bpf_get_current_ancestor_cgroup_id(level) })
}

/// The workload in whose cgroup the packet's socket was made.
#[inline(always)]
pub fn of_packet(ctx: &SkBuffContext) -> Option<Workload> {
    // SAFETY: the helper takes the program's own context.
    innermost(|level| unsafe { bpf_skb_ancestor_cgroup_id(ctx.skb.skb, level) })
}

#[inline(always)]
fn innermost(ancestor: impl Fn(i32) -> u64) -> Option<Workload> {
    let mut found = None;
    for level in 1..=MAX_CGROUP_DEPTH as i32 {
        let cgroup = ancestor(level);
        if cgroup == 0 {
            break;
        }
        // SAFETY: the value is copied at once; a concurrent change of an entry replaces it whole.
        if let Some(workload) = unsafe { WORKLOADS.get(&cgroup) } {
            found = Some(*workload);
        }
    }
    found
}
