//! A cgroup is recognised as a workload or a pod while it is being made, before anybody can put a process into it:
//! there is no moment at which a new workload is unprotected, not even while no agent runs.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::programs::TracePointContext;
use sheath_common::counters::Counter;
use sheath_common::enrolment::{OVERFLOW_SEEN, OVERFLOW_SETTLED};
use sheath_common::event::{Event, EventKind};
use sheath_common::workload::Workload;

use crate::maps::{DEPARTED, OVERFLOW, PROBERS, WORKLOADS, copied};
use crate::report::{count, send};
use crate::select::{self, Selected};
use crate::{pods, probes};

const DONE: u32 = 0;

/// Offsets in the record of the `cgroup:cgroup_*` tracepoints (their `format` files in tracefs).
mod record {
    pub const ROOT: usize = 8;
    pub const ID: usize = 16;
    pub const PATH_LOCATION: usize = 24;
}

/// The cgroup v2 hierarchy, which is the first of all to be set up.
const DEFAULT_HIERARCHY: i32 = 0;

pub fn created(ctx: &TracePointContext) -> u32 {
    let Some(cgroup) = cgroup_id(ctx) else {
        return DONE;
    };
    let Some(path) = path(ctx) else {
        return DONE;
    };
    if !select::read(path) {
        return DONE;
    }
    probes::recognise(cgroup);
    // What cannot be told may be a workload's, and may be what workloads lie below.
    let (workload, is_told) = match recognise() {
        Selected::Nothing => return DONE,
        Selected::This(workload) => (workload, true),
        Selected::CannotTell => (Workload::BASE, false),
    };
    // A pod that is left alone. The agent looks whether that still holds: the decision may just be changing.
    if workload.is_nobody() {
        tell(EventKind::CgroupCreated, cgroup, &workload);
        return DONE;
    }
    let recorded = is_told && WORKLOADS.insert(&cgroup, &workload, 0).is_ok();
    if !recorded {
        note_overflow(cgroup, &workload);
    }
    if workload.is_base() && recorded {
        return DONE;
    }
    count(if !recorded || workload.is_refused() {
        Counter::EnrolFailed
    } else if workload.is_held() {
        Counter::PodHeld
    } else {
        Counter::CgroupEnrolled
    });
    tell(EventKind::CgroupCreated, cgroup, &workload);
    DONE
}

/// What the path that has been read stands for. A pattern decides before a pod's uid does: whoever writes the path of a pod's
/// cgroup means this pod. A cgroup that only lies above what patterns select is a pod's all the same.
#[inline(always)]
fn recognise() -> Selected {
    let is_base = match select::by_path() {
        Selected::Nothing => false,
        Selected::This(workload) if workload.is_base() => true,
        decided => return decided,
    };
    match pods::by_path() {
        Selected::Nothing if is_base => Selected::This(Workload::BASE),
        Selected::This(pod) if is_base && pod.is_nobody() => Selected::This(Workload::BASE),
        Selected::This(pod) if is_base && !pod.is_base() => Selected::This(pod.above_others()),
        other => other,
    }
}

pub fn removed(ctx: &TracePointContext) -> u32 {
    if let Some(cgroup) = cgroup_id(ctx) {
        let _ = PROBERS.remove(&cgroup);
    }
    if let Some((cgroup, workload)) = known(ctx) {
        // A socket that was made in it may be anywhere by now.
        if !workload.is_base() && !workload.is_agent() {
            let _ = DEPARTED.insert(&cgroup, &workload, 0);
        }
        let _ = WORKLOADS.remove(&cgroup);
        tell(EventKind::CgroupRemoved, cgroup, &workload);
    }
    DONE
}

/// The first process has come into a workload's cgroup, or the last has left it.
pub fn populated(ctx: &TracePointContext) -> u32 {
    if let Some((cgroup, workload)) = known(ctx) {
        tell(EventKind::CgroupPopulated, cgroup, &workload);
    }
    DONE
}

/// From now on new cgroups that are not recorded are in doubt. The kernel makes one cgroup at a time, so nobody else
/// writes this entry.
#[inline(always)]
fn note_overflow(cgroup: u64, workload: &Workload) {
    let (Some(seen), Some(settled)) =
        (OVERFLOW.get_ptr_mut(OVERFLOW_SEEN), OVERFLOW.get(OVERFLOW_SETTLED))
    else {
        return;
    };
    // SAFETY: the entry lives as long as the map; readers may see it half-written, which errs towards doubt.
    unsafe { (*seen).note(settled, cgroup, workload.is_base()) };
}

/// The record's cgroup, if it is the root of a workload.
#[inline(always)]
fn known(ctx: &TracePointContext) -> Option<(u64, Workload)> {
    let cgroup = cgroup_id(ctx)?;
    let workload = copied(&WORKLOADS, &cgroup)?;
    Some((cgroup, workload))
}

#[inline(always)]
fn tell(kind: EventKind, cgroup: u64, workload: &Workload) {
    send(Event { kind: kind as u32, cgroup, workload: workload.id, ..Event::default() });
}

/// The id of the record's cgroup, if it is one of the v2 hierarchy.
#[inline(always)]
fn cgroup_id(ctx: &TracePointContext) -> Option<u64> {
    // SAFETY: the offsets lie within the record of the tracepoints that this is attached to.
    let root: i32 = unsafe { ctx.read_at(record::ROOT) }.ok()?;
    if root != DEFAULT_HIERARCHY {
        return None;
    }
    // SAFETY: as above.
    unsafe { ctx.read_at(record::ID) }.ok()
}

/// Where the kernel has the path of the record's cgroup: in the record, at the offset that the low half of the location
/// names.
#[inline(always)]
fn path(ctx: &TracePointContext) -> Option<*const c_void> {
    // SAFETY: the offset lies within the record of the tracepoints that this is attached to.
    let location: u32 = unsafe { ctx.read_at(record::PATH_LOCATION) }.ok()?;
    // SAFETY: the address is only given to a helper that looks whether it can be read.
    Some(unsafe { ctx.as_ptr().add((location & 0xffff) as usize) }.cast_const())
}
