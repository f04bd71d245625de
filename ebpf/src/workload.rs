//! Which workload, if any, is behind a task or a packet: the innermost cgroup on the way from the root that
//! is the root of one. [`Workload::NOBODY`] is none.
//!
//! The ways from the root are global functions (`main.rs`).

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_skb_ancestor_cgroup_id,
};
use aya_ebpf::programs::SkBuffContext;
use sheath_common::enrolment::{OVERFLOW_SEEN, OVERFLOW_SETTLED, Walk};
use sheath_common::maps::MAX_CGROUP_DEPTH;
use sheath_common::workload::Workload;

use crate::maps::{OVERFLOW, ever, living};

/// The workload of the task that makes the current system call.
#[inline(always)]
pub fn of_current_task() -> Workload {
    Workload::from_bits(workload_of_current_task())
}

/// The workload in whose cgroup the packet's socket was made. One whose cgroup is gone has no sockets any more.
#[inline(always)]
pub fn of_packet(ctx: &SkBuffContext) -> Workload {
    Workload::from_bits(workload_of_packet(ctx.skb.skb))
}

/// The workload by whose rules the packet's socket is guarded: a cgroup that is gone may have left sockets in other hands.
#[inline(always)]
pub fn guarding_packet(ctx: &SkBuffContext) -> Workload {
    Workload::from_bits(workload_guarding_packet(ctx.skb.skb))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn workload_of_current_task() -> u64 {
    // SAFETY: the helper takes no pointer.
    innermost(|level| unsafe { bpf_get_current_ancestor_cgroup_id(level) }, living).to_bits()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn workload_of_packet(skb: *mut __sk_buff) -> u64 {
    // SAFETY: the helper takes the program's own context.
    innermost(|level| unsafe { bpf_skb_ancestor_cgroup_id(skb, level) }, living).to_bits()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn workload_guarding_packet(skb: *mut __sk_buff) -> u64 {
    // SAFETY: the helper takes the program's own context.
    innermost(|level| unsafe { bpf_skb_ancestor_cgroup_id(skb, level) }, ever).to_bits()
}

/// The current task's cgroup at a level, zero below its own.
#[inline(always)]
pub fn ancestor_of_current_task(level: u32) -> u64 {
    // SAFETY: the helper takes no pointer.
    unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) }
}

#[inline(always)]
fn innermost(
    ancestor: impl Fn(i32) -> u64,
    entry: impl Fn(&u64) -> Option<&'static Workload>,
) -> Workload {
    let mut walk = Walk::default();
    for level in 0..MAX_CGROUP_DEPTH as i32 + 1 {
        let cgroup = ancestor(level);
        if cgroup == 0 {
            break;
        }
        walk.visit(cgroup, entry(&cgroup));
    }
    if walk.may_lead_further() && is_in_doubt(&walk) { walk.doubtful() } else { walk.found() }
}

/// What could not be recorded as a workload is not taken for nobody's, nor for that of the workload round it.
#[inline(always)]
fn is_in_doubt(walk: &Walk) -> bool {
    match (OVERFLOW.get(OVERFLOW_SEEN), OVERFLOW.get(OVERFLOW_SETTLED)) {
        (Some(seen), Some(settled)) => walk.is_in_doubt(seen, settled),
        _ => false,
    }
}
