//! `sheath replace`: after an update, by the program that is installed now, under the eyes of a service manager.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sheath_tests::binaries;
use sheath_tests::live::LiveFlow;
use sheath_tests::pair::{Pair, Setting};
use sheath_tests::pins;
use sheath_tests::script::Step;
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::Family;

/// The usual scene, where the agent of node A has a service manager and a program of its own.
struct Scene {
    pair: Pair,
    told: Receiver<String>,
    program: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let mut made = None;
        let pair = Pair::with_world(Setting::Host, |world, a, _| {
            let socket = world.dir.path().join("notify");
            let manager = UnixDatagram::bind(&socket).expect("the manager's socket");
            let program = world.dir.path().join("sheath");
            install(&binaries::sheath(), &program);
            a.binary = program.clone();
            a.environment = vec![("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", "200000".into())];
            made = Some((manager, program));
        });
        let (manager, program) = made.expect("a changed configuration");
        let (tell, told) = mpsc::channel();
        // Whoever writes to a socket that is not read waits. It ends with the test.
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok(length) = manager.recv(&mut buffer) {
                let said = String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned();
                if tell.send(said).is_err() {
                    return;
                }
            }
        });
        Self { pair, told, program }
    }

    /// The next message to the service manager.
    #[track_caller]
    fn told(&self) -> String {
        self.told.recv_timeout(GENEROUS).expect("a message to the manager")
    }

    /// Forgets what the service manager was told until now.
    fn forget_told(&self) {
        while self.told.try_recv().is_ok() {}
    }

    /// What the installed program says to `sheath replace`.
    fn replace(&self) -> Output {
        self.pair.agent_a.sheath("replace", &["--output", "json"])
    }
}

/// Puts a program in the place of another, as package managers do.
fn install(from: &Path, to: &Path) {
    let fresh = to.with_extension("new");
    // By another process: what is open for writing here when some test starts a program cannot be run (ETXTBSY in execve(2)).
    let status = Command::new("cp").args([from, &fresh]).status().expect("running cp");
    assert!(status.success(), "no copy of the program: {status}");
    fs::rename(&fresh, to).expect("an installed program");
}

/// The file that a process runs, as the kernel names it, unless it has ended.
fn file_of(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_agent_gives_way_to_the_program_that_is_installed_now_and_nobody_notices() {
    let mut scene = Scene::new();
    let before = scene.pair.agent_a.pid();
    let pinned = pins::list(scene.pair.agent_a.instance());
    let _echo = scene.pair.serve(Family::V4, &[Step::Echo]);
    let mut flow = LiveFlow::start(&scene.pair.client, scene.pair.target(Family::V4));
    install(&binaries::sheath(), &scene.program);

    let output = scene.replace();
    assert!(output.status.success(), "{}", said(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("an answer");
    assert_eq!(answer["taken_over_from"], before, "{answer}");
    let pid = u32::try_from(answer["pid"].as_u64().expect("a pid")).unwrap();
    assert_ne!(pid, before);
    assert_eq!(file_of(pid).as_ref(), Some(&scene.program));
    let message = format!("MAINPID={pid}\nWATCHDOG=1");
    while scene.told() != message {}
    flow.assert_alive();
    scene.pair.assert_served();

    // Its end by itself: the service manager does not look after it any more.
    let status = scene.pair.agent_a.release().wait(GENEROUS);
    assert!(status.success(), "{status}");
    scene.forget_told();
    assert_eq!(scene.told(), "WATCHDOG=1", "of the new one");
    flow.assert_alive();
    flow.finish();
    scene.pair.assert_served();
    assert_eq!(pins::list(scene.pair.agent_a.instance()), pinned);
    assert_eq!(scene.pair.agent_a.status().pid, pid);
    end(pid);
}

#[test]
fn an_update_that_does_not_start_leaves_the_agent_and_its_flows_alone() {
    let mut scene = Scene::new();
    let before = scene.pair.agent_a.pid();
    let _echo = scene.pair.serve(Family::V4, &[Step::Echo]);
    let mut flow = LiveFlow::start(&scene.pair.client, scene.pair.target(Family::V4));
    let good = scene.program.with_extension("good");
    install(&scene.program, &good);
    let broken = scene.program.with_extension("broken");
    fs::write(&broken, "#!/bin/sh\nexit 1\n").expect("a program");
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).expect("a mode");
    scene.pair.agent_a.reconfigure(|config| config.binary = good.clone());

    for (is_there, words) in [(true, "has ended before it served"), (false, "cannot start")] {
        match is_there {
            true => install(&broken, &scene.program),
            false => fs::remove_file(&scene.program).expect("no program"),
        }
        let output = scene.replace();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
        flow.assert_alive();
        scene.pair.assert_served();
        assert_eq!(scene.pair.agent_a.status().pid, before);
    }

    install(&good, &scene.program);
    let output = scene.replace();
    assert!(output.status.success(), "{}", said(&output));
    flow.assert_alive();
    flow.finish();
    let status = scene.pair.agent_a.release().wait(GENEROUS);
    assert!(status.success(), "{status}");
    end(scene.pair.agent_a.status().pid);
}

/// A third one would take what is in the kernel of the second one's connections for leftovers of the first.
#[test]
fn an_agent_is_replaced_again_when_the_one_before_it_has_gone() {
    let mut scene = Scene::new();
    let _echo = scene.pair.serve(Family::V4, &[Step::Echo]);
    let replaced = || {
        let output = scene.replace();
        assert!(output.status.success(), "{}", said(&output));
        let answer: Value = serde_json::from_slice(&output.stdout).expect("an answer");
        u32::try_from(answer["pid"].as_u64().expect("a pid")).unwrap()
    };
    let (second, third) = (replaced(), replaced());
    assert!(!scene.pair.agent_a.is_running(), "it was there when the third one began");
    let status = scene.pair.agent_a.release().wait(GENEROUS);
    assert!(status.success(), "{status}");
    scene.pair.assert_served();
    wait::wait_until("the end of the second one", GENEROUS, || file_of(second).is_none());
    scene.pair.assert_served();
    assert_eq!(scene.pair.agent_a.status().pid, third);
    end(third);
}

/// Not every service manager sees the end of a process that it has not started. It sees that of the agent before, and starts another.
#[test]
fn an_agent_does_not_outlive_the_new_one_that_it_has_started() {
    let mut scene = Scene::new();
    let _echo = scene.pair.serve(Family::V4, &[Step::Echo]);
    let output = scene.replace();
    assert!(output.status.success(), "{}", said(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("an answer");
    let pid = u32::try_from(answer["pid"].as_u64().expect("a pid")).unwrap();
    while !scene.told().starts_with("MAINPID=") {}
    signal(pid, Signal::SIGKILL);
    let status = scene.pair.agent_a.wait(GENEROUS);
    assert_eq!(status.code(), Some(1), "{status}");
    scene.pair.agent_a.launch();
    scene.pair.agent_a.wait_enrolled("client", &scene.pair.client);
    scene.pair.assert_served();
}

#[test]
fn an_agent_without_a_service_manager_is_not_replaced() {
    let pair = Pair::host();
    let output = pair.agent_a.sheath("replace", &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("NOTIFY_SOCKET"), "{}", said(&output));
    assert_eq!(pair.agent_a.status().pid, pair.agent_a.pid());
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).expect("a signal to the new agent");
}

/// Ends an agent that is nobody's child here.
#[track_caller]
fn end(pid: u32) {
    signal(pid, Signal::SIGTERM);
    wait::wait_until("the end of the new agent", GENEROUS, || {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    });
}
