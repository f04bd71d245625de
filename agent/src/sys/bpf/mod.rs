//! `bpf(2)`, where aya lacks something: pinned maps that several tasks write through a shared reference, one entry or many at a
//! time, links of cgroup programs that are updated in place, programs that are loaded many times, and what is really attached.
//!
//! The shapes (`include/uapi/linux/bpf.h`) are those of `aya-obj`, as bindgen has made them: each field by its name.

mod attached;
mod batch;
mod counters;
mod create;
mod link;
mod load;
mod objects;
mod perf_event;
mod ring;
mod table;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::{bpf_attr, bpf_cmd};

#[cfg(test)]
pub use attached::attach_exclusively;
pub use attached::{effective_programs, has_exclusive_program};
pub use batch::bind_map;
pub use counters::PerCpuCounters;
pub use create::create_map;
pub use link::{AttachType, create_link, create_tracepoint_link, link_info, update_link};
pub use load::{constants, load_sk_lookup};
pub use objects::{
    MapInfo, map_by_id, map_info, program_by_id, program_id, program_info, test_run,
};
pub use ring::{await_ring, read_event};
pub use table::{Prefix, SocketFd, Table};

/// Opens a pinned object.
///
/// # Errors
/// `NotFound` if nothing is pinned there.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    open(bpf_cmd::BPF_OBJ_GET, &mut attr)
}

/// Pins an object.
///
/// # Errors
/// `AlreadyExists` if the path is taken.
pub fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attr.__bindgen_anon_4.bpf_fd = number(fd);
    call(bpf_cmd::BPF_OBJ_PIN, &mut attr)
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

// ---- the system call -----------------------------------------------------------------------------------

/// Empty arguments. A command reads its own member alone, and wants zeros behind what it knows.
fn zeroed() -> bpf_attr {
    // SAFETY: all members are made of integers.
    unsafe { std::mem::zeroed() }
}

/// A descriptor as a command takes it.
fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// Runs a command that returns no more than success or failure.
fn call(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<()> {
    raw(command, attr).map(drop)
}

/// Runs a command that makes a descriptor.
fn open(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the kernel has just made the descriptor for us; it fits, as all descriptors do.
    raw(command, attr).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn raw(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<libc::c_long> {
    let attr = std::ptr::from_mut(attr);
    // SAFETY: the arguments are live, zeroed beyond what the command uses, and as long as said; the pointers in them
    // are made from live references by the callers in this folder.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, attr, size_of::<bpf_attr>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
