use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::gate::{GateSettings, PodState, PodStates, Reason};
use sheath_common::pod_uid::PodUid;

const UID: &str = "0f5b0d5e-7a54-4a0e-8f0e-2f9d3c1b7a66";

struct Nobody;

impl Asked for Nobody {
    fn answered(&self, _: bool) {}
}

struct Agent {
    dir: TempDir,
    states: Arc<PodStates>,
    runtime: Runtime,
}

impl Agent {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let states = Arc::new(PodStates::new(&GateSettings::default()));
        let agent = Self { dir, states, runtime };
        let server = agent.runtime.block_on(async { Server::bind(&agent.socket()) }).unwrap();
        agent.runtime.spawn(server.serve(agent.states.clone(), Arc::new(Nobody)));
        agent
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("gate.sock")
    }

    fn ask(&self, op: Operation) -> Answer {
        let request = Request::new(op, Some(sandbox()));
        let deadline = Instant::now() + Duration::from_secs(10);
        ask(&self.socket(), &request, Some(&namespace()), deadline, false).unwrap()
    }

    /// The answer to a line.
    fn say(&self, line: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.write_all(line).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }
}

/// A pod's network namespace.
fn namespace() -> File {
    let open = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    };
    std::thread::spawn(open).join().unwrap()
}

fn uid() -> PodUid {
    UID.parse().unwrap()
}

fn sandbox() -> AskedSandbox {
    let text = str::to_owned;
    AskedSandbox { id: text("a1"), uid: text(UID), namespace: text("shop"), name: text("web") }
}

#[test]
fn a_request_is_answered_by_what_is_known() {
    let agent = Agent::start();
    agent.states.set(uid(), PodState::Plain);
    assert_eq!(agent.ask(Operation::Admit), Answer::yes());
    let sandboxes = agent.states.sandboxes();
    let namespace = sandboxes.borrow().values().next().unwrap().namespace.clone();
    assert!(!namespace.unwrap().is_own(), "the file that came with the request");
    assert_eq!(agent.ask(Operation::Gone), Answer::yes());
    assert!(sandboxes.borrow().is_empty());
    agent.states.set(uid(), PodState::Refused(crate::gate::NotAdmitted::Refused("why".to_owned())));
    let refused = agent.ask(Operation::Admit);
    assert_eq!((refused.ok, refused.reason), (false, Some(Reason::Refused)));
    let message = refused.message.unwrap();
    assert_eq!(message, format!("sheath: pod shop/web ({UID}): refused: why"));
}

#[test]
fn nobody_is_asked_about_static_pods() {
    let agent = Agent::start();
    for uid in ["b1946ac92492d2347c6235b4d2611184", "apiserver"] {
        let sandbox = serde_json::to_string(&AskedSandbox { uid: uid.to_owned(), ..sandbox() });
        let line = format!("{{\"v\":1,\"op\":\"admit\",\"sandbox\":{}}}\n", sandbox.unwrap());
        assert_eq!(agent.say(line.as_bytes()).trim(), r#"{"v":1,"ok":true}"#, "{uid}");
    }
    assert!(agent.states.sandboxes().borrow().is_empty());
}

#[test]
fn asking_waits_and_checking_does_not() {
    let agent = Agent::start();
    agent.states.set(uid(), PodState::Preparing(crate::gate::NotAdmitted::Undecided));
    let asked = Instant::now();
    assert_eq!(agent.ask(Operation::Check).reason, Some(Reason::Undecided));
    assert!(asked.elapsed() < Duration::from_secs(1));
    let states = agent.states.clone();
    agent.runtime.spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        states.set(uid(), PodState::Plain);
    });
    assert_eq!(agent.ask(Operation::Admit), Answer::yes());
}

#[test]
fn who_stops_asking_is_not_waited_for() {
    let agent = Agent::start();
    let mut stream = UnixStream::connect(agent.socket()).unwrap();
    let mut line = serde_json::to_vec(&Request::new(Operation::Admit, Some(sandbox()))).unwrap();
    line.push(b'\n');
    stream.write_all(&line).unwrap();
    let mut sandboxes = agent.states.sandboxes();
    agent.runtime.block_on(sandboxes.wait_for(|shown| shown.len() == 1)).unwrap();
    drop(stream);
    let gone = async { sandboxes.wait_for(|shown| shown.is_empty()).await.is_ok() };
    let gone =
        agent.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(2), gone).await });
    assert_eq!(gone, Ok(true));
}

