//! Many pods that one node of a real cluster starts at once, under the chart: all of them are protected from their first
//! instruction on, and none waits for it noticeably.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use sheath_tests::cluster::crowd::{Called, Crowd};
use sheath_tests::cluster::helm::Release;
use sheath_tests::cluster::scene::{LIMIT as PATIENCE, Scene};
use sheath_tests::cluster::{NODES, shared};
use sheath_tests::script::Newcomer;
use sheath_tests::status::{Distribution, Status};
use sheath_tests::wait;

/// How many pods there are, if not [`SOME`].
const VARIABLE: &str = "SHEATH_PODS_AT_ONCE";

/// So many that the whole takes a minute or two: to start 200 takes two processors several.
const SOME: usize = 40;

/// Until 99 of 100 pods have a protected connection, beyond what their start takes by itself: what the gate has them wait, and then
/// from their first instruction on.
const LIMIT: Duration = Duration::from_secs(2);

/// Of so many pods one may be refused at the gate at first. The kubelet tries again some seconds later.
const OF_WHICH_ONE: u64 = 100;

/// Beside everything else that runs on the machine it may take so many times as long.
const BUSY: u32 = 10;

/// How long sandboxes have waited at a node's gate.
fn waited(status: &Status) -> &Distribution {
    status.metric("gate_wait_seconds").series[0].distribution.as_ref().unwrap()
}

/// What so many of a hundred pods have not waited beyond at the gate, of those that have come between two statuses. Each was asked about
/// twice, by CNI and by NRI: who is among the other pods was so at one of the two. One that has waited for longer than any bound has done so
/// for ever.
fn waited_at_most(before: &Status, after: &Status, percent: u64) -> Duration {
    let (before, after) = (waited(before), waited(after));
    let all = 2 * 100 * (after.count - before.count);
    let others = (100 - percent) * (after.count - before.count);
    let buckets = after.buckets.iter().zip(&before.buckets);
    let mut buckets = buckets.map(|(after, before)| (after.le, after.count - before.count));
    let found = buckets.find(|(_, below)| below * 2 * 100 >= all - others);
    let bound = found.and_then(|(bound, _)| Duration::try_from_secs_f64(bound).ok());
    bound.map_or(Duration::MAX, |bound| 2 * bound)
}

/// Of sorted figures, the one that this many of a hundred are not above.
fn percentile(sorted: &[u64], percent: usize) -> Duration {
    let index = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    Duration::from_micros(sorted[index])
}

/// A row of figures, for the documentation: half of them, 99 of 100, the longest.
fn row(what: &str, figures: [Duration; 3]) -> String {
    let [half, most, longest] = figures.map(|figure| match figure {
        Duration::MAX => "for ever".to_owned(),
        figure => format!("{:.1} ms", figure.as_secs_f64() * 1e3),
    });
    format!("| {what} | {half} | {most} | {longest} |")
}

/// A pod's time to its first protected connection is what it waits at the gate, before its first instruction, and what its
/// calls take from then on. Both are what the agent adds; what the kubelet and the runtime take to start so many is not.
#[test]
fn pods_started_at_once_on_one_node_are_protected_at_once_and_none_is_left_held() {
    let pods = std::env::var(VARIABLE).map_or(SOME, |number| number.parse().expect(VARIABLE));
    let [a, _] = NODES;
    let turn = shared::turn();
    let scene = Scene::new(&turn, Some("require"));
    let elsewhere = Scene::new(&turn, None);
    let release = Release::install(&turn, &json!({})).unwrap();
    let (called, tap) = Called::run(&scene, &elsewhere);
    let before = release.status(a).unwrap();

    let begun = Instant::now();
    let crowd = Crowd::make(&scene, ("crowd", pods), a, &called, true);
    let made = begun.elapsed();
    crowd.wait_running();
    let running = begun.elapsed();
    let reports = crowd.reports();
    let after = release.status(a).unwrap();

    let mut delays: Vec<u64> = reports.iter().map(|report| report.answered_after_us).collect();
    delays.sort_unstable();
    let starts = reports.iter().map(|report| report.started_ms);
    let first_to_last = starts.clone().max().unwrap() - starts.min().unwrap();
    let refused: Vec<&Newcomer> = reports.iter().filter(|report| report.refused > 0).collect();
    let (gate_before, gate_after) = (before.gate.as_ref().unwrap(), after.gate.as_ref().unwrap());
    let (admitted, not_admitted) = (
        gate_after.admitted - gate_before.admitted,
        gate_after.not_admitted - gate_before.not_admitted,
    );
    let at_gate = [50, 99, 100].map(|percent| waited_at_most(&before, &after, percent));
    let from_then_on = [50, 99, 100].map(|percent| percentile(&delays, percent));
    let sum = [0, 1, 2].map(|at: usize| at_gate[at].saturating_add(from_then_on[at]));
    println!(
        "{pods} pods on a node: made within {made:.1?}, all run after {running:.1?}, their first instructions {first_to_last} ms apart
{admitted} sandboxes admitted, {not_admitted} refused at first; pods with a connection that was refused: {}; connections of pods that nobody had decided \
         about: {}; pods ever held: {}

| {pods} pods at once on one node | p50 | p99 | longest |
|---|---|---|---|
{}
{}
{}
",
        refused.len(),
        after.counter("connect_denied_undecided") - before.counter("connect_denied_undecided"),
        after.counter("pods_held") - before.counter("pods_held"),
        row("wait at the gate, at most", at_gate),
        row("first instruction to first protected connection", from_then_on),
        row("both, at most", sum),
    );
    assert!(reports.iter().all(|report| !report.stranger_answered), "a stranger has answered");
    assert_eq!(tap.sightings(&scene.marker), 0, "plaintext on the wire");
    assert!(admitted >= pods as u64, "the runtime has not asked about all of them");
    let held = &after.pods.as_ref().unwrap().held;
    assert!(held.is_empty(), "held: {held:?}");
    let name = |number: usize| format!("{}/crowd-{number}", scene.namespace);
    let names: BTreeSet<String> = (0..pods).map(name).collect();
    // The runtime starts processes in the node's network namespace, where a pod's ports are not its own: for ten seconds after one was seen
    // there, status says so.
    wait::wait_until(
        "all pods to be protected, and nothing else to be said of them",
        PATIENCE,
        || {
            thread::sleep(Duration::from_secs(1));
            let status = release.status(a).unwrap();
            let all = status.workloads.iter().filter(|it| it.state == "protected");
            all.filter(|it| names.contains(&it.name)).count() == pods
        },
    );
    // Beside everything else that runs on the machine, it says little how long a sandbox has waited.
    let (took, limit, most_refused) = match std::env::var_os(VARIABLE) {
        Some(_) => (sum[1], LIMIT, admitted / OF_WHICH_ONE),
        None => (from_then_on[1], BUSY * LIMIT, admitted),
    };
    assert!(took < limit, "{took:?} beyond a pod's own start");
    assert!(not_admitted <= most_refused, "{not_admitted} refused, {admitted} admitted");
}
