//! The hand-over of an agent to its successor: nobody notices, and whoever fails on the way harms nobody.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::Signal;
use sheath_tests::agent::Agent;
use sheath_tests::config::Workload;
use sheath_tests::hammer::Hammer;
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::live::LiveFlow;
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, Pair, SETTINGS, Setting, say};
use sheath_tests::pins;
use sheath_tests::place::Process;
use sheath_tests::probe::Probe;
use sheath_tests::script::Step;
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{FAMILIES, Family};

/// A connection that takes longer has waited for something to be sent again.
const PROMPT: u64 = 900;

/// Short connections of both families at once, all of which must succeed.
struct Traffic {
    hammers: Vec<Hammer>,
    _echoes: Vec<Probe>,
}

impl Traffic {
    fn start(pair: &Pair, secret: &str) -> Self {
        let echoes = FAMILIES.map(|family| pair.serve(family, &[Step::Echo]));
        let families = FAMILIES.into_iter().cycle().take(4);
        let hammers =
            families.map(|family| Hammer::start(&pair.client, pair.target(family), secret));
        let mut traffic = Self { hammers: hammers.collect(), _echoes: echoes.into() };
        traffic.flows();
        traffic
    }

    /// Some more of each have succeeded, and none that has been made since the last call has failed.
    #[track_caller]
    fn flows(&mut self) -> u64 {
        let mut slowest = 0;
        for hammer in &mut self.hammers {
            let tries = hammer.collect("connections", |tries| tries.len() >= 5);
            for attempt in &tries {
                assert_eq!(attempt.error, None, "{attempt:?}");
                slowest = slowest.max(attempt.milliseconds);
            }
        }
        slowest
    }
}

/// Tries all the time to get the lock of an instance.
struct LockPicker {
    stop: Arc<AtomicBool>,
    picking: Option<JoinHandle<usize>>,
}

impl LockPicker {
    fn start(agent: &Agent) -> Self {
        let path = directory(agent).join("lock");
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let picking = thread::spawn(move || {
            let mut tries = 0;
            while !told.load(Ordering::Relaxed) {
                let file = File::open(&path).expect("the lock");
                match file.try_lock() {
                    Err(TryLockError::WouldBlock) => tries += 1,
                    other => panic!("the lock was free: {other:?}"),
                }
                // The processor is for the others.
                thread::sleep(Duration::from_micros(500));
            }
            tries
        });
        Self { stop, picking: Some(picking) }
    }

    #[track_caller]
    fn assert_never_free(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let tries = self.picking.take().unwrap().join().expect("a lock that is never free");
        assert!(tries > 100, "{tries}");
    }
}

impl Drop for LockPicker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The run directory of an instance.
fn directory(agent: &Agent) -> PathBuf {
    agent.run_dir().join(agent.instance())
}

#[track_caller]
fn end(mut process: Process) {
    process.signal(Signal::SIGTERM);
    let status = process.wait(GENEROUS);
    assert!(status.success(), "{status}");
}

/// The status of the agent that answers at the admin socket.
#[track_caller]
fn assert_answers(agent: &Agent) {
    assert_eq!(agent.status().pid, agent.pid());
}

/// As kubelets ask, of either agent.
#[track_caller]
fn assert_healthy(agent: &Agent) {
    for question in ["alive", "ready"] {
        let output = agent.sheath("health", &[question]);
        assert!(output.status.success(), "{question}: {output:?}");
    }
}

/// How many lines of the log have these words.
fn count(agent: &Agent, words: &str) -> usize {
    agent.log_lines().iter().filter(|line| line.contains(words)).count()
}

/// Refused: it has not been told to take over.
#[track_caller]
fn assert_held(agent: &Agent) {
    let output = agent.run_command().output().expect("running sheath");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("already running"), "{error}");
}

