//! A root of a test's own: this machine's files, of which nothing is changed, under a layer that goes with the test, in a mount
//! namespace and a network namespace. The bpffs and /run there are empty, and no systemd runs in it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Output, Stdio};

use tempfile::TempDir;

use crate::made::errors;

/// Makes the root below `$1`, and stays until its stdin is closed.
const MAKE: &str = r#"
mount -t tmpfs -o mode=0755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
root=$1/root
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$root"
for shared in dev proc sys; do mount --rbind "/$shared" "$root/$shared"; done
mount -t tmpfs -o mode=0755 tmpfs "$root/run"
mount -t bpf bpf "$root/sys/fs/bpf"
# Should the package be installed on this machine, or packages start no services here.
chroot "$root" dpkg --purge sheath >/dev/null 2>&1 || true
rm -rf "$root/etc/sheath" "$root/var/lib/sheath" "$root/usr/sbin/policy-rc.d"
echo made
read -r _
"#;

/// It is gone when this value is dropped.
pub struct Root {
    holder: Child,
    dir: TempDir,
}

impl Root {
    #[track_caller]
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut holder = Command::new("unshare");
        holder.args(["--mount", "--net", "--propagation", "private", "sh", "-euc", MAKE, "sh"]);
        holder.arg(dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = holder.spawn().expect("running unshare");
        let mut said = String::new();
        let stdout = holder.stdout.take().expect("the holder's words");
        BufReader::new(stdout).read_line(&mut said).expect("the holder's words");
        assert_eq!(said, "made\n", "no root of a test's own; is this test run by root?");
        Self { holder, dir }
    }

    /// A name that no other root has.
    pub fn name(&self) -> String {
        let name = self.dir.path().file_name().expect("a directory's name");
        format!("{}-{}", process::id(), name.display().to_string().trim_start_matches('.'))
    }

    /// Where it is, in its namespaces.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// A command in its namespaces, where it is a directory.
    pub fn outside(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        for (option, name) in [("mount", "mnt"), ("net", "net")] {
            command.arg(format!("--{option}=/proc/{}/ns/{name}", self.holder.id()));
        }
        command.arg(program);
        command
    }

    /// A command in it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.outside("chroot");
        command.arg(self.path()).arg(program);
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        command
    }

    /// Runs a script of the shell in it. Returns everything that it has said on its stdout and stderr.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.try_sh(script).unwrap_or_else(|said| panic!("{script}: {said}"))
    }

    /// The same, where it may fail.
    pub fn try_sh(&self, script: &str) -> Result<String, String> {
        let mut command = self.command("sh");
        command.args(["-euc", &format!("exec 2>&1\n{script}")]);
        let output = command.output().expect("running a shell");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(said) } else { Err(said + &errors(&output)) }
    }

    /// Puts a file there.
    #[track_caller]
    pub fn put(&self, file: &Path, to: &str) {
        let mut command = self.command("tee");
        let file = OwnedFd::from(std::fs::File::open(file).expect("a file"));
        let output: Output =
            command.arg(to).stdin(file).stdout(Stdio::null()).output().expect("running tee");
        assert!(output.status.success(), "{}", errors(&output));
    }

    /// Holds the lock of an instance, as an agent that runs does, until the value is dropped.
    #[track_caller]
    pub fn hold_lock(&self, instance: &str) -> Lock {
        self.sh(&format!("mkdir -p /run/sheath/{instance}"));
        let mut command = self.command("flock");
        command.arg(format!("/run/sheath/{instance}/lock")).args([
            "sh",
            "-c",
            "echo held; read -r _",
        ]);
        let mut holder =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("running flock");
        let mut said = String::new();
        let stdout = holder.stdout.take().expect("the holder's words");
        BufReader::new(stdout).read_line(&mut said).expect("the holder's words");
        assert_eq!(said, "held\n");
        Lock(holder)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        end(&mut self.holder);
    }
}

pub struct Lock(Child);

impl Drop for Lock {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

/// Has a shell's `read` return.
fn end(holder: &mut Child) {
    if let Some(mut stdin) = holder.stdin.take() {
        let _ = stdin.write_all(b"\n");
    }
    let _ = holder.wait();
}
