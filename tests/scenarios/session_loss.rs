//! Sessions that wait for the next flow, and are not good any more: because what they rest on has changed, or because
//! nobody is at the other end. No application notices, unless it is not to be served.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use sheath_tests::ca::{Ca, Leaf, write_bundle};
use sheath_tests::config::{Crl, Peer, Reuse, Sessions, TrustDomain, spiffe_id};
use sheath_tests::netns::{NetNs, must_succeed};
use sheath_tests::pair::{PORT, Pair, SERVER_NETWORKS, Setting, say};
use sheath_tests::probe::Probe;
use sheath_tests::script::{Connection, Job, Step};
use sheath_tests::tap::Tap;
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{Family, TRUST_DOMAIN};

/// How long a client may have to wait for finding out that its sessions are dead, on a busy machine.
const SOON: Duration = Duration::from_secs(2);

/// How long what expires is good for: on a busy machine it takes a while until it is used.
const LIFE: Duration = Duration::from_secs(40);

/// Certificates of both workloads, and what both agents believe, in files.
struct Scene {
    pair: Pair,
    tap: Tap,
    authority: Ca,
    client: Leaf,
    dir: tempfile::TempDir,
    echo: Probe,
}

impl Scene {
    fn new() -> Self {
        Self::with_authority(Ca::named("the authority", TRUST_DOMAIN))
    }

    fn with_authority(authority: Ca) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let [client, web] = ["client", "web"].map(|name| authority.issue(&spiffe_id(name)));
        let pair = Pair::with(Setting::Host, |a, b| {
            for (config, name, leaf) in [(a, "client", &client), (b, "web", &web)] {
                let own = dir.path().join(name);
                config.workloads[0] = config.workloads[0].clone().files(leaf.write(&own));
                write_bundle(&[&authority], &own.join("bundle.pem"));
                authority.write_crl(&[], &own.join("crl.pem"));
                let crl =
                    Crl { files: vec![own.join("crl.pem")], unknown: "deny", expired: "deny" };
                let domain = TrustDomain {
                    name: TRUST_DOMAIN.to_owned(),
                    bundle: Some(own.join("bundle.pem")),
                    crl: Some(crl),
                };
                config.trust_domains = vec![domain];
                // Nothing but what a test does ends a session.
                let reuse = Reuse::default();
                config.sessions = Sessions::reused(reuse);
            }
        });
        let tap = pair.world.tap();
        let echo = pair.serve(Family::V4, &[Step::Echo]);
        Self { pair, tap, authority, client, dir, echo }
    }

    /// The files of a workload.
    fn of(&self, workload: &str) -> PathBuf {
        self.dir.path().join(workload)
    }

    /// A flow that is served, with which a session is left.
    #[track_caller]
    fn serve_one(&mut self) {
        self.pair.assert_served();
        self.echo.accepted();
        self.wait_kept(1);
    }

    #[track_caller]
    fn wait_kept(&self, count: u64) {
        self.pair.agent_a.wait_for_status("the sessions that are kept", |status| {
            status.is_idle() && status.idle_sessions == count
        });
    }

    /// Two flows share a session; then there is a change, the session ends without being asked for, and the next flow
    /// has a new one.
    #[track_caller]
    fn assert_session_ends(&mut self, change: impl FnOnce(&mut Self)) {
        self.serve_one();
        self.serve_one();
        let before = self.tap.handshakes(PORT);
        change(self);
        self.wait_kept(0);
        self.serve_one();
        assert_eq!(self.tap.handshakes(PORT), before + 1);
    }

    /// The same, with a change after which the client is not to be served.
    #[track_caller]
    fn assert_refused_after(&mut self, change: impl FnOnce(&mut Self)) {
        self.serve_one();
        change(self);
        self.wait_kept(0);
        self.pair.assert_refused();
        assert_eq!(self.echo.pending(), 0, "the application was reached");
    }

    /// The session that is kept ends at that time although nobody changes anything, and the client is not served any more.
    #[track_caller]
    fn assert_over_at(&mut self, end: Instant) {
        wait::wait_until("the end", LIFE + GENEROUS, || end < Instant::now());
        self.wait_kept(0);
        // Certificates and CRLs count whole seconds, and the machine may be busy.
        assert!(end.elapsed() < GENEROUS, "{:?} later", end.elapsed());
        std::thread::sleep(Duration::from_secs(2));
        self.pair.assert_refused();
        assert_eq!(self.echo.pending(), 0, "the application was reached");
    }
}