#[test]
fn no_new_connection_is_refused_while_agents_hand_over() {
    for setting in SETTINGS {
        let mut pair = Pair::new(setting);
        let tap = pair.world.tap();
        let secret = marker();
        let mut traffic = Traffic::start(&pair, &secret);
        let locks = [&pair.agent_a, &pair.agent_b].map(LockPicker::start);
        for round in 0..2 {
            for is_client in [true, false] {
                let agent = if is_client { &mut pair.agent_a } else { &mut pair.agent_b };
                let pinned = pins::list(agent.instance());
                let before = agent.pid();
                let old = agent.take_over();
                let slowest = traffic.flows();
                assert!(slowest < PROMPT, "{setting:?}, {round}: {slowest} ms");
                assert_answers(agent);
                let taken = agent.status().taken_over.expect("a hand-over");
                assert_eq!((taken.pid, taken.has_ended), (before, false), "{taken:?}");
                end(old);
                agent.wait_for_status("the end of the agent before", |status| {
                    status.taken_over.as_ref().is_some_and(|taken| taken.has_ended)
                });
                let slowest = traffic.flows();
                assert!(slowest < PROMPT, "{setting:?}, {round}: {slowest} ms");
                assert_eq!(pins::list(agent.instance()), pinned, "its end removes nothing");
                assert_answers(agent);
            }
        }
        locks.into_iter().for_each(LockPicker::assert_never_free);
        assert_ciphertext(&tap, PORT, &secret);
    }
}

#[test]
fn live_flows_go_on_through_the_end_of_the_agent_that_they_began_in() {
    let mut pair = Pair::new(Setting::Pods);
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let mut flow = LiveFlow::start(&pair.client, pair.target(Family::V4));
    let old_a = pair.agent_a.take_over();
    flow.assert_alive();
    let old_b = pair.agent_b.take_over();
    flow.assert_alive();
    pair.assert_served();
    // They are told to end while the flow lives, and let it.
    for old in [&old_a, &old_b] {
        old.signal(Signal::SIGTERM);
    }
    pair.assert_served();
    flow.assert_alive();
    flow.finish();
    for mut old in [old_a, old_b] {
        let status = old.wait(GENEROUS);
        assert!(status.success(), "{status}");
    }
    pair.assert_served();
    pair.agent_b.wait_for_status("no entry of the agent before", |status| {
        let maps = &status.maps;
        (maps.flows, maps.clients) == (0, 0)
    });
}

#[test]
fn an_agent_that_has_handed_over_stays_until_it_is_told_to_end_and_removes_nothing_of_its_successors()
 {
    let mut pair = Pair::host();
    let sockets = ["admin.sock", "handover.sock"].map(|name| directory(&pair.agent_a).join(name));
    let mode = |path: &PathBuf| fs::metadata(path).expect("a socket").permissions().mode() & 0o777;
    assert_eq!(sockets.each_ref().map(mode), [0o600; 2]);
    let mut old = pair.agent_a.take_over();
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    pair.assert_served();
    pair.agent_a.wait_for_log("INFO", "handed over to a successor");
    // Longer than it lets connections that are on their way come in.
    thread::sleep(Duration::from_secs(4));
    assert!(old.try_wait().is_none(), "a container that ends is started again");
    assert_healthy(&pair.agent_a);
    end(old);
    assert!(sockets.iter().all(|path| path.exists()));
    assert_answers(&pair.agent_a);
    assert_held(&pair.agent_a);
    pair.assert_served();
}

/// Found when the other has yielded: a workload of the new configuration selects the agent itself.
#[test]
fn a_successor_that_fails_leaves_the_other_serving_and_a_third_takes_over() {
    let mut pair = Pair::host();
    let secret = marker();
    let mut traffic = Traffic::start(&pair, &secret);
    let lock = LockPicker::start(&pair.agent_a);
    let itself = Workload::new("itself", &format!("{}/agent*", pair.world.a.cgroup.relative()));
    pair.agent_a.reconfigure(|config| config.workloads.push(itself));
    let mut successor = pair.agent_a.successor();
    let status = successor.wait(GENEROUS);
    assert_eq!(status.code(), Some(1), "{status}");
    pair.agent_a.wait_for_log("ERROR", "the successor does not serve");
    traffic.flows();
    assert!(pair.agent_a.is_running());
    assert_held(&pair.agent_a);
    assert_healthy(&pair.agent_a);

    pair.agent_a.reconfigure(|config| drop(config.workloads.pop()));
    let old = pair.agent_a.take_over();
    traffic.flows();
    end(old);
    traffic.flows();
    assert_answers(&pair.agent_a);
    lock.assert_never_free();
}

