//! A running agent on a node.

use std::fs::{self, File, OpenOptions};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;

use crate::binaries;
use crate::ca::Leaf;
use crate::certs::{Certificate, Certs};
use crate::cgroup::Cgroup;
use crate::config::{Capture, Config, Identity, Log, Timeouts};
use crate::netns::NetNs;
use crate::pins;
use crate::place::{Place, Process};
use crate::status::{Access, Status};
use crate::wait::{self, GENEROUS};
use crate::world::{Node, World};

/// How much of the log a failed test shows.
const LOG_TAIL: usize = 20;

/// An agent with its configuration, log and pins; all of it goes when this value is dropped.
pub struct Agent {
    config: Config,
    file: PathBuf,
    log: PathBuf,
    place: Place,
    process: Option<Process>,
    // The files above live in it.
    _dir: Arc<TempDir>,
}

/// A configuration for an agent on `node` with neither workloads nor peers. Its programs attach to
/// the node's cgroup, its instance is the world's own.
pub fn config(world: &World, node: &Node) -> Config {
    let dir = world.dir.path().join(node.name);
    let ca = dir.join("ca");
    world.ca().copy_to(&ca);
    Config {
        trust_domain: crate::world::TRUST_DOMAIN.to_owned(),
        node: node.name.to_owned(),
        instance: format!("{}-{}", world.name, node.name),
        run_dir: dir.join("run").display().to_string(),
        identity: Identity::ca(&ca, None),
        capture: Capture { cgroup: node.cgroup.relative(), pods: None },
        log: Log { level: "info", format: "json" },
        // Thousands of handshakes at once share the processor with other tests.
        timeouts: Timeouts {
            connect: "10s",
            handshake: "30s",
            drain: "20s",
            idle: None,
            half_closed: None,
            dead_peer: None,
        },
        workloads: Vec::new(),
        peers: Vec::new(),
        tls_contexts: Vec::new(),
        trust_domains: Vec::new(),
        sessions: None,
        limits: None,
        external_peers: Vec::new(),
        dns: None,
        kubernetes: None,
        controller: None,
        environment: Vec::new(),
        binary: binaries::sheath(),
    }
}

impl Agent {
    /// Starts an agent and waits until it is ready.
    #[track_caller]
    pub fn start(world: &World, node: &Node, config: Config) -> Self {
        let mut agent = Self::prepare(world, node, config);
        agent.launch();
        agent
    }

    /// Writes the configuration, but starts nothing.
    pub fn prepare(world: &World, node: &Node, config: Config) -> Self {
        pins::ensure_bpffs();
        // A second agent of a node has another name for it.
        let dir = world.dir.path().join(&config.node);
        fs::create_dir_all(&dir).expect("the agent's directory");
        let file = dir.join("sheath.yaml");
        fs::write(&file, config.to_text()).expect("the configuration file");
        Self {
            // Inside the captured subtree, as on a real node, but in no workload.
            place: node.host(&config.node.replacen(node.name, "agent", 1)),
            config,
            file,
            log: dir.join("sheath.log"),
            process: None,
            _dir: world.dir.clone(),
        }
    }

    /// Starts the process and waits for its `ready`; returns how long that took.
    #[track_caller]
    pub fn launch(&mut self) -> Duration {
        self.launch_within(GENEROUS)
    }

    /// The same, of an agent that has much to read.
    #[track_caller]
    pub fn launch_within(&mut self, limit: Duration) -> Duration {
        assert!(self.process.is_none(), "the agent runs already");
        let started = Instant::now();
        let before = self.log_lines().len();
        let mut command = self.run_command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(self.open_log());
        let process = self.process.insert(self.place.spawn(&mut command));
        let log = &self.log;
        let ready = wait::wait_for("the agent's `ready`", limit, || {
            if read_lines(log).iter().skip(before).any(|line| is_ready(line)) {
                return Some(Ok(()));
            }
            process.try_wait().map(Err)
        });
        if let Err(status) = ready {
            panic!("the agent ended with {status}");
        }
        started.elapsed()
    }

    /// Starts another process that is to take over from the running one (`sheath run --take-over`). Both write to this agent's
    /// log.
    #[track_caller]
    pub fn successor(&self) -> Process {
        let mut command = self.run_command();
        command.arg("--take-over").stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(self.open_log());
        self.place.spawn(&mut command)
    }

    /// Has another process take over, waits for its `ready`, and returns the one before.
    #[track_caller]
    pub fn take_over(&mut self) -> Process {
        let ready = self.count_ready();
        let successor = self.successor();
        self.replace(successor, ready)
    }