#[test]
fn what_is_no_request_is_told_so() {
    let agent = Agent::start();
    agent.states.set(uid(), PodState::Plain);
    let sandbox = serde_json::to_string(&sandbox()).unwrap();
    for (line, answer) in [
        (r#"{"v":1,"op":"status"}"#.to_owned(), r#"{"v":1,"ok":true}"#),
        (r#"{"v":2,"op":"status"}"#.to_owned(), "another version"),
        (r#"{"v":1,"op":"open"}"#.to_owned(), "cannot read the request"),
        (r#"{"v":1,"op":"admit"}"#.to_owned(), "does not say which sandbox"),
        (format!(r#"{{"v":1,"op":"admit","sandbox":{sandbox},"x":1}}"#), "cannot read the request"),
        (
            format!(r#"{{"v":1,"op":"admit","sandbox":{}}}"#, sandbox.replace(UID, "../x")),
            "no uid of a pod",
        ),
        (
            format!(r#"{{"v":1,"op":"admit","sandbox":{}}}"#, sandbox.replace("web", "w/b")),
            "its name",
        ),
        ("\u{7f}".to_owned(), "cannot read the request"),
    ] {
        let told = agent.say(format!("{line}\n").as_bytes());
        assert!(told.contains(answer) && told.ends_with('\n'), "{line}: {told}");
    }
    assert_eq!(agent.say(&[b'x'; 2 * LONGEST]), "");
}

#[test]
fn a_file_that_is_no_pods_network_namespace_is_refused() {
    let agent = Agent::start();
    agent.states.set(uid(), PodState::Plain);
    let request = Request::new(Operation::Admit, Some(sandbox()));
    let deadline = Instant::now() + Duration::from_secs(10);
    for path in ["/dev/null", "/proc/self/ns/mnt", "/proc/self/ns/net"] {
        let file = File::open(path).unwrap();
        let answer = ask(&agent.socket(), &request, Some(&file), deadline, false).unwrap();
        assert_eq!(answer.reason, Some(Reason::Malformed), "{path}: {answer:?}");
    }
}

#[test]
fn connections_that_say_nothing_end_and_others_are_answered_meanwhile() {
    let agent = Agent::start();
    agent.states.set(uid(), PodState::Plain);
    let silent: Vec<UnixStream> =
        (0..100).map(|_| UnixStream::connect(agent.socket()).unwrap()).collect();
    let asked = Instant::now();
    assert_eq!(agent.ask(Operation::Admit), Answer::yes());
    assert!(asked.elapsed() < Duration::from_secs(1));
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }
    assert!(asked.elapsed() < Duration::from_secs(4));
}

#[test]
fn the_socket_is_for_root_alone_and_goes_with_the_agent() {
    let agent = Agent::start();
    let mode = fs::metadata(agent.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let Agent { dir, runtime, .. } = agent;
    runtime.shutdown_timeout(Duration::from_secs(2));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn no_agent_is_told_in_time() {
    let request = Request::new(Operation::Status, None);
    let within = |socket: &Path, limit: u64, again| {
        let asked = Instant::now();
        let deadline = asked + Duration::from_millis(limit);
        let error = ask(socket, &request, None::<&File>, deadline, again).unwrap_err();
        (error.to_string(), asked.elapsed().as_millis() as u64)
    };
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("gate.sock");
    let (error, took) = within(&socket, 500, false);
    assert!(error.contains("no such socket") && took < 200, "{error} {took}");
    let (error, took) = within(&socket, 500, true);
    assert!(error.contains("no such socket") && (350..600).contains(&took), "{error} {took}");
    // One that takes connections, and never answers.
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let (error, took) = within(&socket, 300, true);
    assert!(error.contains("does not answer in time") && took < 600, "{error} {took}");
    // And does not even take them.
    let waiting: Vec<_> = (0..5000)
        .map_while(|_| {
            let stream = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
            let stream = stream.unwrap();
            stream.set_nonblocking(true).unwrap();
            stream.connect(&socket2::SockAddr::unix(&socket).unwrap()).ok().map(|()| stream)
        })
        .collect();
    assert!(waiting.len() < 5000);
    let (error, took) = within(&socket, 300, true);
    assert!(error.contains("does not answer in time") && took < 600, "{error} {took}");
    drop(listener);
    let (error, _) = within(&socket, 300, false);
    assert!(error.contains("it has ended"), "{error}");
}