#[test]
fn a_reload_with_other_rules_ends_them() {
    let mut scene = Scene::new();
    scene.assert_session_ends(|scene| {
        let output = scene.pair.agent_a.reload(|a| {
            a.peers = vec![Peer::new(&SERVER_NETWORKS, &["web", "another"])];
        });
        assert!(output.status.success(), "{output:?}");
    });
    scene.assert_session_ends(|scene| {
        let output = scene.pair.agent_b.reload(|b| {
            let inbound = b.workloads[0].inbound.as_mut().expect("an inbound mode");
            inbound.allow.push(spiffe_id("another"));
        });
        assert!(output.status.success(), "{output:?}");
    });
    scene.assert_refused_after(|scene| {
        let output = scene.pair.agent_b.reload(|b| {
            let inbound = b.workloads[0].inbound.as_mut().expect("an inbound mode");
            inbound.allow.retain(|id| *id != spiffe_id("client"));
        });
        assert!(output.status.success(), "{output:?}");
    });
}

/// The peer's rules decide, too: who may no longer be there is not spoken to.
#[test]
fn a_server_that_is_not_expected_any_more_gets_no_flow() {
    let mut scene = Scene::new();
    scene.assert_refused_after(|scene| {
        let output = scene.pair.agent_a.reload(|a| {
            a.peers = vec![Peer::new(&SERVER_NETWORKS, &["another"])];
        });
        assert!(output.status.success(), "{output:?}");
    });
}

#[test]
fn new_certificates_of_either_side_end_them() {
    let mut scene = Scene::new();
    for workload in ["client", "web"] {
        scene.assert_session_ends(|scene| {
            let renewed = scene.authority.issue(&spiffe_id(workload));
            renewed.write(&scene.of(workload));
        });
    }
}

#[test]
fn a_change_of_either_bundle_ends_them() {
    let mut scene = Scene::new();
    let another = Ca::named("another authority", TRUST_DOMAIN);
    for workload in ["client", "web"] {
        scene.assert_session_ends(|scene| {
            let bundle = scene.of(workload).join("bundle.pem");
            write_bundle(&[&scene.authority, &another], &bundle);
        });
    }
    scene.assert_refused_after(|scene| {
        write_bundle(&[&another], &scene.of("web").join("bundle.pem"));
    });
}

/// Nobody changes anything, and the certificates of both workloads are good for long.
#[test]
fn an_authority_that_expires_ends_them() {
    let expires = Instant::now() + LIFE;
    let mut scene = Scene::with_authority(Ca::short("the authority", TRUST_DOMAIN, LIFE));
    scene.serve_one();
    scene.serve_one();
    scene.assert_over_at(expires);
    let line = scene.pair.agent_a.wait_for_access("the refusal", |line| line.outcome == "denied");
    assert!(line.reason.contains("has expired"), "{line:?}");
}

/// The same of a CRL without which nobody is believed.
#[test]
fn a_crl_that_is_overdue_ends_them() {
    let scenes = ["client", "web"].map(|workload| {
        let mut scene = Scene::new();
        let due = Instant::now() + LIFE;
        scene.assert_session_ends(|scene| {
            scene.authority.write_crl_for(&[], LIFE, &scene.of(workload).join("crl.pem"));
        });
        scene.serve_one();
        (scene, due)
    });
    for (index, (mut scene, due)) in scenes.into_iter().enumerate() {
        scene.assert_over_at(due);
        let judge = [&scene.pair.agent_a, &scene.pair.agent_b][index];
        let line = judge.wait_for_access("the refusal", |line| line.outcome == "denied");
        assert!(line.reason.contains("CRL"), "{line:?}");
    }
}