    /// Waits until a [`Self::successor`] is ready, where `ready` were before, and returns the process before.
    #[track_caller]
    pub fn replace(&mut self, successor: Process, ready: usize) -> Process {
        let before = self.release();
        self.adopt(successor, ready);
        before
    }

    /// The running process, which is no longer this agent's.
    pub fn release(&mut self) -> Process {
        self.process.take().expect("a running agent")
    }

    /// The same, where there is no process before.
    #[track_caller]
    pub fn adopt(&mut self, mut successor: Process, ready: usize) {
        wait::wait_until("the successor's `ready`", GENEROUS, || {
            let status = successor.try_wait();
            assert!(status.is_none(), "the successor has ended with {status:?}");
            self.count_ready() > ready
        });
        assert!(self.process.replace(successor).is_none(), "another process is this agent's");
    }

    /// How often an agent has said that it is ready.
    pub fn count_ready(&self) -> usize {
        self.log_lines().iter().filter(|line| is_ready(line)).count()
    }

    /// `sheath run` with this agent's configuration, in this agent's place.
    pub fn run_command(&self) -> Command {
        let mut command = self.place.command(&self.config.binary);
        command.args(["run", "--config"]).arg(&self.file);
        command.envs(self.config.environment.iter().cloned());
        command
    }

    /// Another subcommand of `sheath` for this instance, e.g. `status`.
    pub fn sheath(&self, subcommand: &str, more: &[&str]) -> Output {
        Command::new(&self.config.binary)
            .args([subcommand, "--instance", &self.config.instance, "--run-dir"])
            .arg(&self.config.run_dir)
            .args(more)
            .output()
            .expect("running sheath")
    }

    /// `sheath check` with this agent's configuration, in this agent's place.
    pub fn sheath_check(&self) -> Output {
        let mut command = self.place.command(&self.config.binary);
        command.args(["check", "--config"]).arg(&self.file);
        command.output().expect("running sheath check")
    }

    /// Kills the agent with SIGKILL.
    pub fn kill(&mut self) {
        self.process.take().expect("a running agent").kill();
    }

