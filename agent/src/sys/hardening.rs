//! What the process denies itself before it holds a key.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// No core dumps, no ptrace by unprivileged processes, no new privileges through exec; as many descriptors as
/// the system allows.
pub fn apply() -> nix::Result<()> {
    nix::sys::prctl::set_dumpable(false)?;
    nix::sys::prctl::set_no_new_privs()?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
}
