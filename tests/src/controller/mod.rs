//! A controller as a process, and whoever calls it.

mod client;
mod following;
mod scene;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api_server::{ApiServer, Kind};
use crate::binaries;
use crate::clock::Clock;
use crate::netns::NetNs;
use crate::secrets::base64_within;
use crate::wait::{self, GENEROUS};
use crate::world::TRUST_DOMAIN;

pub use client::{Answer, Caller, Csr};
pub use following::Following;
pub use scene::Scene;

/// Where its objects are.
pub const NAMESPACE: &str = "sheath-system";
/// What it proves to be.
pub const SPIFFE_ID: &str = "spiffe://example.org/ns/sheath-system/sa/sheath-controller";

/// A replica of the controller. It ends with this value.
pub struct Controller {
    name: String,
    netns: Arc<NetNs>,
    dir: TempDir,
    /// What runs it.
    program: Vec<OsString>,
    process: Option<Child>,
    /// If it is not the system's.
    clock: Option<Clock>,
}

impl Controller {
    /// Starts one, which is known to the API server by its name. `change` is about its settings.
    #[track_caller]
    pub fn start(
        api: &ApiServer,
        netns: &Arc<NetNs>,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Self {
        Self::start_by(None, api, netns, name, change)
    }

    /// The same, with a clock of its own.
    #[track_caller]
    pub fn start_by(
        clock: Option<Clock>,
        api: &ApiServer,
        netns: &Arc<NetNs>,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the controller");
        let mut settings = json!({
            "trustDomain": TRUST_DOMAIN,
            "listen": "127.0.0.1:0",
            "advertise": "127.0.0.1:0",
            "name": name,
            "kubeconfig": api.kubeconfig_of(name),
            "identity": {"svidTtl": "1h", "intermediateTtl": "10h", "rootTtl": "1000h", "distribute": "1h"},
            "log": {"level": "info", "format": "json"},
        });
        change(&mut settings);
        fs::write(dir.path().join("controller.yaml"), settings.to_string()).unwrap();
        let program = vec![binaries::sheath().into()];
        let (name, netns) = (name.to_owned(), netns.clone());
        let mut controller = Self { name, netns, dir, program, process: None, clock };
        controller.launch();
        controller
    }

    /// Runs it from now on as nobody, without any capability, in a directory that it cannot write to.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn relaunch_as_nobody(&mut self) {
        self.kill();
        let at = |name: &str| self.dir.path().join(name);
        let read = fs::read_to_string(at("controller.yaml")).unwrap();
        let mut settings: Value = serde_json::from_str(&read).unwrap();
        fs::copy(settings["kubeconfig"].as_str().unwrap(), at("kubeconfig")).unwrap();
        settings["kubeconfig"] = json!(at("kubeconfig"));
        fs::write(at("controller.yaml"), settings.to_string()).unwrap();
        binaries::copy(&binaries::sheath(), &at("sheath"));
        fs::set_permissions(self.dir.path(), Permissions::from_mode(0o755)).unwrap();
        let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        let nothing = ["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"];
        self.program = nobody.into_iter().chain(nothing).map(OsString::from).collect();
        self.program.push(at("sheath").into());
        self.launch();
    }