    /// Asks the agent to end (SIGTERM); see [`Self::wait`].
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("a running agent").signal(signal);
    }

    /// The configuration file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Changes the configuration file; the next [`Self::launch`] reads it.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        fs::write(&self.file, self.config.to_text()).expect("the configuration file");
    }

    /// Changes the configuration file and has the running agent read it (`sheath reload`).
    pub fn reload(&mut self, change: impl FnOnce(&mut Config)) -> Output {
        self.reconfigure(change);
        self.sheath("reload", &[])
    }

    /// Lets the process have this many descriptors from now on.
    pub fn limit_files(&self, count: u64) {
        let limit = libc::rlimit { rlim_cur: count, rlim_max: count };
        let pid = libc::pid_t::try_from(self.pid()).unwrap();
        // SAFETY: the new limit outlives the call, and the old one is not asked for.
        let result = unsafe {
            libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut())
        };
        assert_eq!(result, 0, "prlimit: {}", std::io::Error::last_os_error());
    }

    /// Connects to the admin socket and asks nothing, which takes a descriptor of the agent's while it lasts.
    #[track_caller]
    pub fn visit(&self) -> UnixStream {
        let socket = self.run_dir().join(self.instance()).join("admin.sock");
        UnixStream::connect(socket).expect("a connection to the admin socket")
    }

    /// Waits until the agent has ended by itself.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let status = self.process.as_mut().expect("a running agent").wait(limit);
        self.process = None;
        status
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.try_wait().is_none())
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a running agent").pid()
    }

    /// Descriptors the process holds.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the agent's descriptors").count()
    }

    /// Resident memory of the process in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    pub fn instance(&self) -> &str {
        &self.config.instance
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn cgroup(&self) -> &Arc<Cgroup> {
        &self.place.cgroup
    }

    /// The namespace it runs in.
    pub fn netns(&self) -> &Arc<NetNs> {
        &self.place.netns
    }

    pub fn run_dir(&self) -> &Path {
        Path::new(&self.config.run_dir)
    }

    /// `sheath status --output json`.
    #[track_caller]
    pub fn status(&self) -> Status {
        self.ask("status")
    }

    #[track_caller]
    fn ask<T: DeserializeOwned>(&self, question: &str) -> T {
        let output = self.sheath(question, &["--output", "json"]);
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "sheath {question}: {problem}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("sheath {question}: {error} in {}", String::from_utf8_lossy(&output.stdout))
        })
    }

    /// `sheath certs --output json`.
    #[track_caller]
    pub fn certs(&self) -> Certs {
        self.ask("certs")
    }

    /// Waits until the certificate of a workload or TLS context satisfies the condition.
    #[track_caller]
    pub fn wait_for_certificate(
        &self,
        name: &str,
        what: &str,
        condition: impl Fn(&Certificate) -> bool,
    ) -> Certificate {
        // The pauses of a source that fails grow to half a minute.
        const LIMIT: Duration = Duration::from_secs(3 * GENEROUS.as_secs());
        let mut last = None;
        let found = wait::try_for(LIMIT, || {
            let certificate = self.certs().certificate(name).clone();
            if condition(&certificate) {
                return Some(certificate);
            }
            last = Some(certificate);
            None
        });
        found.unwrap_or_else(|| panic!("{what}: not within {LIMIT:?}; last: {last:#?}"))
    }

    /// Waits until a workload has this SVID and its source has nothing to complain of.
    #[track_caller]
    pub fn wait_for_svid(&self, workload: &str, leaf: &Leaf) {
        self.wait_for_certificate(workload, "the SVID", |seen| seen.is_fresh(leaf.serial()));
    }

    /// Waits for a line of the log, other than of the access log, at this level and with these words.
    #[track_caller]
    pub fn wait_for_log(&self, level: &str, words: &str) -> String {
        let level = format!("\"level\":\"{level}\"");
        let is_it = |line: &String| {
            line.contains(&level) && line.contains(words) && Access::parse(line).is_none()
        };
        let found = wait::try_for(GENEROUS, || self.log_lines().into_iter().find(is_it));
        found.unwrap_or_else(|| panic!("no {level} with {words:?} within {GENEROUS:?}"))
    }

    /// Waits for a status that satisfies the condition.
    #[track_caller]
    pub fn wait_for_status(&self, what: &str, condition: impl Fn(&Status) -> bool) -> Status {
        let mut last = None;
        let found = wait::try_for(GENEROUS, || {
            let status = self.status();
            if condition(&status) {
                return Some(status);
            }
            last = Some(status);
            None
        });
        found.unwrap_or_else(|| panic!("{what}: not within {GENEROUS:?}; last: {last:#?}"))
    }

    /// Waits until the agent serves a workload's namespace, which takes a process in it. Until then
    /// the workload's protected connections are refused.
    #[track_caller]
    pub fn wait_enrolled(&self, workload: &str, place: &Place) {
        let inode = place.netns.inode();
        self.wait_for_status("the workload's namespace", |status| {
            let namespaces = &status.workload(workload).namespaces;
            namespaces.iter().any(|namespace| namespace.inode == inode && namespace.ready)
        });
    }

    /// Every line of the log so far.
    pub fn log_lines(&self) -> Vec<String> {
        read_lines(&self.log)
    }

    /// The access log so far.
    pub fn access(&self) -> Vec<Access> {
        self.log_lines().iter().filter_map(|line| Access::parse(line)).collect()
    }

    /// Waits for an access line that satisfies the condition.
    #[track_caller]
    pub fn wait_for_access(&self, what: &str, condition: impl Fn(&Access) -> bool) -> Access {
        let found =
            wait::try_for(GENEROUS, || self.access().into_iter().find(|line| condition(line)));
        found.unwrap_or_else(|| panic!("no access line for {what} within {GENEROUS:?}"))
    }

    fn open_log(&self) -> File {
        OpenOptions::new().create(true).append(true).open(&self.log).expect("the agent's log file")
    }

    fn log_tail(&self) -> String {
        let lines = self.log_lines();
        lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- last lines of {}'s agent\n{}", self.config.node, self.log_tail());
        }
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
        let output = self.sheath("cleanup", &[]);
        let left = pins::list(&self.config.instance);
        if !output.status.success() || !left.is_empty() {
            let message =
                format!("sheath cleanup: {}left {left:?}", String::from_utf8_lossy(&output.stderr));
            // What cleanup leaves is removed all the same, so that one failure stays one.
            let _ = fs::remove_dir_all(pins::directory(&self.config.instance));
            assert!(std::thread::panicking(), "{message}");
        }
    }
}

fn read_lines(path: &Path) -> Vec<String> {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    // A line being written has no end yet.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(str::to_owned).collect()
}

fn is_ready(line: &str) -> bool {
    serde_json::from_str::<Value>(line).is_ok_and(|value| value["message"] == "ready")
}
