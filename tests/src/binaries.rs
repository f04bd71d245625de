//! Where the programs under test are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The agent: `SHEATH_BIN`, else beside the running test, else in the workspace's target
/// directory.
///
/// # Panics
/// When there is none.
pub fn sheath() -> PathBuf {
    if let Some(path) = env::var_os("SHEATH_BIN") {
        return path.into();
    }
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/sheath");
    beside("sheath")
        .or_else(|| built.exists().then_some(built))
        .expect("the sheath binary: run `cargo build -p sheath`, or set SHEATH_BIN")
}

/// The program that plays scripts, built with this package.
///
/// # Panics
/// When it is not where Cargo puts it.
pub fn probe() -> PathBuf {
    beside("probe").expect("the probe binary: run `cargo build -p sheath-tests`")
}

/// The program that does the work of `cargo xtask cluster`, built with this package.
///
/// # Panics
/// When it is not where Cargo puts it.
pub fn cluster() -> PathBuf {
    beside("cluster").expect("the cluster binary: run `cargo build -p sheath-tests`")
}

/// Envoy, where `cargo xtask test` puts it.
///
/// # Panics
/// When it is not there.
pub fn envoy() -> PathBuf {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/envoy");
    assert!(installed.exists(), "no Envoy: run `cargo xtask test`");
    installed
}

/// The directory of the programs that a Kubernetes cluster consists of, where `cargo xtask cluster build` puts them.
///
/// # Panics
/// When it is not there.
pub fn cluster_programs() -> PathBuf {
    let link = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/cluster");
    link.canonicalize().expect("no programs of the cluster: run `cargo xtask cluster build`")
}

/// One of them.
///
/// # Panics
/// When they are not there.
pub fn cluster_program(name: &str) -> PathBuf {
    cluster_programs().join(name)
}

/// Runs commands in a system in which Vagrant is installed, where `cargo xtask test` puts it: `enter DIR COMMAND ...`. What is in the
/// directory is in `/given` there.
///
/// # Panics
/// When it is not there.
pub fn enter_vagrant() -> PathBuf {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/vagrant/enter");
    assert!(installed.exists(), "no Vagrant: run `cargo xtask test`");
    installed
}

/// Copies a program. Another process does it: what this one has open for writing, the children of its other threads have open as well
/// until they run programs of their own, and a program that somebody may write cannot be run.
///
/// # Panics
/// When it cannot be copied.
pub fn copy(program: &Path, to: &Path) {
    let status = Command::new("cp").arg("--").arg(program).arg(to).status().expect("cp");
    assert!(status.success(), "cannot copy {}", program.display());
}

/// Writes a shell script that can be run, by another process for the same reason.
///
/// # Panics
/// When it cannot be written.
pub fn script(at: &Path, text: &str) {
    let mut writer = Command::new("sh");
    writer
        .args(["-c", "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", text])
        .arg(at);
    let status = writer.status().expect("sh");
    assert!(status.success(), "cannot write {}", at.display());
}

/// A program in the directory of the running one, or, since tests run from `deps/`, one above.
fn beside(name: &str) -> Option<PathBuf> {
    let current = env::current_exe().ok()?;
    current.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file())
}
