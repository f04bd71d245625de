//! The plugin as a container runtime runs it: the program itself, with the environment and stdin of CNI, against the gate socket of
//! an agent.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sheath::gate::{Gate, GateKind, GateSettings, NotAdmitted, PodState, PodStates};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const UID: &str = "0f5b0d5e-7a54-4a0e-8f0e-2f9d3c1b7a66";

/// What a plugin before has made: numbers and order that must not change.
const RESULT: &str =
    r#"{ "ips":[{"address":"10.1.0.5/16"}],  "dns":{}, "x": 1.50, "a": 10000000000000000000000 }"#;

/// A node with its runtime's directories, and an agent if there is one.
struct Node {
    dir: TempDir,
    agent: Option<(Runtime, Gate, Arc<PodStates>)>,
}

impl Node {
    fn without_agent() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["net.d", "bin", "run"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir, agent: None }
    }

    fn new() -> Self {
        let mut node = Self::without_agent();
        node.start_agent();
        node
    }

    fn start_agent(&mut self) {
        let runtime = Runtime::new().unwrap();
        let settings = GateSettings { gate: GateKind::Cni, ..GateSettings::default() };
        let states = Arc::new(PodStates::new(&settings));
        let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
        let gate = runtime.block_on(async {
            Gate::start(&settings, "default", &self.socket(), states.clone(), random).unwrap()
        });
        self.agent = Some((runtime, gate, states));
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/gate.sock")
    }

    fn set(&self, state: PodState) {
        self.agent.as_ref().unwrap().2.set(UID.parse().unwrap(), state);
    }

    fn config(&self) -> Value {
        json!({
            "cniVersion": "1.1.0",
            "name": "pods",
            "type": "sheath-cni",
            "socket": self.socket(),
            "runtimeConfig": { "portMappings": [] },
        })
    }

    /// With the result of the plugins before, to the letter.
    fn add(&self, config: &Value) -> Ran {
        let text = config.to_string();
        let text = format!("{},\"prevResult\":{RESULT}}}", &text[..text.len() - 1]);
        run("ADD", &text, |_| {})
    }
}

struct Ran {
    ok: bool,
    stdout: String,
    stderr: String,
    took: Duration,
}

impl Ran {
    /// The error's code, and what it says.
    fn error(&self) -> (u64, String) {
        assert!(!self.ok, "{}", self.stdout);
        let error: Value = serde_json::from_str(&self.stdout).unwrap();
        assert_eq!(error["cniVersion"], "1.1.0");
        assert!(!error["msg"].as_str().unwrap().is_empty());
        (error["code"].as_u64().unwrap(), error["details"].as_str().unwrap().to_owned())
    }

    fn assert_silent(&self) {
        assert!(self.ok && self.stdout.is_empty(), "{} {}", self.stdout, self.stderr);
    }
}

/// A pod's network namespace: that of a thread which only waits.
struct PodNamespace {
    path: String,
}

static NAMESPACE: LazyLock<PodNamespace> = LazyLock::new(|| {
    let (sender, path) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let (process, thread) = (std::process::id(), nix::unistd::gettid());
        sender.send(format!("/proc/{process}/task/{thread}/ns/net")).unwrap();
        loop {
            std::thread::park();
        }
    });
    PodNamespace { path: path.recv().unwrap() }
});

