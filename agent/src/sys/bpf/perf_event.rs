//! Perf events (perf_event_open(2)), as far as a program on a tracepoint takes one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use aya_obj::generated::{
    PERF_EVENT_IOC_ENABLE, PERF_FLAG_FD_CLOEXEC, perf_event_attr, perf_type_id,
};

pub struct PerfEvent(OwnedFd);

impl PerfEvent {
    /// One CPU suffices: a BPF program on a tracepoint runs on whichever CPU passes it.
    pub fn of_tracepoint(id: u64) -> io::Result<Self> {
        const EVERY_PROCESS: libc::c_int = -1;
        const FIRST_CPU: libc::c_int = 0;
        const NO_GROUP: libc::c_int = -1;
        // SAFETY: all of its fields are made of integers.
        let mut attr: perf_event_attr = unsafe { std::mem::zeroed() };
        attr.type_ = perf_type_id::PERF_TYPE_TRACEPOINT as u32;
        attr.size = size_of::<perf_event_attr>() as u32;
        attr.config = id;
        // SAFETY: the attributes are live and as long as they say; the descriptor is owned at once.
        unsafe {
            let fd = libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attr,
                EVERY_PROCESS,
                FIRST_CPU,
                NO_GROUP,
                libc::c_ulong::from(PERF_FLAG_FD_CLOEXEC),
            );
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self(OwnedFd::from_raw_fd(fd as i32)))
        }
    }

    pub fn enable(&self) -> io::Result<()> {
        // SAFETY: a request without argument on a descriptor that is ours.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), PERF_EVENT_IOC_ENABLE as _, 0) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for PerfEvent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
