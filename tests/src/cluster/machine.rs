//! A machine of a cluster: namespaces of its own for network, mounts and host name, and the programs that run in them.
//!
//! The namespaces live as long as a process in them. One is there for nothing else; it is found by its cgroup, as all
//! are, so a machine needs no record of its own.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns, unshare};

use super::cgroups::Cgroups;
use super::mounts;
use super::state::State;
use crate::netns::NetNs;
use crate::{binaries, wait};

/// The cgroup of the process that keeps the namespaces.
const KEEPER: &str = "keeper";

/// Longer than the end of a program takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A machine that is up.
pub struct Machine {
    name: &'static str,
    cgroups: Cgroups,
    state: State,
    pub netns: NetNs,
    mounts: File,
    host_name: File,
    /// What this value has started.
    started: Mutex<Vec<String>>,
}

impl Machine {
    /// Makes the namespaces, and in them what only this machine is to see.
    ///
    /// # Errors
    /// When that fails.
    pub fn create(name: &'static str, cgroups: &Cgroups, state: &State) -> Result<Self> {
        let view = mounts::View::prepare(name, state)?;
        let mut entrance = cgroups.entrance(&format!("{name}/{KEEPER}"))?;
        let mut keeper = Command::new(binaries::cluster_program("pause"));
        keeper.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: between fork and exec the closure makes system calls on descriptors it owns; it neither allocates nor takes
        // a lock.
        unsafe {
            keeper.pre_exec(move || {
                nix::unistd::setsid()?;
                entrance.enter()
            });
        }
        // A thread's namespaces are its own, and those of what it starts.
        let make = move || -> Result<()> {
            let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
            unshare(flags | CloneFlags::CLONE_NEWUTS)
                .context("cannot make namespaces (needs root)")?;
            nix::unistd::sethostname(name).context("cannot set the host name")?;
            view.mount()?;
            let mut child = keeper.spawn().context("cannot start what keeps the namespaces")?;
            reap(move || drop(child.wait()));
            Ok(())
        };
        thread::spawn(make).join().map_err(|_| anyhow!("{name}: cannot make namespaces"))??;
        let machine = Self::find(name, cgroups, state)?;
        // Before any link exists, so that every later address is usable at once.
        machine.netns.sysctl("ipv6/conf/all/accept_dad", "0");
        machine.netns.sysctl("ipv6/conf/default/accept_dad", "0");
        machine.netns.ip("link set lo up\n");
        Ok(machine)
    }

    /// A machine that somebody has made before.
    ///
    /// # Errors
    /// When it is not there.
    pub fn find(name: &'static str, cgroups: &Cgroups, state: &State) -> Result<Self> {
        let keepers = cgroups.processes(&format!("{name}/{KEEPER}"));
        ensure!(!keepers.is_empty(), "the machine {name} is not up");
        let open = |namespace: &str| {
            let path = format!("/proc/{}/ns/{namespace}", keepers[0]);
            File::open(&path).with_context(|| format!("cannot open {path}"))
        };
        Ok(Self {
            name,
            cgroups: cgroups.clone(),
            state: state.clone(),
            netns: NetNs::from(open("net")?),
            mounts: open("mnt")?,
            host_name: open("uts")?,
            started: Mutex::default(),
        })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Starts a program of the cluster that goes on when this process has ended. It is in a cgroup of its own, and writes
    /// to a log of its own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start<A: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<()> {
        let log = self.log(program);
        let open = || OpenOptions::new().create(true).append(true).mode(0o600).open(&log);
        let log = open().with_context(|| format!("cannot write {}", log.display()))?;
        let errors = log.try_clone().context("a copy of the log's descriptor")?;
        let mut command = self.command(program, binaries::cluster_program(program))?;
        command.args(arguments).env_clear().envs(environment());
        command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        let mut child =
            command.spawn().with_context(|| format!("cannot start {program} on {}", self.name))?;
        reap(move || drop(child.wait()));
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.push(program.to_owned());
        Ok(())
    }

    /// The log of a program that this value has started, and that has ended.
    pub fn ended(&self) -> Option<PathBuf> {
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.iter().find(|program| !self.runs(program)).map(|program| self.log(program))
    }

    /// Kills a program that was started, and waits for its end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&self, program: &str) -> Result<()> {
        self.cgroups.kill(&self.cgroup(program))
    }

    /// Kills a program that was started, but nothing that it has started, and waits for its end.
    ///
    /// # Errors
    /// When it does not run, or does not end.
    pub fn crash(&self, program: &str) -> Result<()> {
        // As the kernel cuts it (proc_pid_comm(5)): the names of shims are longer than containerd's.
        let name = &program[..program.len().min(15)];
        let is_it = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|comm| comm.trim_end() == name)
        };
        let alive = || {
            let all = self.cgroups.processes(&self.cgroup(program));
            all.into_iter().filter(is_it).collect::<Vec<_>>()
        };
        let pids = alive();
        ensure!(!pids.is_empty(), "{program} does not run on {}", self.name);
        for pid in pids {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).context("a pid")?);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)
                .with_context(|| format!("cannot kill {program}"))?;
        }
        let ended = wait::uninterrupted(LIMIT, || alive().is_empty().then_some(()));
        ensure!(ended.is_some(), "{program} does not end on {}", self.name);
        Ok(())
    }

    /// Whether a program that was started is alive.
    pub fn runs(&self, program: &str) -> bool {
        !self.cgroups.all_processes(&self.cgroup(program)).is_empty()
    }

    /// A command that will run on this machine, in the cgroup with this name.
    ///
    /// # Errors
    /// When the cgroup cannot be made.
    pub fn command(&self, cgroup: &str, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut entrance = self.cgroups.entrance(&self.cgroup(cgroup))?;
        let netns = self.netns.as_fd().try_clone_to_owned().context("a copy of a descriptor")?;
        let mounts = self.mounts.try_clone().context("a copy of a descriptor")?;
        let host_name = self.host_name.try_clone().context("a copy of a descriptor")?;
        let enter = move || -> io::Result<()> {
            entrance.enter()?;
            setns(&netns, CloneFlags::CLONE_NEWNET)?;
            setns(&host_name, CloneFlags::CLONE_NEWUTS)?;
            setns(&mounts, CloneFlags::CLONE_NEWNS)?;
            Ok(())
        };
        let mut command = Command::new(program);
        // SAFETY: between fork and exec `enter` makes system calls on descriptors that it owns; it neither allocates nor
        // takes a lock.
        unsafe { command.pre_exec(enter) };
        Ok(command)
    }

    /// Where a program's output goes.
    pub fn log(&self, program: &str) -> PathBuf {
        log(&self.state, self.name, program)
    }

    fn cgroup(&self, program: &str) -> String {
        format!("{}/{program}", self.name)
    }
}

/// Where a program's output goes.
pub fn log(state: &State, machine: &str, program: &str) -> PathBuf {
    state.at(format!("{machine}/{program}.log"))
}

/// The last lines of a log, for those who have to find out what went wrong.
pub fn tail(log: &Path, lines: usize) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// What the cluster's programs find in their environment: their own directory first, and nothing of the developer's.
pub fn environment() -> [(&'static str, String); 2] {
    let own = binaries::cluster_programs();
    let path =
        format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", own.display());
    [("PATH", path), ("HOME", "/root".to_owned())]
}

/// Waits for a child's end on a thread, so that none stays a zombie for as long as this process lives.
fn reap(wait: impl FnOnce() + Send + 'static) {
    thread::spawn(wait);
}
