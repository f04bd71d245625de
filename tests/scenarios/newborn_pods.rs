//! Pods of a real cluster that connect in their first millisecond, whatever becomes of the agent meanwhile.

use std::thread;
use std::time::Duration;

use sheath_tests::cluster::agents::Agents;
use sheath_tests::cluster::crowd::{Called, Crowd};
use sheath_tests::cluster::scene::Scene;
use sheath_tests::cluster::{NODES, shared};
use sheath_tests::wait::{self, GENEROUS};

/// How many pods there are, if not [`SOME`].
const VARIABLE: &str = "SHEATH_NEWBORN_PODS";

/// So many that the whole takes less than a minute. `pods_at_birth.rs` has 500 on a kubelet of ours.
const SOME: usize = 60;

/// Of as many pods, one is made while there is no agent.
const WITHOUT_AGENT: usize = 6;

/// Pods that start at the same time, and how often the agent is killed meanwhile.
const BATCH: (usize, usize) = (50, 4);

/// How long an agent lives before it is killed: long enough to come to some pods.
const LIFE: Duration = Duration::from_millis(1500);

#[test]
fn pods_that_connect_in_their_first_millisecond_say_nothing_while_the_agent_is_killed_and_started()
{
    let pods = std::env::var(VARIABLE).map_or(SOME, |number| number.parse().expect(VARIABLE));
    let [a, _] = NODES;
    let turn = shared::turn();
    let scene = Scene::new(&turn, Some("require"));
    let elsewhere = Scene::new(&turn, None);
    let mut agents = Agents::start(&turn, &scene.accounts()).unwrap();
    let (called, tap) = Called::run(&scene, &elsewhere);

    // Without an agent: the runtime asks nobody, and the kernel holds them.
    agents.kill(a);
    let orphans = (pods / WITHOUT_AGENT).clamp(1, 30);
    let crowd = Crowd::make(&scene, ("orphan", orphans), a, &called, false);
    crowd.wait_running();
    agents.launch(a).unwrap();
    let mut reports = crowd.reports();
    assert!(reports.iter().all(|report| report.refused > 0), "not held: {reports:?}");
    let mut kills = 1;

    // While it comes and goes.
    let mut left = pods - orphans;
    while left > 0 {
        let size = left.min(BATCH.0);
        left -= size;
        let crowd = Crowd::make(&scene, (&format!("newborn-{left}"), size), a, &called, false);
        for _ in 0..BATCH.1 {
            if crowd.have_ended() {
                break;
            }
            thread::sleep(LIFE);
            agents.kill(a);
            agents.launch(a).unwrap();
            kills += 1;
        }
        reports.extend(crowd.reports());
    }

    let answered = reports.iter().filter(|report| report.stranger_answered).count();
    let refused = reports.iter().filter(|report| report.refused > 0).count();
    let connects: u32 = reports.iter().map(|report| report.refused).sum();
    let plaintext = tap.sightings(&scene.marker);
    println!(
        "| pods | made without an agent | agent killed | packets in plaintext | strangers that answered | pods refused at first | refused connects |
|---|---|---|---|---|---|---|
| {} | {orphans} | {kills} | {plaintext} | {answered} | {refused} | {connects} |
",
        reports.len()
    );
    assert_eq!(reports.len(), pods);
    assert_eq!(answered, 0, "a stranger has answered");
    assert_eq!(plaintext, 0, "plaintext on the wire");
    // The cgroup of a pod that is over may be there for a moment yet.
    wait::wait_until("no pod to be held", GENEROUS, || {
        agents.status(a).unwrap().pods.unwrap().held.is_empty()
    });
}
