//! Limits that the process sets itself before it holds a key.

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// No core dumps, nothing in swap, no ptrace by unprivileged processes, no new privileges through exec; as many descriptors as
/// the system allows.
///
/// # Errors
/// If the system refuses one of these.
pub fn apply() -> nix::Result<()> {
    of_unprivileged()?;
    // Keys and plaintext never go to swap. Pages are locked as they are first used, not before. With
    // CAP_IPC_LOCK there is no limit to it, which would otherwise be one to allocating.
    mlockall(MlockAllFlags::from_bits_retain(
        libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT,
    ))
}

/// The same, as far as it takes no privileges: without locked memory.
///
/// # Errors
/// If the system refuses one of these.
pub fn of_unprivileged() -> nix::Result<()> {
    nix::sys::prctl::set_dumpable(false)?;
    nix::sys::prctl::set_no_new_privs()?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
}