    #[track_caller]
    pub fn launch(&mut self) {
        let before = self.log_lines().len();
        let mut command = self.netns.command(&self.program[0]);
        command.args(&self.program[1..]);
        command.envs(self.clock.iter().flat_map(Clock::environment));
        command.args(["controller", "--config"]).arg(self.dir.path().join("controller.yaml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(self.open_log());
        self.process = Some(command.spawn().expect("the controller"));
        wait::wait_until("the controller listens", GENEROUS, || self.log_lines().len() > before);
        assert!(self.address().port() != 0);
    }

    /// Its own clock.
    ///
    /// # Panics
    /// If it has none.
    pub fn clock(&self) -> &Clock {
        self.clock.as_ref().expect("a clock of its own")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn open_log(&self) -> File {
        OpenOptions::new().create(true).append(true).open(self.log()).expect("the log")
    }

    pub fn log_lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for a line of the log with these words.
    #[track_caller]
    pub fn wait_for_log(&self, words: &str) {
        wait::wait_until(&format!("{}: {words}", self.name), GENEROUS, || {
            self.log_lines().iter().any(|line| line.to_string().contains(words))
        });
    }

    /// Where it listens since it was launched last.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        let lines = self.log_lines();
        let told = lines.iter().rev().find_map(|line| line["advertise"].as_str());
        told.unwrap_or_else(|| panic!("no address in {lines:#?}")).parse().unwrap()
    }

    /// Where it answers about health and metrics, since it was launched last.
    #[track_caller]
    pub fn pages(&self) -> SocketAddr {
        wait::wait_for("an address for health and metrics", GENEROUS, || {
            let lines = self.log_lines();
            let mut told = lines.iter().rev();
            let line = told.find(|line| line.to_string().contains("answers about health"))?;
            line["listen"].as_str()?.parse().ok()
        })
    }

    /// How the Lease calls it.
    pub fn identity(&self) -> String {
        format!("{}/{}", self.name, self.address())
    }

    /// It says nothing any more, and is there all the same.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// The end of that.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("a running controller");
        kill(Pid::from_raw(process.id().try_into().unwrap()), signal).expect("a signal");
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    #[track_caller]
    pub fn terminate(&mut self) {
        self.signal(Signal::SIGTERM);
        let mut process = self.process.take().expect("a running controller");
        let status =
            wait::wait_for("the controller's end", GENEROUS, || process.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            for line in self.log_lines().iter().rev().take(30).rev() {
                eprintln!("{}: {line}", self.name);
            }
        }
    }
}

/// Who holds the Lease.
pub fn holder(api: &ApiServer) -> Option<String> {
    let lease = api.get(Kind::Lease, "sheath-system/sheath-controller")?;
    lease["spec"]["holderIdentity"].as_str().map(str::to_owned)
}

/// Waits until a replica leads.
#[track_caller]
pub fn wait_leads(api: &ApiServer, controller: &Controller) {
    wait::wait_until(&format!("{} leads", controller.name), GENEROUS, || {
        holder(api) == Some(controller.identity())
    });
}

/// The roots that are published, in PEM.
#[track_caller]
pub fn wait_roots(api: &ApiServer) -> String {
    wait::wait_for("roots", GENEROUS, || {
        let map = api.get(Kind::ConfigMap, "sheath-system/sheath-roots")?;
        map["data"]["roots.pem"].as_str().map(str::to_owned)
    })
}

/// Makes an agent known: its pod on a node, and a token that the kubelet has made for it.
pub fn know_agent(api: &ApiServer, node: &str, token: &str) {
    api.put(Kind::Namespace, json!({"metadata": {"name": NAMESPACE}}));
    api.put(Kind::Pod, agents_pod(node));
    api.know_token(token, token_of(node));
}

/// The pod of a node's agent.
pub fn agents_pod(node: &str) -> Value {
    json!({
        "metadata": {
            "namespace": NAMESPACE,
            "name": format!("sheath-agent-{node}"),
            "uid": agents_uid(node),
        },
        "spec": {
            "nodeName": node,
            "serviceAccountName": "sheath-agent",
            "hostNetwork": true,
            "containers": [],
        },
        "status": {"phase": "Running"},
    })
}

fn agents_uid(node: &str) -> String {
    let number = node.bytes().fold(7_u64, |sum, byte| sum * 31 + u64::from(byte));
    format!("00000000-0000-4000-9000-{:012x}", number & 0xffff_ffff_ffff)
}

/// What a review says of a token that the kubelet has made for the agent of a node.
pub fn token_of(node: &str) -> Value {
    json!({
        "authenticated": true,
        "audiences": ["sheath-controller"],
        "user": {
            "username": "system:serviceaccount:sheath-system:sheath-agent",
            "extra": {
                "authentication.kubernetes.io/node-name": [node],
                "authentication.kubernetes.io/pod-name": [format!("sheath-agent-{node}")],
                "authentication.kubernetes.io/pod-uid": [agents_uid(node)],
            },
        },
    })
}

/// A Secret of the controller's namespace, by the texts of its entries.
pub fn secret(name: &str, entries: &[(&str, &str)]) -> Value {
    let encoded = |text: &str| {
        // Whole groups need no padding, and line breaks at the end of PEM mean nothing.
        let padded = format!("{text}{}", &"\n\n"[..(3 - text.len() % 3) % 3]);
        String::from_utf8(base64_within(padded.as_bytes(), 0)).expect("ASCII")
    };
    let data: serde_json::Map<_, _> =
        entries.iter().map(|(name, text)| ((*name).to_owned(), json!(encoded(text)))).collect();
    json!({"metadata": {"namespace": NAMESPACE, "name": name}, "data": data})
}

/// Writes a text where an agent reads it.
pub fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let file = dir.join(name);
    fs::write(&file, text).unwrap();
    file
}
