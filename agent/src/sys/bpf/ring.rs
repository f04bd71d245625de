//! The ring buffer of events.

use std::io;

use aya::maps::{MapData, RingBuf};
use sheath_common::event::Event;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Reads an event from a record of the ring buffer; `None` if the record is too short.
#[must_use]
pub fn read_event(record: &[u8]) -> Option<Event> {
    if record.len() < size_of::<Event>() {
        return None;
    }
    // SAFETY: the record is long enough, and an event is made of integers, so any bytes are one.
    Some(unsafe { record.as_ptr().cast::<Event>().read_unaligned() })
}

/// Registers a ring buffer with the runtime, to wait for records.
pub fn await_ring(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring buffer owns its map's descriptor and keeps it open and unchanged until it is dropped,
    // and it is dropped by the `AsyncFd`, after deregistration.
    unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }.map_err(io::Error::other)
}