impl PodNamespace {
    fn path(&self) -> &str {
        &self.path
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sheath"))
}

fn run(command: &str, stdin: &str, change: impl FnOnce(&mut Command)) -> Ran {
    let mut plugin = program();
    plugin
        .arg("cni")
        .env_clear()
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", "c0ffee")
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/opt/cni/bin")
        .env("CNI_NETNS", NAMESPACE.path())
        .env(
            "CNI_ARGS",
            format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID={UID}"),
        );
    change(&mut plugin);
    feed(plugin, stdin)
}

fn feed(mut plugin: Command, stdin: &str) -> Ran {
    let begun = Instant::now();
    plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = plugin.spawn().unwrap();
    // It need not read all of it.
    let _ = running.stdin.take().unwrap().write_all(stdin.as_bytes());
    let Output { status, stdout, stderr } = running.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    assert!(status.success() || status.code() == Some(1), "{status} {}", text(stderr.clone()));
    Ran { ok: status.success(), stdout: text(stdout), stderr: text(stderr), took: begun.elapsed() }
}

#[test]
fn a_pod_that_is_decided_gets_the_network_that_was_made_for_it() {
    let node = Node::new();
    node.set(PodState::Plain);
    let added = node.add(&node.config());
    assert!(added.ok, "{}", added.stdout);
    assert_eq!(added.stdout, format!("{RESULT}\n"), "to the letter");
    let (_, gate, states) = node.agent.as_ref().unwrap();
    let sandboxes = states.sandboxes();
    let sandbox = sandboxes.borrow().values().next().unwrap().clone();
    assert_eq!((sandbox.id.as_str(), &*sandbox.uid.to_string()), ("c0ffee", UID));
    assert!(sandbox.namespace.is_some(), "the agent holds the pod's network namespace");
    assert_eq!(gate.status().cni.admitted, 1);
    run("CHECK", &node.config().to_string(), |_| {}).assert_silent();
    run("DEL", &node.config().to_string(), |_| {}).assert_silent();
    assert!(states.sandboxes().borrow().is_empty());
}

#[test]
fn a_pod_that_is_not_decided_or_refused_gets_none_and_the_cause() {
    let node = Node::new();
    let undecided = node.add(&node.config());
    let (code, details) = undecided.error();
    assert_eq!(code, 11, "try again later");
    assert!(details.contains(&format!("pod shop/web ({UID}): not decided yet")), "{details}");
    assert!(undecided.took < Duration::from_secs(6), "{:?}", undecided.took);
    node.set(PodState::Refused(NotAdmitted::Unsupported("kata".to_owned())));
    let (code, details) = node.add(&node.config()).error();
    assert_eq!(code, 100);
    assert!(details.contains("`kata`"), "{details}");
    let (code, _) = run("CHECK", &node.config().to_string(), |_| {}).error();
    assert_eq!(code, 100);
}

#[test]
fn no_pod_is_taken_for_one_of_the_hosts_network() {
    let node = Node::new();
    node.set(PodState::Plain);
    let text = node.config().to_string();
    let text = format!("{},\"prevResult\":{RESULT}}}", &text[..text.len() - 1]);
    let ran = run("ADD", &text, |plugin| _ = plugin.env("CNI_NETNS", "/proc/self/ns/net"));
    let (code, details) = ran.error();
    assert!(code == 100 && details.contains("the host's network"), "{code} {details}");
}

#[test]
fn without_an_agent_nothing_starts_and_everything_ends() {
    let mut node = Node::without_agent();
    let absent = node.add(&node.config());
    let (code, details) = absent.error();
    assert_eq!(code, 11);
    assert!(details.contains("no agent answers") && details.contains("shop/web"), "{details}");
    assert!((4..7).contains(&absent.took.as_secs()), "{:?}", absent.took);
    run("DEL", &node.config().to_string(), |_| {}).assert_silent();
    run("GC", &node.config().to_string(), |_| {}).assert_silent();
    // An agent that comes while the runtime waits.
    let config = node.config();
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| {
            let text = config.to_string();
            let text = format!("{},\"prevResult\":{RESULT}}}", &text[..text.len() - 1]);
            run("ADD", &text, |_| {})
        });
        std::thread::sleep(Duration::from_secs(1));
        node.start_agent();
        node.set(PodState::Plain);
        assert!(adding.join().unwrap().ok);
    });
}

/// The API server may be one of them.
#[test]
fn static_pods_start_without_an_agent() {
    let node = Node::without_agent();
    let text = node.config().to_string();
    let text = format!("{},\"prevResult\":{RESULT}}}", &text[..text.len() - 1]);
    for uid in ["b1946ac92492d2347c6235b4d2611184", "apiserver"] {
        let of_pod = format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID={uid}");
        let run = |command| run(command, &text, |plugin| _ = plugin.env("CNI_ARGS", &of_pod));
        let added = run("ADD");
        assert_eq!(added.stdout, format!("{RESULT}\n"), "{uid}: {}", added.stderr);
        assert!(added.took < Duration::from_secs(4), "{uid}: {:?}", added.took);
        run("CHECK").assert_silent();
    }
}

#[test]
fn pods_that_are_allowed_start_without_the_agent_and_no_others() {
    let mut node = Node::without_agent();
    let mut config = node.config();
    config["allow"] = json!(["kube-system/dns", "shop/web"]);
    let excused = node.add(&config);
    assert!(excused.ok && excused.stderr.contains("as `allow` has it"), "{}", excused.stderr);
    config["allow"] = json!(["kube-system/web", "shop/web-0", "shop/we"]);
    assert!(!node.add(&config).ok, "the name alone, or a part of it");
    config["allow"] = json!(["shop/web"]);
    node.start_agent();
    assert!(node.add(&config).ok, "the agent has not seen it");
    node.set(PodState::Preparing(NotAdmitted::NoIdentity("no SVID yet".to_owned())));
    let (_, details) = node.add(&config).error();
    assert!(details.contains("no SVID yet"), "one that is to be protected: {details}");
    for wrong in ["*", "web", "shop/*", "/web", "shop/", "*/web"] {
        config["allow"] = json!([wrong]);
        let (code, details) = node.add(&config).error();
        assert!(code == 6 && details.contains("without wildcards"), "{wrong}: {details}");
    }
}

#[test]
fn the_nodes_network_is_available_while_there_is_an_agent() {
    let mut node = Node::new();
    let status = |node: &Node| run("STATUS", &node.config().to_string(), |_| {});
    status(&node).assert_silent();
    let (runtime, gate, _) = node.agent.take().unwrap();
    drop(gate);
    runtime.shutdown_timeout(Duration::from_secs(2));
    status(&node).assert_silent();
    let away =
        fs::OpenOptions::new().write(true).open(node.dir.path().join("run/gate.away")).unwrap();
    away.set_modified(std::time::SystemTime::now() - Duration::from_secs(61)).unwrap();
    let (code, details) = status(&node).error();
    assert_eq!(code, 50, "plugin not available");
    assert!(details.contains("no such socket"), "{details}");
    node.start_agent();
    status(&node).assert_silent();
    assert!(!node.dir.path().join("run/gate.away").exists());
}