#[test]
fn a_successor_that_is_killed_on_the_way_harms_no_connection() {
    const TRIES: usize = 10;
    for words in ["taking over from the agent that runs", "capture is left to a successor"] {
        let is_killed = (0..TRIES).any(|_| kill_successor_on_the_way(words));
        assert!(is_killed, "{words}: all of {TRIES} successors served before they were killed");
    }
}

/// Kills one when `words` have been said. It is a few milliseconds from there until it serves; returns false if it was quicker: its
/// end is that of an agent then.
fn kill_successor_on_the_way(words: &str) -> bool {
    const SERVES: &str = "handed over to a successor";
    const ENDS: [&str; 3] =
        [SERVES, "the successor does not serve", "a successor that has called does not take over"];
    let mut pair = Pair::new(Setting::Pods);
    let secret = marker();
    let mut traffic = Traffic::start(&pair, &secret);
    let lock = LockPicker::start(&pair.agent_b);
    let mut successor = pair.agent_b.successor();
    wait::wait_until(words, GENEROUS, || count(&pair.agent_b, words) > 0);
    successor.kill();
    let has_ended = || ENDS.iter().any(|words| count(&pair.agent_b, words) > 0);
    wait::wait_until("its end", GENEROUS, has_ended);
    if count(&pair.agent_b, SERVES) > 0 {
        return false;
    }
    traffic.flows();
    assert!(pair.agent_b.is_running());
    assert_held(&pair.agent_b);
    let old = pair.agent_b.take_over();
    traffic.flows();
    end(old);
    traffic.flows();
    lock.assert_never_free();
    true
}

#[test]
fn where_the_other_dies_on_the_way_the_successor_begins_as_after_any_death() {
    let mut pair = Pair::host();
    let ready = pair.agent_a.count_ready();
    let successor = pair.agent_a.successor();
    pair.agent_a.wait_for_log("INFO", "taking over from the agent that runs");
    pair.agent_a.kill();
    pair.agent_a.adopt(successor, ready);
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    pair.assert_served();
    assert_answers(&pair.agent_a);
}

#[test]
fn one_successor_is_served_at_a_time() {
    let mut pair = Pair::host();
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let ready = pair.agent_a.count_ready();
    let first = pair.agent_a.successor();
    pair.agent_a.wait_for_log("INFO", "an agent prepares to take over from this one");
    first.signal(Signal::SIGSTOP);
    let mut command = pair.agent_a.run_command();
    let output = command.arg("--take-over").output().expect("running sheath");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("another agent is taking over already"), "{error}");
    // One that hangs keeps nobody waiting.
    pair.assert_served();
    first.signal(Signal::SIGCONT);
    end(pair.agent_a.replace(first, ready));
    pair.assert_served();
}

/// One of an earlier version has no hand-over socket.
#[test]
fn one_that_cannot_hand_over_is_waited_for() {
    let mut pair = Pair::host();
    fs::remove_file(directory(&pair.agent_a).join("handover.sock")).expect("the socket");
    let ready = pair.agent_a.count_ready();
    let mut successor = pair.agent_a.successor();
    pair.agent_a.wait_for_log("WARN", "does not hand over; waiting for it to end");
    assert!(successor.try_wait().is_none());
    end(pair.agent_a.release());
    pair.agent_a.adopt(successor, ready);
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    pair.assert_served();
    assert!(pair.agent_a.status().taken_over.is_none());
}

/// The flag changes nothing where nobody runs.
#[test]
fn whoever_takes_over_from_nobody_starts() {
    let mut pair = Pair::host();
    pair.agent_a.kill();
    let ready = pair.agent_a.count_ready();
    let successor = pair.agent_a.successor();
    pair.agent_a.adopt(successor, ready);
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let seen = pair.connect(pair.target(Family::V4), &say("hello"));
    assert_eq!(seen.last().text, "hello", "{seen:?}");
}
