//! The embedded CA: short-lived SVIDs are renewed, roots are rotated and retired under running flows.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use sheath_tests::agent::Agent;
use sheath_tests::binaries;
use sheath_tests::ca::{Ca, Leaf};
use sheath_tests::certs::Certificate;
use sheath_tests::clock::Clock;
use sheath_tests::config::{Identity, WorkloadIdentity, spiffe_id};
use sheath_tests::live::{LiveFlow, Transfer};
use sheath_tests::pair::{PORT, Pair, Setting};
use sheath_tests::probe::Probe;
use sheath_tests::script::Step;
use sheath_tests::shown;
use sheath_tests::spire::{Entry, SpireAgent, Subject};
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{Family, TRUST_DOMAIN};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const ROOT_1: &str = "CN=Sheath CA of example.org";
const ROOT_2: &str = "CN=Sheath CA 2 of example.org";

/// A certificate is valid from a little before it is issued.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// `sheath ca` for a directory.
fn sheath_ca(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binaries::sheath());
    command.arg("ca").args(arguments).arg("--dir").arg(dir).output().expect("running sheath")
}

#[track_caller]
fn must(output: &Output) -> String {
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "sheath ca: {problem}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What each root of a directory is for, by `sheath ca show`.
fn states(dir: &Path) -> Vec<String> {
    let shown = must(&sheath_ca(dir, &["show", "--output", "json"]));
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let roots = shown["roots"].as_array().expect("roots").iter();
    roots.map(|root| root["state"].as_str().expect("a state").to_owned()).collect()
}

/// Makes the next root on node A and copies it to node B, as an operator does.
#[track_caller]
fn rotate(pair: &Pair, overlap: &str) {
    let (a, b) = (pair.agent_a.config().ca_dir(), pair.agent_b.config().ca_dir());
    must(&sheath_ca(a, &["rotate", "--overlap", overlap]));
    for name in ["ca-2.key", "ca-2.crt"] {
        fs::copy(a.join(name), b.join(name)).expect("copying the next root");
    }
}

/// The usual scene, its agents with their workloads' names.
fn sides(pair: &Pair) -> [(&Agent, &'static str); 2] {
    [(&pair.agent_a, "client"), (&pair.agent_b, "web")]
}

#[track_caller]
fn wait_for_roots(pair: &Pair, expected: &[&str]) {
    for (agent, name) in sides(pair) {
        wait::wait_until("the roots that are believed", GENEROUS, || {
            agent.certs().authorities(name, TRUST_DOMAIN).as_deref() == Some(expected)
        });
    }
}

/// Has an agent issue its workload's SVID anew: it does so for another lifetime. Returns the new one.
#[track_caller]
fn reissue(agent: &mut Agent, name: &str, ttl: &'static str) -> Certificate {
    let before = agent.certs().certificate(name).serial.clone();
    let output = agent.reload(|config| {
        config.embedded_ca().svid_ttl = Some(ttl);
    });
    assert!(output.status.success(), "{output:?}");
    agent.wait_for_certificate(name, "another SVID", |seen| {
        seen.state == "ok" && seen.serial != before
    })
}

fn with_ttl(ttl: &'static str) -> Pair {
    Pair::with(Setting::Host, |a, b| {
        for config in [a, b] {
            config.embedded_ca().svid_ttl = Some(ttl);
        }
    })
}

fn live_flow(pair: &Pair) -> LiveFlow {
    LiveFlow::start(&pair.client, pair.target(Family::V4))
}

fn seconds(text: Option<&String>) -> i64 {
    let text = text.expect("a time");
    OffsetDateTime::parse(text, &Rfc3339).expect("RFC 3339").unix_timestamp()
}

#[test]
fn svids_live_as_long_as_is_said() {
    let pair = Pair::with(Setting::Host, |a, b| {
        a.embedded_ca().svid_ttl = Some("2h");
        a.workloads[0].identity = Some(WorkloadIdentity::Ca { svid_ttl: "10m" });
        b.embedded_ca().svid_ttl = Some("2h");
    });
    for ((agent, name), life) in sides(&pair).into_iter().zip([10 * 60, 2 * 60 * 60]) {
        let shown = agent.certs().certificate(name).clone();
        assert_eq!((shown.source.as_str(), shown.issuer.as_deref()), ("ca", Some(ROOT_1)));
        let skew = i64::try_from(CLOCK_SKEW.as_secs()).unwrap();
        let issued = seconds(shown.not_before.as_ref()) + skew;
        assert_eq!(seconds(shown.not_after.as_ref()) - issued, life, "{shown:?}");
        // Times in certificates are whole seconds.
        let renewal = seconds(shown.next_renewal.as_ref()) - issued;
        assert!((life / 2 - 1..=life * 6 / 10 + 1).contains(&renewal), "{shown:?}");
    }
}

/// At boot, clocks are often wrong. What was issued before the clock was set right is of no use until the time that it
/// bears; nobody should have to wait for that.
#[test]
fn an_svid_of_a_clock_that_was_ahead_is_replaced_when_the_clock_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::new(dir.path());
    clock.set_ahead(Duration::from_secs(3 * 60 * 60));
    let pair = Pair::with(Setting::Host, |a, _| a.environment.extend(clock.environment()));
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    pair.assert_refused();
    let early = pair.agent_a.certs().certificate("client").clone();
    let now = OffsetDateTime::now_utc().unix_timestamp();
    assert!(seconds(early.not_before.as_ref()) > now + 2 * 60 * 60, "{early:?}");
    clock.set_ahead(Duration::ZERO);
    let right = pair.agent_a.wait_for_certificate("client", "another SVID", |seen| {
        seen.state == "ok" && seen.serial != early.serial
    });
    assert!(seconds(right.not_before.as_ref()) <= now, "{right:?}");
    pair.assert_served();
}

#[test]
fn svids_of_a_minute_are_renewed_in_time() {
    const LIMIT: Duration = Duration::from_secs(60);
    let pair = with_ttl("1m");
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let flow = live_flow(&pair);
    let first = sides(&pair).map(|(agent, name)| agent.certs().certificate(name).clone());
    for ((agent, name), first) in sides(&pair).into_iter().zip(first) {
        let next = wait::wait_for("a renewed SVID", LIMIT, || {
            let shown = agent.certs().certificate(name).clone();
            (shown.serial != first.serial).then_some(shown)
        });
        assert_eq!(next.state, "ok", "{next:?}");
        // Not before it was said, and before the first one ended.
        let issued =
            seconds(next.not_before.as_ref()) + i64::try_from(CLOCK_SKEW.as_secs()).unwrap();
        assert!(seconds(first.next_renewal.as_ref()) <= issued + 1, "{first:?} {next:?}");
        assert!(issued < seconds(first.not_after.as_ref()), "{first:?} {next:?}");
        pair.assert_served();
    }
    let web = pair.agent_b.certs().certificate("web").clone();
    let caller = pair.world.ca().issue(&spiffe_id("client"));
    let on_the_wire = sheath_tests::ca::sha256(&shown::by_server(&pair, &caller));
    assert_eq!(web.sha256, Some(on_the_wire), "the certificate in use");
    flow.finish();
}

#[test]
fn a_new_root_is_believed_before_anything_is_issued_from_it() {
    let mut pair = with_ttl("1h");
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let mut flow = live_flow(&pair);
    let dirs = sides(&pair).map(|(agent, _)| agent.config().ca_dir().to_owned());

    rotate(&pair, "12s");
    wait_for_roots(&pair, &[ROOT_1, ROOT_2]);
    let early = reissue(&mut pair.agent_a, "client", "2h");
    let dirs_then = dirs.each_ref().map(|dir| states(dir));
    assert_eq!(dirs_then, [["active", "next"], ["active", "next"]], "still within the overlap");
    assert_eq!(early.issuer.as_deref(), Some(ROOT_1));
    pair.assert_served();
    flow.assert_alive();

    wait::wait_until("the end of the overlap", GENEROUS, || {
        dirs.iter().all(|dir| states(dir) == ["old", "active"])
    });
    // Nothing changes by itself, and then one side is ahead of the other.
    for (agent, name) in sides(&pair) {
        assert_eq!(agent.certs().certificate(name).issuer.as_deref(), Some(ROOT_1));
    }
    pair.assert_served();
    let client = reissue(&mut pair.agent_a, "client", "3h");
    assert_eq!(client.issuer.as_deref(), Some(ROOT_2));
    pair.assert_served();
    flow.assert_alive();
    let web = reissue(&mut pair.agent_b, "web", "3h");
    assert_eq!(web.issuer.as_deref(), Some(ROOT_2));
    pair.assert_served();
    wait_for_roots(&pair, &[ROOT_1, ROOT_2]);
    flow.finish();
}

#[test]
fn retiring_the_old_root_closes_what_chains_to_it() {
    let mut pair = with_ttl("1h");
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let old = live_flow(&pair);
    let dirs = sides(&pair).map(|(agent, _)| agent.config().ca_dir().to_owned());
    rotate(&pair, "1s");
    wait_for_roots(&pair, &[ROOT_1, ROOT_2]);
    wait::wait_until("the end of the overlap", GENEROUS, || {
        dirs.iter().all(|dir| states(dir) == ["old", "active"])
    });
    // Certificates of the old root may still be in use: it does not go without being told twice.
    let refused = sheath_ca(&dirs[0], &["retire"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--force"), "{refused:?}");
    assert_eq!(states(&dirs[0]), ["old", "active"]);

    let client = reissue(&mut pair.agent_a, "client", "2h");
    assert_eq!(client.issuer.as_deref(), Some(ROOT_2));
    // A's certificate is of the new root in this one, B's still of the old.
    let half = live_flow(&pair);
    must(&sheath_ca(&dirs[1], &["retire", "--force"]));
    old.wait_reset();
    let cut = pair.agent_b.wait_for_access("the old flow", |line| line.outcome == "revoked");
    assert_eq!((cut.stage.as_str(), cut.direction.as_str()), ("relay", "inbound"), "{cut:?}");
    assert!(cut.reason.contains("does not chain"), "{cut:?}");
    // B, whose own SVID was of the old root, has issued another one at once.
    let web = pair
        .agent_b
        .wait_for_certificate("web", "another SVID", |seen| seen.issuer.as_deref() == Some(ROOT_2));
    assert_eq!(web.state, "ok", "{web:?}");
    pair.assert_served();
    let mut young = live_flow(&pair);
    must(&sheath_ca(&dirs[0], &["retire", "--force"]));
    half.wait_reset();
    pair.agent_a.wait_for_access("the flow to B's old SVID", |line| line.outcome == "revoked");
    wait_for_roots(&pair, &[ROOT_2]);
    young.assert_alive();
    young.finish();
    pair.assert_served();
}

/// What is in memory is used until the directory is as it should be again.
#[test]
fn a_broken_directory_changes_nothing() {
    let mut pair = with_ttl("1h");
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let flow = live_flow(&pair);
    let dir = pair.agent_b.config().ca_dir().to_owned();
    let aside = dir.with_extension("aside");
    let put = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
    let copy = |from: &Path, to: &Path| {
        fs::create_dir_all(to).unwrap();
        for name in ["ca.crt", "ca.key"] {
            fs::copy(from.join(name), to.join(name)).unwrap();
        }
    };
    copy(&dir, &aside);
    let elsewhere = tempfile::tempdir().unwrap();
    Ca::init(elsewhere.path(), "elsewhere.example");
    let strangers = tempfile::tempdir().unwrap();
    Ca::init(strangers.path(), TRUST_DOMAIN);
    let stranger = |name: &str| fs::read_to_string(strangers.path().join(name)).unwrap();
    for (what, damage, reason) in [
        ("no certificate", &(|| put("ca.crt", "garbage\n")) as &dyn Fn(), "no certificate"),
        ("no key", &|| put("ca.key", "garbage\n"), "no private key"),
        ("another key", &|| put("ca.key", &stranger("ca.key")), "does not belong to the key"),
        ("another domain", &|| copy(elsewhere.path(), &dir), "not of the trust domain"),
        ("a half-made root", &|| put("ca-2.crt", "garbage\n"), "ca-2.crt"),
        ("nothing", &|| fs::remove_dir_all(&dir).unwrap(), "cannot read"),
    ] {
        let before = pair.agent_b.certs().certificate("web").clone();
        damage();
        let shown = pair.agent_b.wait_for_certificate("web", what, |seen| seen.complains(reason));
        assert_eq!((shown.state.as_str(), &shown.serial), ("stale", &before.serial), "{what}");
        let status = pair.agent_b.status();
        assert!(status.workload("web").identity.problem.contains(reason), "{what}: {status:?}");
        pair.agent_b.wait_for_log("ERROR", reason);
        let roots = pair.agent_b.certs();
        assert_eq!(roots.authorities("web", TRUST_DOMAIN), Some(vec![ROOT_1]), "{what}");
        pair.assert_served();

        copy(&aside, &dir);
        let _ = fs::remove_file(dir.join("ca-2.crt"));
        pair.agent_b.wait_for_certificate("web", "a good directory", |seen| seen.state == "ok");
    }
    // Renewal goes on as well, and the trouble is not forgotten over it.
    put("ca.crt", "garbage\n");
    pair.agent_b.wait_for_certificate("web", "the trouble", |seen| seen.complains("ca.crt"));
    let before = pair.agent_b.certs().certificate("web").serial.clone();
    let output = pair.agent_b.reload(|config| {
        config.embedded_ca().svid_ttl = Some("2h");
    });
    assert!(output.status.success(), "{output:?}");
    pair.agent_b.wait_for_certificate("web", "another SVID, and the trouble", |seen| {
        seen.serial != before && seen.state == "stale" && seen.complains("ca.crt")
    });
    flow.finish();
    pair.assert_served();
}

/// One flow that moves bytes both ways all the time, while the SVIDs of both sides are replaced three times and the root
/// behind them once. One side has its SVIDs from SPIRE, the other from files; the roots are made by `sheath ca`.
#[test]
fn a_long_transfer_runs_through_three_rotations_of_svids_and_one_of_roots() {
    const BULK_PORT: u16 = 8081;
    let (spire, files, ca) =
        (SpireAgent::start(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dir = files.path().join("web");
    fs::create_dir(&dir).unwrap();
    let give = |roots: &[&Ca], issuer: &Ca| -> [Leaf; 2] {
        let [client, web] = ["client", "web"].map(|name| issuer.issue(&spiffe_id(name)));
        let certificates: Vec<_> = roots.iter().map(|root| root.certificate()).collect();
        spire.set_bundles(&[("spiffe://example.org", &certificates)]);
        spire.register("client", Entry::new(Subject::selectors(&["unix:uid:0"]), &client));
        // The bundle first: nobody should see a certificate of a root that he does not believe.
        fs::write(dir.join("ca.crt"), must(&sheath_ca(ca.path(), &["bundle"]))).unwrap();
        web.write(&dir);
        [client, web]
    };
    let first = Ca::init(ca.path(), TRUST_DOMAIN);
    give(&[&first], &first);
    let pair = Pair::with(Setting::Host, |a, b| {
        a.identity = Identity::spire(&spire.socket());
        let selectors = vec!["unix:uid:0".to_owned()];
        a.workloads[0].identity = Some(WorkloadIdentity::Spire { selectors });
        b.identity = Identity::files(files.path());
        b.workloads[0].inbound.as_mut().unwrap().ports = Some(vec![PORT, BULK_PORT]);
    });
    let _echo: Probe = pair.serve(Family::V4, &[Step::Echo]);
    let mut transfer = Transfer::start(&pair, BULK_PORT);
    let mut serials = Vec::new();
    let mut in_use = |[client, web]: [Leaf; 2]| {
        pair.agent_a.wait_for_svid("client", &client);
        pair.agent_b.wait_for_svid("web", &web);
        assert_eq!(shown::by_client(&pair, &web), client.chain[0]);
        assert_eq!(shown::by_server(&pair, &client), web.chain[0]);
        pair.assert_served();
        transfer.assert_moving();
        serials.extend([client.serial().to_owned(), web.serial().to_owned()]);
    };
    in_use(give(&[&first], &first));
    must(&sheath_ca(ca.path(), &["rotate", "--overlap", "1s"]));
    let second = Ca::load(ca.path(), 2);
    // Both roots are believed, and the old one is issued from.
    in_use(give(&[&first, &second], &first));
    wait_for_roots(&pair, &[ROOT_1, ROOT_2]);
    wait::wait_until("the end of the overlap", GENEROUS, || states(ca.path()) == ["old", "active"]);
    in_use(give(&[&first, &second], &second));
    serials.sort();
    serials.dedup();
    assert_eq!(serials.len(), 6, "three rotations of two SVIDs");
    for (agent, name) in sides(&pair) {
        let shown = agent.certs().certificate(name).clone();
        assert_eq!(shown.issuer.as_deref(), Some(ROOT_2), "{shown:?}");
    }
    let [received, sent] = transfer.finish();
    assert!(received > 0 && sent > 0);
    let line = pair.agent_b.wait_for_access("the transfer", |line| {
        line.destination.ends_with(&format!(":{BULK_PORT}"))
    });
    assert_eq!((line.outcome.as_str(), line.peer_id), ("ok", spiffe_id("client")));
}
