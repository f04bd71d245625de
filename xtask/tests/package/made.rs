//! The packages, made once for all tests of this program; and again, under other circumstances.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use tempfile::TempDir;

/// 2001-09-09. Older than every file here, and newer than what tar takes for absent.
pub const DATE: &str = "1000000000";

/// What is made.
pub struct Made {
    pub package: PathBuf,
    pub tarball: PathBuf,
    _dir: TempDir,
}

pub static MADE: LazyLock<Made> = LazyLock::new(|| make("022"));

/// Makes both, with this umask.
pub fn make(umask: &str) -> Made {
    let dir = tempfile::tempdir().expect("a directory");
    let agent = dir.path().join("agent");
    success(Command::new("strip").arg("-o").arg(&agent).arg(debug_agent()));
    let made = dir.path().join("made");
    let mut command = Command::new("sh");
    command.args(["-c", r#"umask "$1"; shift; exec "$@""#, "sh", umask]);
    command.args([env!("CARGO_BIN_EXE_xtask"), "package", "--quick", "--agent"]).arg(&agent);
    command.arg("--output").arg(&made).env("SOURCE_DATE_EPOCH", DATE);
    success(&mut command);
    fs::remove_file(&agent).expect("the copy of the agent");
    let mut files: Vec<PathBuf> = fs::read_dir(&made)
        .expect("what was made")
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.sort();
    let [tarball, package] = <[PathBuf; 2]>::try_from(files).expect("a tarball and a package");
    Made { package, tarball, _dir: dir }
}

/// The agent that `cargo xtask test` builds.
fn debug_agent() -> PathBuf {
    let named = env::var_os("SHEATH_BIN").map(PathBuf::from);
    let agent =
        named.unwrap_or_else(|| Path::new(env!("CARGO_BIN_EXE_xtask")).with_file_name("sheath"));
    assert!(agent.exists(), "{}: run `cargo build -p sheath`, or set SHEATH_BIN", agent.display());
    agent
}

/// Runs a command, which must succeed. Returns what it has said.
#[track_caller]
pub fn success(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", errors(&output));
    String::from_utf8(output.stdout).expect("text")
}

pub fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
