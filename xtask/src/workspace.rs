//! Where things are in the repository.

use std::env;
use std::path::{Path, PathBuf, absolute};

/// The top of the repository.
pub fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// The BPF object that the agent's build script embeds. Its place does not follow `CARGO_TARGET_DIR`: the
/// build script has to know it too.
pub fn bpf_object() -> PathBuf {
    root().join("target/bpf/sheath.bpf.o")
}

/// The target directory of the BPF build. Its own, because its compiler may be another than user space's.
pub fn bpf_target_dir() -> PathBuf {
    root().join("target/bpf-build")
}

/// The object that is embedded in an agent for another kind of machine.
pub fn cross_bpf_object(machine: &str) -> PathBuf {
    root().join(format!("target/bpf/sheath-{machine}.bpf.o"))
}

/// Where that object is built.
pub fn cross_bpf_target_dir(machine: &str) -> PathBuf {
    root().join(format!("target/bpf-build-{machine}"))
}

/// Where cargo builds for another kind of machine. Its own, because the compiler may be another.
pub fn cross_target_dir(machine: &str) -> PathBuf {
    target_dir().join(machine)
}

/// Programs that are installed for this repository alone. The scenarios know this place too.
pub fn tools_dir() -> PathBuf {
    root().join("target/tools")
}

/// Where cargo builds, and what is made while working is put.
pub fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .and_then(|dir| absolute(dir).ok())
        .unwrap_or_else(|| root().join("target"))
}

/// A program of the workspace, as `cargo build` leaves it in the dev profile.
pub fn debug_program(name: &str) -> PathBuf {
    target_dir().join("debug").join(name)
}

/// A program of the workspace, as `cargo build --release` leaves it.
pub fn release_program(name: &str) -> PathBuf {
    target_dir().join("release").join(name)
}

/// The fuzz targets' crate.
pub fn fuzz_dir() -> PathBuf {
    root().join("fuzz")
}
