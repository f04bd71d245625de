//! Which workload, if any, is behind a task or a packet: the innermost cgroup on the way from the root that
//! is the root of one.

use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_skb_ancestor_cgroup_id,
};
use aya_ebpf::programs::SkBuffContext;
use sheath_common::enrolment::{OVERFLOW_SEEN, OVERFLOW_SETTLED, Walk};
use sheath_common::maps::MAX_CGROUP_DEPTH;
use sheath_common::workload::Workload;

use crate::maps::{DEPARTED, OVERFLOW, WORKLOADS};

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
    let ancestor = |level| unsafe { bpf_skb_ancestor_cgroup_id(ctx.skb.skb, level) };
    innermost(ancestor).or_else(|| departed(ancestor))
}

/// The workload whose cgroup it was that is gone, and whose socket is not.
#[inline(always)]
fn departed(ancestor: impl Fn(i32) -> u64) -> Option<Workload> {
    for level in (0..=MAX_CGROUP_DEPTH as i32).rev() {
        let cgroup = ancestor(level);
        if cgroup == 0 {
            continue;
        }
        // SAFETY: the value is copied at once.
        if let Some(workload) = unsafe { DEPARTED.get(&cgroup) } {
            return Some(*workload);
        }
    }
    None
}

/// The current task's cgroup at a level, zero below its own.
#[inline(always)]
pub fn ancestor_of_current_task(level: u32) -> u64 {
    // SAFETY: the helper takes no pointer.
    unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) }
}

#[inline(always)]
fn innermost(ancestor: impl Fn(i32) -> u64) -> Option<Workload> {
    let mut walk = Walk::default();
    for level in 0..=MAX_CGROUP_DEPTH as i32 {
        let cgroup = ancestor(level);
        if cgroup == 0 {
            break;
        }
        // SAFETY: the value is copied at once; a concurrent change of an entry replaces it whole.
        walk.visit(cgroup, unsafe { WORKLOADS.get(&cgroup) });
    }
    if walk.may_lead_further() && is_in_doubt(&walk) {
        Some(Workload::REFUSED)
    } else {
        walk.found()
    }
}

/// What could not be recorded as a workload is not taken for nobody's, nor for that of the workload round it.
#[inline(always)]
fn is_in_doubt(walk: &Walk) -> bool {
    match (OVERFLOW.get(OVERFLOW_SEEN), OVERFLOW.get(OVERFLOW_SETTLED)) {
        (Some(seen), Some(settled)) => walk.is_in_doubt(seen, settled),
        _ => false,
    }
}
