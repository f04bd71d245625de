//! Counters and events.

use aya_ebpf::helpers::{bpf_get_current_cgroup_id, bpf_get_current_pid_tgid};
use sheath_common::counters::Counter;
use sheath_common::event::{Event, EventKind};

use crate::maps::{COUNTERS, EVENTS};

#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the slot belongs to this CPU, and programs are not preempted by themselves on it.
        unsafe { *slot += 1 };
    }
}

/// Sends an event; a full buffer is counted, not waited for.
#[inline(always)]
pub fn send(event: Event) {
    match EVENTS.reserve(0) {
        Some(mut entry) => {
            entry.write(event);
            entry.submit(0);
        }
        None => count(Counter::EventLost),
    }
}

/// An event with the calling task filled in. Only for hooks that run in the context of that task.
#[inline(always)]
pub fn by_current_task(kind: EventKind) -> Event {
    Event {
        kind: kind as u32,
        // SAFETY: the helper takes no pointer.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        pid: (bpf_get_current_pid_tgid() >> 32) as u32,
        ..Event::default()
    }
}
