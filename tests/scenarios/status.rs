//! Promise 9: what the agent reports is what it observed, and it repairs what it finds broken.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use sheath_tests::agent::Agent;
use sheath_tests::config::{Reuse, Select, Sessions, spiffe_id};
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, Pair, SETTINGS, Setting, any, client, say, server};
use sheath_tests::pins;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Job, Socket, Step};
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::Family;

#[test]
fn status_reports_workloads_programs_and_counters() {
    for setting in SETTINGS {
        let pair = Pair::new(setting);
        let status = pair.agent_a.wait_for_status("the protected workload", |status| {
            status.workload("client").state == "protected"
        });
        assert_eq!(
            (status.node.as_str(), status.instance.as_str()),
            ("node-a", pair.agent_a.instance())
        );
        assert_eq!(status.pid, pair.agent_a.pid());
        assert!(!status.programs.is_empty());
        for program in &status.programs {
            assert!(program.observed, "{program:?}");
        }
        let workload = status.workload("client");
        assert_eq!(workload.spiffe_id, spiffe_id("client"));
        assert_eq!(workload.reason, "");
        assert!(workload.svid.is_some());
        assert!(workload.cgroups.iter().any(|c| c.id == pair.client.cgroup.id()), "{workload:?}");
        let own = workload
            .namespaces
            .iter()
            .find(|namespace| namespace.inode == pair.client.netns.inode())
            .unwrap_or_else(|| panic!("the workload's namespace in {workload:?}"));
        assert!(own.ready);
        assert_eq!(own.host, setting == Setting::Host);

        let before = status.counter("connect_protected");
        let _echo = pair.serve(Family::V4, &[Step::Echo]);
        pair.connect(pair.target(Family::V4), &say("hello"));
        let after = pair.agent_a.status();
        assert_eq!(after.counter("connect_protected"), before + 1);
    }
}

