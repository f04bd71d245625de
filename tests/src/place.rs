//! Where a process runs: a network namespace and a cgroup, both entered before its first
//! instruction.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::cgroup::Cgroup;
use crate::netns::NetNs;
use crate::wait;

/// A network namespace and a cgroup.
#[derive(Clone)]
pub struct Place {
    pub netns: Arc<NetNs>,
    pub cgroup: Arc<Cgroup>,
}

impl Place {
    pub fn new(netns: &Arc<NetNs>, cgroup: &Arc<Cgroup>) -> Self {
        Self { netns: netns.clone(), cgroup: cgroup.clone() }
    }

    /// A command that will run in this place, and dies with the thread that started it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.netns.command(program);
        let mut procs = self.cgroup.open_procs();
        // SAFETY: between fork and exec the closure makes one system call on memory and a descriptor it owns; it
        // neither allocates nor takes a lock.
        unsafe { command.pre_exec(move || procs.write_all(b"0")) };
        command
    }

    /// Starts a command made by [`Self::command`] and owns the process.
    pub fn spawn(&self, command: &mut Command) -> Process {
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Process { child, _place: self.clone() }
    }

    /// Waits until something listens on a TCP port of this place.
    #[track_caller]
    pub fn wait_listening(&self, port: u16) {
        wait::wait_until("the program's listening socket", wait::GENEROUS, || {
            self.netns.has_listener(port)
        });
    }

    /// Runs a command to its end.
    pub fn output(&self, command: &mut Command) -> Output {
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }
}

/// A running process, killed when dropped. It keeps its place alive.
pub struct Process {
    child: Child,
    _place: Place,
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub fn signal(&self, signal: Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).unwrap());
        nix::sys::signal::kill(pid, signal).expect("signalling a child that was not reaped");
    }

    /// Kills the process with SIGKILL and reaps it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The exit status, if the process has ended.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("waiting for a child")
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        wait::wait_for("the end of the process", limit, || self.try_wait())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
