//! A cgroup is recognised as a workload while it is being made, before anybody can put a process into it:
//! there is no moment at which a new workload is unprotected, not even while no agent runs.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel_str};
use aya_ebpf::programs::TracePointContext;
use sheath_common::counters::Counter;
use sheath_common::enrolment::{OVERFLOW_SEEN, OVERFLOW_SETTLED};
use sheath_common::event::{Event, EventKind};
use sheath_common::selector::{MAX_SELECTORS, MAX_STEPS, Matcher, PATH_LEN, Selector, Step};
use sheath_common::workload::Workload;

use crate::maps::{DEPARTED, OVERFLOW, SCRATCH, SELECTORS, Scratch, WORKLOADS, copied};
use crate::report::{count, send};

const DONE: u32 = 0;

/// Offsets in the record of the `cgroup:cgroup_*` tracepoints (their `format` files in tracefs).
mod record {
    pub const ROOT: usize = 8;
    pub const ID: usize = 16;
    pub const PATH_LOCATION: usize = 24;
}

/// The cgroup v2 hierarchy, which is the first of all to be set up.
const DEFAULT_HIERARCHY: i32 = 0;

/// What a `bpf_loop` callback returns.
const NEXT: i64 = 0;
const STOP: i64 = 1;

pub fn created(ctx: &TracePointContext) -> u32 {
    let Some(cgroup) = cgroup_id(ctx) else {
        return DONE;
    };
    let Some(workload) = select(ctx) else {
        return DONE;
    };
    let recorded = WORKLOADS.insert(&cgroup, &workload, 0).is_ok();
    if !recorded {
        note_overflow(cgroup, &workload);
    }
    if workload.is_base() && recorded {
        return DONE;
    }
    count(if recorded && !workload.is_refused() {
        Counter::CgroupEnrolled
    } else {
        Counter::EnrolFailed
    });
    tell(EventKind::CgroupCreated, cgroup, &workload);
    DONE
}

pub fn removed(ctx: &TracePointContext) -> u32 {
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

/// The workload whose selector matches the record's path. A path too long to tell, but that begins as one that matches
/// may, is nobody's and refused.
#[inline(always)]
fn select(ctx: &TracePointContext) -> Option<Workload> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the scratch slot belongs to this CPU, and the tracepoint is not entered twice on it; the path
    // lies in the record at the offset that the low half of the location names.
    unsafe {
        let location: u32 = ctx.read_at(record::PATH_LOCATION).ok()?;
        let path = ctx.as_ptr().add((location & 0xffff) as usize);
        let read = bpf_probe_read_kernel_str(
            (&raw mut (*scratch).path).cast(),
            PATH_LEN as u32,
            path.cast_const(),
        );
        // The length counts the terminating zero. A path that fills the buffer may have been cut short.
        if read <= 1 || read as usize > PATH_LEN {
            return None;
        }
        (*scratch).is_cut = u32::from(read as usize == PATH_LEN);
        (*scratch).path_len = read as u32 - 1;
        (*scratch).matched = 0;
        bpf_loop(MAX_SELECTORS, try_selector as *mut c_void, core::ptr::null_mut(), 0);
        if (*scratch).matched == 0 {
            return None;
        }
        if (*scratch).is_cut != 0 {
            return Some(Workload::REFUSED);
        }
        SELECTORS.get((*scratch).selector).map(|selector| selector.workload)
    }
}

/// Matches one selector against the path; the scratch keeps the first that fits.
unsafe extern "C" fn try_selector(index: u64, _: *mut c_void) -> i64 {
    let Some(scratch) = scratch() else {
        return STOP;
    };
    let Some(selector) = SELECTORS.get(index as u32) else {
        return STOP;
    };
    if selector.workload.id == 0 {
        return STOP;
    }
    scratch.matcher = Matcher::default();
    scratch.selector = index as u32;
    // SAFETY: the callback has the shape that the helper wants and needs no context.
    unsafe {
        bpf_loop(MAX_STEPS + 1, try_position as *mut c_void, core::ptr::null_mut(), 0);
    }
    if scratch.matched != 0 { STOP } else { NEXT }
}

/// Advances the match of the selector that the scratch names by one position.
unsafe extern "C" fn try_position(_: u64, _: *mut c_void) -> i64 {
    let Some(scratch) = scratch() else {
        return STOP;
    };
    let Some(selector) = SELECTORS.get(scratch.selector) else {
        return STOP;
    };
    match step(scratch, selector) {
        Step::Continue => NEXT,
        Step::Mismatch => STOP,
        Step::Match => {
            scratch.matched = 1;
            STOP
        }
    }
}

#[inline(always)]
fn step(scratch: &mut Scratch, selector: &Selector) -> Step {
    let path_len = scratch.path_len;
    let is_cut = scratch.is_cut != 0;
    scratch.matcher.step(&selector.pattern, selector.len, &scratch.path, path_len, is_cut)
}

#[inline(always)]
fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: the slot belongs to this CPU and is used by one callback at a time.
    SCRATCH.get_ptr_mut(0).map(|slot| unsafe { &mut *slot })
}