#[test]
fn scripts_learn_from_the_exit_status_whether_all_is_well() {
    let mut pair = Pair::host();
    let code = |pair: &Pair, command: &str, more: &[&str]| {
        pair.agent_a.sheath(command, more).status.code()
    };
    pair.agent_a.wait_for_status("the protected workload", |status| {
        status.workload("client").state == "protected"
    });
    for command in ["status", "certs"] {
        assert_eq!(code(&pair, command, &["--exit-code"]), Some(0), "{command}");
    }
    let output = pair.agent_a.sheath("reload", &["--output", "json"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "{\"ok\":true}");
    // The first of two workloads of one cgroup has it, and the other lacks it.
    let output = pair.agent_a.reload(|a| {
        let mut other = a.workloads[0].clone();
        other.name = "other".to_owned();
        other.spiffe_id = Some(spiffe_id("other"));
        a.workloads.push(other);
    });
    assert!(output.status.success(), "{output:?}");
    pair.agent_a.wait_for_status("the loser to be told", |status| {
        status.workload("other").state == "degraded"
    });
    assert_eq!(code(&pair, "status", &["--exit-code"]), Some(3));
    assert_eq!(code(&pair, "status", &["--exit-code", "--output", "json"]), Some(3));
    assert_eq!(code(&pair, "status", &[]), Some(0), "an answer is an answer");
}

/// The second handshake with the same peer costs no signatures of its chain, on either side.
#[test]
fn verified_chains_are_counted() {
    let pair = Pair::with(Setting::Host, |a, b| {
        for config in [a, b] {
            config.sessions = Sessions::reused(Reuse { per_workload: 0, ..Reuse::default() });
        }
    });
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    for handshakes in 1..=3 {
        pair.assert_served();
        for agent in [&pair.agent_a, &pair.agent_b] {
            let status = agent.status();
            let counted = ["hits", "misses", "entries"]
                .map(|what| status.counter(&format!("verified_chain_{what}")));
            assert_eq!(counted, [handshakes - 1, 1, 1], "{:?}", status.counters);
        }
    }
    let output = pair.agent_b.sheath("status", &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("verified_chain_hits"), "{text}");
}

/// The same numbers with and without labels, and what each of them means.
#[test]
fn metrics_have_labels_and_add_up_to_the_counters() {
    let pair = Pair::host();
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    pair.assert_served();
    for (agent, workload, direction) in
        [(&pair.agent_a, "client", "outbound"), (&pair.agent_b, "web", "inbound")]
    {
        let status = agent
            .wait_for_status("the end of the flow", |status| status.counter("flows_closed") == 1);
        for (name, total) in &status.counters {
            let metric = status.metric(name);
            assert!(metric.help.ends_with('.'), "{metric:?}");
            let values = metric.series.iter().map(|series| series.value.expect("a number"));
            assert_eq!(values.sum::<u64>() + metric.rest, *total, "{metric:?}");
        }
        let closed = [("direction", direction), ("outcome", "ok")];
        assert_eq!(status.metric("flows_closed").series(&closed).value, Some(1));
        assert_eq!(status.metric("flows").series(&[("workload", workload)]).value, Some(0));
        let refused = status.metric("flows_refused").series(&[("workload", workload)]);
        assert_eq!(refused.value, Some(0));
        let handshakes = status.metric("handshake_seconds").series(&[("direction", direction)]);
        let handshakes = handshakes.distribution.as_ref().expect("a histogram");
        assert_eq!(handshakes.count, 1, "{handshakes:?}");
        assert!(handshakes.sum > 0.0, "{handshakes:?}");
        let longest = handshakes.buckets.last().expect("a bucket");
        assert_eq!((longest.le, longest.count), (10.0, 1), "{handshakes:?}");
        let output = agent.sheath("status", &[]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(&format!("handshake_seconds {direction}")), "{text}");
        assert!(text.contains("Connections that ended, by how they ended."), "{text}");
    }
}

#[test]
fn status_is_readable_too() {
    let pair = Pair::host();
    let output = pair.agent_a.sheath("status", &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for word in ["node-a", "client", &spiffe_id("client")] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
}

#[test]
fn a_workload_without_a_process_is_waiting() {
    let pair = Pair::with(Setting::Host, |a, _| {
        let mut absent = a.workloads[0].clone();
        absent.name = "absent".to_owned();
        absent.select = Select::Cgroup(format!("{}/absent*", a.capture.cgroup));
        a.workloads.push(absent);
    });
    let status = pair.agent_a.status();
    assert_eq!(status.workload("absent").state, "waiting", "{status:#?}");
}

#[test]
fn live_flows_are_counted() {
    let pair = Pair::host();
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let mut steps = vec![Step::Pause];
    steps.extend(say("hello"));
    let mut flow = Probe::start(&pair.client, &client(pair.target(Family::V4), &steps));
    flow.wait_paused();
    for (agent, workload) in [(&pair.agent_a, "client"), (&pair.agent_b, "web")] {
        let status = agent.wait_for_status("one flow", |status| status.flows == 1);
        assert_eq!(status.workload(workload).flows, 1);
    }
    flow.go();
    assert_eq!(flow.connection().last().text, "hello");
    for agent in [&pair.agent_a, &pair.agent_b] {
        agent.wait_for_status("no flow", sheath_tests::status::Status::is_idle);
    }
}

#[test]
fn the_admin_socket_is_for_root_only() {
    let pair = Pair::host();
    let dir = pair.agent_a.run_dir().join(pair.agent_a.instance());
    let socket = fs::metadata(dir.join("admin.sock")).expect("the admin socket");
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
}

/// Somebody detaches programs behind the agent's back: it sees that, says so, and puts them back.
#[test]
fn detached_programs_are_reported_and_repaired() {
    let pair = Pair::host();
    let open = server(any(Family::V4, 9090), &[Step::Echo]);
    let _open = Probe::start(&pair.world.b.host("open"), &open);
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    detach_and_wait(&pair.agent_a, &["connect4", "connect6", "sock_ops", "egress"]);

    let tap = pair.world.tap();
    let secret = marker();
    let served = pair.connect(pair.target(Family::V4), &say(&secret));
    assert_eq!(served.last().text, secret, "{served:?}");
    let exposed = pair.world.b.addresses.at(Family::V4, 9090);
    let refused = probe::run(&pair.client, &client(exposed, &say(&secret)));
    assert_ne!(refused.ended_by(), None, "{refused:?}");
    sheath_tests::judge::assert_ciphertext(&tap, PORT, &secret);
}

#[test]
fn detached_steering_is_reported_and_repaired() {
    for setting in SETTINGS {
        let pair = Pair::new(setting);
        let stranger = pair.world.a.host("stranger");
        let mut echo = pair.serve(Family::V4, &[Step::Echo]);
        let logged = pair.agent_b.log_lines().len();
        detach(&pair.agent_b, "steer");
        // Not even now: the guard holds back the application's own answer.
        let socket = Socket { connect_limit: Some(1_000), ..Socket::default() };
        let to = pair.target(Family::V4);
        let job = Job::Client { socket, to, steps: say("let me in") };
        assert_ne!(probe::run(&stranger, &job).ended_by(), None);
        wait_repaired(&pair.agent_b, logged);
        let served = pair.connect(to, &say("hello"));
        assert_eq!(served.last().text, "hello", "{setting:?}: {served:?}");
        echo.accepted();
        assert_eq!(echo.pending(), 0, "{setting:?}: the stranger reached the application");
    }
}

fn detach_and_wait(agent: &Agent, parts: &[&str]) {
    let logged = agent.log_lines().len();
    for part in parts {
        detach(agent, part);
    }
    wait_repaired(agent, logged);
}

/// Detaches the pinned links whose names contain `part`.
fn detach(agent: &Agent, part: &str) {
    let links = pins::named(agent.instance(), part);
    let detached = links.iter().filter(|pin| pins::detach(pin).is_ok()).count();
    assert!(detached > 0, "a link called {part} in {:?}", pins::list(agent.instance()));
}

/// Waits for a warning in the log after its first `logged` lines, and for everything to be well.
fn wait_repaired(agent: &Agent, logged: usize) {
    wait::wait_until("a warning in the log", GENEROUS, || {
        let is_warning = |line: &String| line.contains("\"WARN\"") || line.contains("\"ERROR\"");
        agent.log_lines()[logged..].iter().any(is_warning)
    });
    agent.wait_for_status("every program observed again", |status| {
        status.programs.iter().all(|program| program.observed)
            && status.workloads.iter().all(|workload| workload.state == "protected")
    });
}
