//! Whoever looks at a pod sees what is wrong with it: each refusal, hold and unsupported pod is an event of the pod, and has its reason
//! in `sheath status` and a counter.

use serde_json::{Value, json};
use sheath_tests::agent::Agent;
use sheath_tests::api_server::{ApiServer, Kind};
use sheath_tests::filter::Filter;
use sheath_tests::pair::{PORT, any, client, say, server};
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Job, Socket, Step};
use sheath_tests::status::{RefusedKind, Status};
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::Family;

use crate::cluster_directory::{Cluster, Running, uid};

/// The kernel's name of systemd's program for `RestrictNetworkInterfaces=`.
const RESTRICTED: &str = "sd_restrictif_e";

/// Waits for an event of a pod; an agent tells what lasts for some ten seconds.
#[track_caller]
fn wait_event(api: &ApiServer, pod: u8, reason: &str, words: &str) -> Value {
    let is_it = |event: &Value| {
        event["regarding"]["name"] == format!("pod-{pod}")
            && event["reason"] == reason
            && event["note"].as_str().is_some_and(|note| note.contains(words))
    };
    let found = wait::try_for(2 * GENEROUS, || api.all(Kind::Event).into_iter().find(is_it));
    let event = found.unwrap_or_else(|| {
        panic!("no {reason} of pod-{pod} with {words:?}: {:#?}", api.all(Kind::Event))
    });
    assert_eq!(event["regarding"]["uid"], uid(pod));
    assert_eq!(event["regarding"]["namespace"], event["metadata"]["namespace"]);
    assert_eq!(event["type"], "Warning");
    event
}

/// What status says of connections that were refused.
fn refused<'s>(status: &'s Status, workload: &str, by: &str) -> Option<&'s RefusedKind> {
    let kinds = &status.workload(workload).refused.as_ref()?.kinds;
    kinds.iter().find(|kind| kind.by == by)
}

fn counted(status: &Status, direction: &str, reason: &str) -> Option<u64> {
    let metric = status.metric("connections_refused");
    metric.series(&[("direction", direction), ("reason", reason)]).value
}

/// Tries until a connection was refused by this, and for this reason.
#[track_caller]
fn wait_refused(
    agent: &Agent,
    workload: &str,
    (by, words): (&str, &str),
    mut attempt: impl FnMut(),
) {
    wait::wait_until(&format!("a connection of {workload} refused by {by}"), GENEROUS, || {
        attempt();
        let status = agent.status();
        refused(&status, workload, by).is_some_and(|kind| kind.reason.contains(words))
    });
}

fn idle(pod: &Running) -> Probe {
    Probe::start(&pod.place(), &Job::Idle)
}

#[test]
fn everything_that_is_wrong_with_pods_is_an_event_a_reason_and_a_number() {
    let cluster = Cluster::new();
    let (api, agent) = (&cluster.api, &cluster.agent);
    cluster.namespace("shop", Some("require"));
    cluster.namespace("other", None);
    let [denied, unknown, called] = [2, 3, 4].map(|number| cluster.run("shop", number));
    let plain = cluster.run("other", 5);
    let _idle = [&denied, &unknown].map(idle);
    let listens =
        |pod: &Running| Probe::start(&pod.place(), &server(any(Family::V4, PORT), &[Step::Echo]));
    let _echo = [&called, &plain].map(listens);
    // A label that makes no sense, and a sandbox that may have a network stack of its own.
    cluster.tell("other", 6, |pod| {
        pod["metadata"]["labels"] = json!({"sheath.dev/protect": "requrie"});
    });
    cluster.tell("shop", 7, |pod| pod["spec"]["runtimeClassName"] = json!("gvisor"));
    // Somebody else's packet filter keeps a pod from the agent.
    let degraded = cluster.run("shop", 8);
    let _degraded = idle(&degraded);
    let _filter = Filter::without_loopback(&degraded.place().cgroup, RESTRICTED);
    agent.wait_for_status("the protected pods", |status| {
        let known = status.directory.as_ref().expect("a directory");
        known.plain >= 1 && known.protected >= 3
    });

    // By the kernel, by the agent, and inbound.
    let to_plain = plain.pod.addresses.at(Family::V4, PORT);
    wait_refused(agent, "shop/pod-2", ("connect", "the pod there is not protected"), || {
        probe::run(&denied.place(), &client(to_plain, &say("anybody there?")));
    });
    let nobody = std::net::SocketAddr::new("10.1.1.99".parse().unwrap(), PORT);
    wait_refused(agent, "shop/pod-3", ("policy", "nobody is known at 10.1.1.99"), || {
        probe::run(&unknown.place(), &client(nobody, &say("anybody there?")));
    });
    let stranger = cluster.world.a.host("stranger");
    let nonsense = say("GET / HTTP/1.1\r\nHost: shop\r\n\r\n");
    let to_called = called.pod.addresses.at(Family::V4, PORT);
    wait_refused(agent, "shop/pod-4", ("peer", ""), || {
        let socket = Socket { connect_limit: Some(2_000), ..Socket::default() };
        let steps = nonsense.clone();
        probe::run(&stranger, &Job::Client { socket, to: to_called, steps });
    });
    let status = agent.status();
    let kind = refused(&status, "shop/pod-4", "peer").unwrap();
    assert_eq!((&*kind.direction, kind.source.is_some()), ("inbound", true), "{kind:?}");
    for (direction, reason) in
        [("outbound", "connect"), ("outbound", "policy"), ("inbound", "peer")]
    {
        assert!(counted(&status, direction, reason) > Some(0), "{direction} {reason}");
    }
    assert!(status.counter("discovery_problems") >= 2, "{:?}", status.problems);
    for (pod, reason, words) in [
        (2, "ConnectionsRefused", "the pod there is not protected"),
        (3, "ConnectionsRefused", "nobody is known at 10.1.1.99"),
        (4, "CallersRefused", "callers are refused"),
        (6, "ProtectionProblem", "requrie"),
        (7, "ProtectionProblem", "runtime class"),
        (7, "NoIdentity", "runtime class"),
        (8, "ProtectionDegraded", RESTRICTED),
    ] {
        wait_event(api, pod, reason, words);
    }
    let shown = agent.sheath("status", &[]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("outbound refused, the last to 10.1.1.99"), "{shown}");
    assert!(shown.contains("inbound refused, the last from 10."), "{shown}");
}

/// The agent knows the uid of such a pod alone; the controller knows whose it is, as the API server tells it more.
#[test]
fn a_pod_that_is_held_has_an_event_though_its_agent_does_not_know_its_name() {
    let cluster = Cluster::new();
    cluster.namespace("shop", Some("require"));
    let known = cluster.run("shop", 2);
    let _idle = idle(&known);
    cluster.wait_for("a protected pod", [0, 0, 1]);
    // The agent hears nothing any more.
    cluster.api.behave(|behaviour| behaviour.shut_out.push("nobody checks it".to_owned()));
    cluster.api.end_watches();
    let held = cluster.run("shop", 3);
    let _held = idle(&held);
    let status = cluster.agent.wait_for_status("a pod that is held", |status| {
        let held = &status.pods.as_ref().expect("pods").held;
        held.iter().any(|pod| pod.uid == uid(3))
    });
    assert!(status.counter("pods_held") > 0);
    let event = wait_event(&cluster.api, 3, "PodHeld", "has not heard of this pod");
    assert_eq!(event["metadata"]["namespace"], "shop");
    let shown = cluster.agent.sheath("status", &[]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("the agent has not heard of this pod"), "{shown}");
}