#[test]
fn what_a_runtime_says_wrong_is_named() {
    let node = Node::new();
    node.set(PodState::Plain);
    let with = |change: fn(&mut Command)| {
        let mut config = node.config();
        config["prevResult"] = json!({});
        run("ADD", &config.to_string(), change).error()
    };
    for (change, complaint) in [
        (
            (|plugin| _ = plugin.env_remove("CNI_CONTAINERID")) as fn(&mut Command),
            "CNI_CONTAINERID",
        ),
        (|plugin| _ = plugin.env("CNI_CONTAINERID", "../x"), "CNI_CONTAINERID"),
        (|plugin| _ = plugin.env_remove("CNI_ARGS"), "CNI_ARGS"),
        (|plugin| _ = plugin.env("CNI_ARGS", "K8S_POD_NAME=web"), "K8S_POD_UID"),
        (|plugin| _ = plugin.env_remove("CNI_NETNS"), "CNI_NETNS"),
        (|plugin| _ = plugin.env("CNI_NETNS", "/nowhere"), "CNI_NETNS"),
        (|plugin| _ = plugin.env("CNI_COMMAND", "PING"), "CNI_COMMAND"),
        (|plugin| _ = plugin.env_remove("CNI_COMMAND"), "CNI_COMMAND"),
    ] {
        let (code, details) = with(change);
        assert!(code == 4 && details.contains(complaint), "{code} {details}");
    }
    let mut config = node.config();
    let (code, _) = run("ADD", &config.to_string(), |_| {}).error();
    assert_eq!(code, 7, "no result of a plugin before");
    config["cniVersion"] = json!("9.0.0");
    let ran = run("ADD", &config.to_string(), |_| {});
    assert!(!ran.ok && ran.stdout.contains("\"code\":1,"), "{}", ran.stdout);
    for garbage in ["", "{", "[]", "{\"cniVersion\":\"1.1.0\"}"] {
        let (code, _) = run("ADD", garbage, |_| {}).error();
        assert_eq!(code, 6, "{garbage}");
        run("DEL", garbage, |plugin| _ = plugin.env_remove("CNI_ARGS")).assert_silent();
    }
    let (code, _) = run("ADD", &" ".repeat(2 << 20), |_| {}).error();
    assert_eq!(code, 5);
}

#[test]
fn it_says_which_versions_it_knows() {
    let ran = run("VERSION", r#"{"cniVersion":"0.4.0"}"#, |_| {});
    let versions: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(versions["cniVersion"], "0.4.0");
    let known = json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    assert_eq!(versions["supportedVersions"], known);
}

#[test]
fn what_install_installs_is_what_the_runtime_runs() {
    let node = Node::new();
    let path = |name: &str| node.dir.path().join(name);
    let network = r#"{"cniVersion":"1.1.0","name":"pods","plugins":[{"type":"ptp"}]}"#;
    let conflist = path("net.d/10-pods.conflist");
    fs::write(&conflist, network).unwrap();
    let sheath = |arguments: &[&str]| {
        let mut command = program();
        command.arg("cni").args(arguments);
        command.arg("--conf-dir").arg(path("net.d")).arg("--bin-dir").arg(path("bin"));
        command
    };
    let install = || {
        let mut command = sheath(&["install", "--instance", "blue", "--allow", "kube-system/dns"]);
        command.arg("--run-dir").arg(node.dir.path()).output().unwrap()
    };
    let text = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap();
    let installed = text(&install());
    assert!(
        installed.contains("copied ") && installed.contains("added sheath-cni to "),
        "{installed}"
    );
    assert_eq!(text(&install()), "nothing to change\n");
    let written: Value = serde_json::from_slice(&fs::read(&conflist).unwrap()).unwrap();
    let entry = &written["plugins"][1];
    assert_eq!(entry["socket"], json!(path("blue/gate.sock")));
    assert_eq!(entry["allow"], json!(["kube-system/dns"]));
    // As the runtime runs it: by its own name, without arguments.
    let plugin = path("bin/sheath-cni");
    let mut version = Command::new(&plugin);
    version.env("CNI_COMMAND", "VERSION");
    let ran = feed(version, "{}");
    assert!(ran.ok && ran.stdout.contains("supportedVersions"), "{} {}", ran.stdout, ran.stderr);
    let removed = sheath(&["uninstall", "--output", "json"]).output().unwrap();
    let removed: Value = serde_json::from_slice(&removed.stdout).unwrap();
    assert_eq!(removed["changes"].as_array().unwrap().len(), 2);
    assert_eq!(fs::read_to_string(&conflist).unwrap(), network);
    assert!(!Path::exists(&plugin));
    let allow_all = sheath(&["install", "--allow", "*"]).output().unwrap();
    assert_eq!(allow_all.status.code(), Some(2));
}