#[test]
fn a_revoked_client_is_not_served_on_the_session_that_it_has() {
    let mut scene = Scene::new();
    let list = scene.of("web").join("crl.pem");
    let somebody = scene.authority.issue(&spiffe_id("somebody"));
    scene.assert_session_ends(|scene| scene.authority.write_crl(&[&somebody], &list));
    scene.assert_refused_after(|scene| scene.authority.write_crl(&[&scene.client], &list));
    let line = scene.pair.agent_b.wait_for_access("the refusal", |line| line.outcome == "denied");
    assert!(line.reason.contains("is revoked") && !line.reused, "{line:?}");
}

/// Has several sessions kept, which then die as told; the next flow must not suffer from it.
#[track_caller]
fn assert_unnoticed(setting: Setting, family: Family, die: impl FnOnce(&mut Pair)) {
    // If each of them were waited for, it would not be soon.
    const SESSIONS: std::ops::RangeInclusive<u64> = 12..=24;
    let mut pair = Pair::new(setting);
    let tap = pair.world.tap();
    let _echo = pair.serve(family, &[Step::Echo]);
    let to = pair.target(family);
    let tally = Probe::start(&pair.client, &Job::Crowd { to, count: *SESSIONS.end() as usize })
        .tally(GENEROUS);
    assert!(tally.errors.is_empty(), "{tally:?}");
    let kept = pair.agent_a.wait_for_status("the sessions", |status| {
        status.is_idle() && SESSIONS.contains(&status.idle_sessions)
    });
    die(&mut pair);
    let start = Instant::now();
    let seen: Connection = pair.connect(to, &say("still there?"));
    let took = start.elapsed();
    assert_eq!((seen.ended_by(), &*seen.last().text), (None, "still there?"), "{seen:?}");
    assert!(took < SOON, "the flow took {took:?}");
    assert_eq!(tap.handshakes(PORT) as u64, kept.idle_sessions + 1);
    let line = pair.agent_a.wait_for_access("the flow", |line| line.sent == 12);
    assert_eq!((&*line.outcome, line.reused), ("ok", false), "{line:?}");
}

#[test]
fn a_restart_of_the_servers_agent_goes_unnoticed() {
    let relaunch = |pair: &mut Pair| {
        pair.agent_b.launch();
        pair.agent_b.wait_enrolled("web", &pair.server);
    };
    assert_unnoticed(Setting::Host, Family::V4, |pair| {
        pair.agent_b.terminate();
        assert!(pair.agent_b.wait(GENEROUS).success());
        relaunch(pair);
    });
    assert_unnoticed(Setting::Pods, Family::V6, |pair| {
        pair.agent_b.kill();
        relaunch(pair);
    });
}

/// The kernel's way to end a connection from outside (SOCK_DESTROY): one end knows at once, the other by a reset.
#[test]
fn connections_that_are_torn_down_go_unnoticed() {
    assert_unnoticed(Setting::Pods, Family::V6, |pair| tear_down(&pair.client.netns, "dport"));
    assert_unnoticed(Setting::Pods, Family::V4, |pair| tear_down(&pair.server.netns, "sport"));
}

fn tear_down(netns: &NetNs, end: &str) {
    let port = format!(":{PORT}");
    must_succeed(netns.command("ss").args(["-Kt", "state", "established", end, "=", &port]));
}

/// A middlebox has forgotten them, a cable was moved: nothing comes through, and nobody says so.
#[test]
fn connections_that_lead_nowhere_go_unnoticed() {
    assert_unnoticed(Setting::Pods, Family::V4, |pair| {
        // The node between the pods drops what it forwards for the connections that there are.
        for local in local_ports(&pair.client.netns) {
            let node = &pair.world.a.netns;
            node.ip(&format!(
                "rule add pref 10 ipproto tcp sport {local} dport {PORT} blackhole\n"
            ));
            node.ip(&format!(
                "rule add pref 10 ipproto tcp sport {PORT} dport {local} blackhole\n"
            ));
        }
    });
}

/// Where the connections to the server's port come from.
fn local_ports(netns: &NetNs) -> Vec<u16> {
    let port = format!(":{PORT}");
    let mut command: Command = netns.command("ss");
    let wire = ["-Hnt", "state", "established", "dport", "=", &port];
    let text = must_succeed(command.args(wire));
    let local = |line: &str| line.split_whitespace().nth(2)?.rsplit(':').next()?.parse().ok();
    text.lines().filter_map(local).collect()
}
