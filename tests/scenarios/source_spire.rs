//! Identities from a SPIRE agent, by its Delegated Identity API: for selectors and for processes, rotated, withdrawn,
//! federated, and kept while the SPIRE agent is away. The SPIRE agent is a double that speaks the real protocol.

use std::collections::HashSet;
use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use rustls::pki_types::CertificateDer;
use sheath_tests::agent::Agent;
use sheath_tests::ca::{Ca, Leaf};
use sheath_tests::certs::Certificate;
use sheath_tests::config::{Config, Identity, WorkloadIdentity, spiffe_id};
use sheath_tests::live::LiveFlow;
use sheath_tests::pair::{Pair, Setting};
use sheath_tests::probe::Probe;
use sheath_tests::script::{Job, Step};
use sheath_tests::shown;
use sheath_tests::spire::{Entry, SentSvid, SpireAgent, Subject};
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{Family, TRUST_DOMAIN};

const OWN_ID: &str = "spiffe://example.org";
const PARTNER: &str = "partner.org";
const PARTNER_ID: &str = "spiffe://partner.org";

/// The client workload's selectors; the server is known by its processes.
const SELECTORS: [&str; 2] = ["unix:uid:1000", "k8s:ns:demo"];

/// A SPIRE agent on each node, and the root that both issue from.
struct Spire {
    a: SpireAgent,
    b: SpireAgent,
    root: Ca,
}

impl Spire {
    /// They know their own bundle, and nobody yet.
    fn new() -> Self {
        let (a, b) = (SpireAgent::start(), SpireAgent::start());
        let spire = Self { a, b, root: Ca::named("root 1", TRUST_DOMAIN) };
        spire.set_bundles(&[(OWN_ID, &[spire.root.certificate()])]);
        spire
    }

    fn set_bundles(&self, bundles: &[(&str, &[CertificateDer<'_>])]) {
        self.a.set_bundles(bundles);
        self.b.set_bundles(bundles);
    }

    /// Each node asks its own.
    fn configure(&self, a: &mut Config, b: &mut Config) {
        a.identity = Identity::spire(&self.a.socket());
        b.identity = Identity::spire(&self.b.socket());
        a.workloads[0].identity = Some(by_selectors());
    }

    /// Gives a new SVID to the client workload.
    fn give_client(&self) -> Leaf {
        let leaf = self.root.issue(&spiffe_id("client"));
        self.a.register("client", Entry::new(Subject::selectors(&SELECTORS), &leaf));
        leaf
    }

    /// Gives a new SVID to the server workload.
    fn give_server(&self, pair: &Pair) -> Leaf {
        let leaf = self.root.issue(&spiffe_id("web"));
        let cgroup = pair.server.cgroup.relative();
        self.b.register("web", Entry::new(Subject::Cgroup(cgroup), &leaf));
        leaf
    }
}

fn by_selectors() -> WorkloadIdentity {
    WorkloadIdentity::Spire { selectors: SELECTORS.map(str::to_owned).to_vec() }
}

/// The usual scene with identities from a SPIRE agent, and both workloads in possession of one.
struct Scene {
    pair: Pair,
    client: Leaf,
    server: Leaf,
    spire: Spire,
    _echo: Probe,
}

impl Scene {
    fn new() -> Self {
        let spire = Spire::new();
        let pair = Pair::with(Setting::Host, |a, b| spire.configure(a, b));
        let (client, server) = (spire.give_client(), spire.give_server(&pair));
        pair.agent_a.wait_for_svid("client", &client);
        pair.agent_b.wait_for_svid("web", &server);
        let echo = pair.serve(Family::V4, &[Step::Echo]);
        Self { pair, client, server, spire, _echo: echo }
    }

    fn live_flow(&self) -> LiveFlow {
        LiveFlow::start(&self.pair.client, self.pair.target(Family::V4))
    }
}

#[test]
fn an_svid_is_had_by_selectors() {
    let scene = Scene::new();
    scene.pair.assert_served();
    let line = scene.pair.agent_b.wait_for_access("the flow", |line| line.is("inbound", "ok"));
    assert_eq!(line.peer_id, spiffe_id("client"), "{line:?}");
    let asked = scene.spire.a.wait_for_subscription("the subscription", |s| s.open);
    assert_eq!((asked.selectors.as_slice(), asked.pid), (&SELECTORS.map(str::to_owned)[..], 0));
    let shown = scene.pair.agent_a.certs().certificate("client").clone();
    assert_eq!((shown.kind.as_str(), shown.source.as_str()), ("workload", "spire"), "{shown:?}");
    assert_eq!(shown.spiffe_id, Some(spiffe_id("client")), "{shown:?}");
    assert_eq!(scene.pair.agent_a.status().workload("client").identity.source, "spire");
}

/// SPIRE attests the process that it is told; a process of somebody else would get somebody else's SVID.
#[test]
fn an_svid_is_had_by_a_process_of_the_workload() {
    let scene = Scene::new();
    let pair = &scene.pair;
    pair.assert_served();
    let waited = "not every source of identities has answered yet";
    let log = pair.agent_b.log_lines();
    assert!(!log.iter().any(|line| line.contains(waited)), "a start that waits for processes");
    let (mut asked, mut processes) = (HashSet::new(), Vec::new());
    for _ in 0..3 {
        // The one that ends is the one that was asked for, whichever that was; another one is there.
        processes.push(Probe::start(&pair.server, &Job::Idle));
        let open = scene.spire.b.wait_for_subscription("by process", |subscription| {
            subscription.open && !asked.contains(&subscription.pid)
        });
        assert_eq!(open.selectors, Vec::<String>::new());
        let members = fs::read_to_string(pair.server.cgroup.procs()).unwrap();
        let is_member = members.lines().any(|member| member == open.pid.to_string());
        assert!(is_member, "{open:?} is none of {members:?}");
        asked.insert(open.pid);
        let pid = Pid::from_raw(open.pid);
        kill(pid, Signal::SIGKILL).unwrap();
        scene.spire.b.wait_for_subscription("the end of the subscription", |subscription| {
            subscription.pid == open.pid && !subscription.open
        });
    }
}

/// The process for which an SVID was asked has ended before the answer comes: the answer may be about whoever has its
/// number now.
#[test]
fn an_answer_about_a_process_that_has_ended_is_nobodys() {
    let spire = Spire::new();
    let pair = Pair::with(Setting::Host, |a, b| {
        spire.configure(a, b);
        b.log.level = "debug";
    });
    let own = spire.give_server(&pair);
    let somebody_elses = spire.root.issue(&spiffe_id("web"));
    pair.agent_b.wait_for_svid("web", &own);
    let mut processes = Vec::new();
    for _ in 0..6 {
        processes.push(Probe::start(&pair.server, &Job::Idle));
        let before = spire.b.subscriptions().len();
        spire.b.hold(true);
        spire.b.end_subscriptions();
        let asked = wait::wait_for("a new subscription", GENEROUS, || {
            spire.b.subscriptions().into_iter().nth(before)
        });
        let number = u32::try_from(asked.pid).unwrap();
        let entry = Entry::new(Subject::Process(number), &somebody_elses);
        spire.b.register("somebody else", entry);
        let pid = Pid::from_raw(asked.pid);
        kill(pid, Signal::SIGKILL).unwrap();
        // It leaves its cgroup before it has ended.
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).expect("a child");
        spire.b.hold(false);
        spire.b.wait_for_subscription("by another process", |subscription| {
            subscription.open && subscription.pid != asked.pid
        });
        spire.b.unregister("somebody else");
    }
    pair.agent_b.wait_for_svid("web", &own);
    let published = |leaf: &Leaf| {
        let lines = pair.agent_b.log_lines();
        lines.iter().filter(|line| line.contains(leaf.serial())).count()
    };
    assert!(published(&own) > 0, "the log names what is published");
    assert_eq!(published(&somebody_elses), 0, "an SVID of somebody else was published");
}

#[test]
fn a_rotation_disturbs_no_live_flow() {
    let scene = Scene::new();
    let (pair, spire) = (&scene.pair, &scene.spire);
    let mut flow = scene.live_flow();
    for _ in 0..3 {
        let (client, server) = (spire.give_client(), spire.give_server(pair));
        pair.agent_a.wait_for_svid("client", &client);
        pair.agent_b.wait_for_svid("web", &server);
        flow.assert_alive();
        pair.assert_served();
        assert_eq!(shown::by_server(pair, &client), server.chain[0], "an old certificate is shown");
    }
    flow.finish();
}

#[test]
fn an_empty_list_withdraws_the_identity() {
    identity_is_withdrawn(
        |spire| spire.a.unregister("client"),
        |spire| spire.give_client(),
        "has no SVID for the workload",
    );
}

#[test]
fn permission_denied_withdraws_the_identity() {
    identity_is_withdrawn(
        |spire| spire.a.refuse(true),
        |spire| {
            let leaf = spire.give_client();
            spire.a.refuse(false);
            leaf
        },
        "caller not configured as an authorized delegate",
    );
}

fn identity_is_withdrawn(
    withdraw: impl Fn(&Spire),
    give_back: impl Fn(&Spire) -> Leaf,
    reason: &str,
) {
    let scene = Scene::new();
    let (pair, spire) = (&scene.pair, &scene.spire);
    let flow = scene.live_flow();
    withdraw(spire);
    flow.wait_reset();
    let cut = pair.agent_a.wait_for_access("the live flow", |line| line.outcome == "revoked");
    assert_eq!((cut.stage.as_str(), cut.direction.as_str()), ("relay", "outbound"), "{cut:?}");
    assert!(cut.reason.contains("no identity"), "{cut:?}");
    pair.assert_refused();
    let refused = pair.agent_a.wait_for_access("the new flow", |line| line.stage == "identity");
    assert_eq!(refused.outcome, "error", "{refused:?}");
    assert!(refused.reason.contains(reason), "{refused:?}");
    let shown = pair.agent_a.certs().certificate("client").clone();
    assert_eq!((shown.state.as_str(), &shown.serial), ("missing", &None), "{shown:?}");
    assert!(shown.complains(reason), "{shown:?}");
    let status = pair.agent_a.status();
    assert!(status.workload("client").identity.problem.contains(reason), "{status:?}");
    assert!(status.workload("client").svid.is_none(), "{status:?}");
    pair.agent_a.wait_for_log("ERROR", reason);

    let leaf = give_back(spire);
    pair.agent_a.wait_for_svid("client", &leaf);
    assert_eq!(pair.agent_a.status().workload("client").identity.problem, "");
    pair.assert_served();
}

#[test]
fn the_svid_stays_while_the_spire_agent_is_away() {
    let mut scene = Scene::new();
    let mut flow = scene.live_flow();
    scene.spire.a.stop();
    scene.spire.b.stop();
    for (agent, name, leaf) in [
        (&scene.pair.agent_a, "client", &scene.client),
        (&scene.pair.agent_b, "web", &scene.server),
    ] {
        let reason = "cannot reach the SPIRE agent";
        let shown = agent.wait_for_certificate(name, "the reason", |seen| seen.complains(reason));
        assert_eq!(shown.state, "stale", "{shown:?}");
        assert_eq!(shown.serial.as_deref(), Some(leaf.serial()), "{shown:?}");
        let status = agent.status();
        assert!(status.workload(name).identity.problem.contains(reason), "{status:?}");
        agent.wait_for_log("ERROR", reason);
    }
    flow.assert_alive();
    scene.pair.assert_served();

    // What has changed meanwhile is told by whoever comes back.
    let (client, server) = (scene.spire.give_client(), scene.spire.give_server(&scene.pair));
    scene.spire.a.start_again();
    scene.spire.b.start_again();
    scene.pair.agent_a.wait_for_svid("client", &client);
    scene.pair.agent_b.wait_for_svid("web", &server);
    flow.finish();
    scene.pair.assert_served();
}

/// It takes connections, and says nothing.
#[test]
fn the_svid_stays_while_the_spire_agent_is_silent() {
    let scene = Scene::new();
    let flow = scene.live_flow();
    scene.spire.a.hold(true);
    scene.spire.a.end_subscriptions();
    let agent = &scene.pair.agent_a;
    let shown = agent.wait_for_certificate("client", "the reason", |seen| {
        seen.complains("the SPIRE agent does not answer")
    });
    assert_eq!(
        (shown.state.as_str(), shown.serial.as_deref()),
        ("stale", Some(scene.client.serial()))
    );
    scene.pair.assert_served();
    let next = scene.spire.give_client();
    scene.spire.a.hold(false);
    agent.wait_for_svid("client", &next);
    flow.finish();
}

/// Until there is an identity nothing passes, and nothing else has to be done when there is.
#[test]
fn an_agent_starts_without_a_spire_agent() {
    let mut spire = Spire::new();
    spire.a.stop();
    let pair = Pair::with(Setting::Host, |a, b| spire.configure(a, b));
    let (client, server) = (spire.give_client(), spire.give_server(&pair));
    pair.agent_b.wait_for_svid("web", &server);
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    pair.assert_refused();
    let refused = pair.agent_a.wait_for_access("the refusal", |line| line.stage == "identity");
    assert!(refused.reason.contains("cannot reach the SPIRE agent"), "{refused:?}");
    assert_eq!(pair.agent_a.certs().certificate("client").state, "missing");
    spire.a.start_again();
    pair.agent_a.wait_for_svid("client", &client);
    pair.assert_served();
}

#[test]
fn a_subscription_that_ends_is_made_anew() {
    let scene = Scene::new();
    let flow = scene.live_flow();
    let (client, server) = (scene.spire.give_client(), scene.spire.give_server(&scene.pair));
    for (spire, agent, name, leaf) in [
        (&scene.spire.a, &scene.pair.agent_a, "client", &client),
        (&scene.spire.b, &scene.pair.agent_b, "web", &server),
    ] {
        let before = spire.subscriptions().len();
        spire.end_subscriptions();
        agent.wait_for_log("ERROR", "the SPIRE agent has ended the subscription");
        wait::wait_until("a new subscription", GENEROUS, || {
            spire.subscriptions().iter().skip(before).any(|subscription| subscription.open)
        });
        agent.wait_for_svid(name, leaf);
    }
    flow.finish();
}

/// Two organisations with a SPIRE agent each. Whether one's workload believes the other's is said by the workload's own
/// SPIRE agent.
#[test]
fn a_federated_peer_is_believed_by_its_own_bundle() {
    let (own, partner) = (Spire::new(), SpireAgent::start());
    let partner_root = Ca::named("the partner's root", PARTNER);
    let (own_bundle, partner_bundle) = ([own.root.certificate()], [partner_root.certificate()]);
    let both = [(OWN_ID, &own_bundle[..]), (PARTNER_ID, &partner_bundle[..])];
    own.set_bundles(&both);
    partner.set_bundles(&both);
    let partner_web = "spiffe://partner.org/web".to_owned();
    let pair = Pair::with(Setting::Host, |a, b| {
        own.configure(a, b);
        a.peers[0].spiffe_ids = vec![partner_web.clone()];
        b.trust_domain = PARTNER.to_owned();
        b.identity = Identity::spire(&partner.socket());
        b.workloads[0].spiffe_id = Some(partner_web.clone());
    });
    let server = partner_root.issue(&partner_web);
    let entry = Entry::new(Subject::Cgroup(pair.server.cgroup.relative()), &server);
    partner.register("web", entry.federating(&[OWN_ID]));
    pair.agent_b.wait_for_svid("web", &server);
    let _echo = pair.serve(Family::V4, &[Step::Echo]);

    // The bundle is there, but this workload does not federate.
    let client = own.give_client();
    pair.agent_a.wait_for_svid("client", &client);
    pair.assert_refused();
    let line = pair.agent_a.wait_for_access("the refusal", |line| line.outcome == "denied");
    assert!(line.reason.contains("there is no bundle for the trust domain of"), "{line:?}");
    assert_eq!(pair.agent_a.certs().authorities("client", PARTNER), None);

    let entry = Entry::new(Subject::selectors(&SELECTORS), &client);
    let federated = || {
        own.a.register("client", entry.clone().federating(&[PARTNER_ID]));
        wait_federation(&pair, true);
        pair.assert_served();
        LiveFlow::start(&pair.client, pair.target(Family::V4))
    };
    let flow = federated();
    let line = pair.agent_a.wait_for_access("the flow", |line| line.is("outbound", "ok"));
    assert_eq!(line.peer_id, partner_web, "{line:?}");

    // Federation ends, by the entry or with the bundle, and with it what it made good.
    own.a.register("client", entry.clone());
    flow.wait_reset();
    wait_federation(&pair, false);
    pair.assert_refused();
    let flow = federated();
    own.a.set_bundles(&both[..1]);
    flow.wait_reset();
    wait_federation(&pair, false);
    pair.assert_refused();
}

#[track_caller]
fn wait_federation(pair: &Pair, expected: bool) {
    wait::wait_until("the partner's bundle to come or go", GENEROUS, || {
        pair.agent_a.certs().authorities("client", PARTNER).is_some() == expected
    });
}

/// The protocol says `example.org`, SPIRE itself says `spiffe://example.org`, and both may be mixed.
#[test]
fn trust_domains_are_spelled_in_two_ways() {
    let spire = Spire::new();
    let partner_root = Ca::named("the partner's root", PARTNER);
    let (own, partner) = ([spire.root.certificate()], [partner_root.certificate()]);
    let pair = Pair::with(Setting::Host, |a, b| spire.configure(a, b));
    for [own_key, partner_key, federates] in [
        [TRUST_DOMAIN, PARTNER, PARTNER],
        [OWN_ID, PARTNER_ID, PARTNER_ID],
        [TRUST_DOMAIN, PARTNER_ID, PARTNER],
        [OWN_ID, PARTNER, PARTNER_ID],
    ] {
        spire.set_bundles(&[(own_key, &own), (partner_key, &partner)]);
        let leaf = spire.root.issue(&spiffe_id("client"));
        let entry = Entry::new(Subject::selectors(&SELECTORS), &leaf).federating(&[federates]);
        spire.a.register("client", entry);
        pair.agent_a.wait_for_svid("client", &leaf);
        let certs = pair.agent_a.certs();
        for domain in [TRUST_DOMAIN, PARTNER] {
            let known = certs.authorities("client", domain);
            assert_eq!(known.map(|known| known.len()), Some(1), "{own_key} {partner_key}");
        }
    }
}

#[test]
fn an_svid_with_another_spiffe_id_is_not_published() {
    let spire = Spire::new();
    let pair = Pair::with(Setting::Host, |a, b| spire.configure(a, b));
    let server = spire.give_server(&pair);
    pair.agent_b.wait_for_svid("web", &server);
    let mut echo = pair.serve(Family::V4, &[Step::Echo]);
    let wrong = spire.root.issue(&spiffe_id("somebody-else"));
    let mut entry = Entry::new(Subject::selectors(&SELECTORS), &wrong);
    spire.a.register("client", entry.clone());
    let reason = format!("no SVID for the workload that is of {}", spiffe_id("client"));
    pair.agent_a.wait_for_log("ERROR", &reason);
    let shown =
        pair.agent_a.wait_for_certificate("client", "the reason", |seen| seen.complains(&reason));
    assert_eq!((shown.state.as_str(), &shown.serial), ("missing", &None), "{shown:?}");
    pair.assert_refused();
    assert_eq!(echo.pending(), 0);

    // Among several, the right one is taken.
    let right = spire.root.issue(&spiffe_id("client"));
    entry.svids.push(SentSvid::of(&right));
    spire.a.register("client", entry);
    pair.agent_a.wait_for_svid("client", &right);
    pair.assert_served();
}

/// Whatever is wrong with a part of it, none of it is taken.
#[test]
fn what_cannot_be_used_changes_nothing() {
    let scene = Scene::new();
    let (pair, spire) = (&scene.pair, &scene.spire);
    let mut flow = scene.live_flow();
    let good = &scene.client;
    let own = [spire.root.certificate()];
    let expired = spire.root.issue_expired(&spiffe_id("client"));
    let new = spire.root.issue(&spiffe_id("client"));
    let nonsense = [CertificateDer::from(&b"nonsense"[..])];
    let entry = |svid: SentSvid| {
        let mut entry = Entry::new(Subject::selectors(&SELECTORS), good);
        entry.svids = vec![svid];
        entry
    };
    let foreign_key = SentSvid { key: good.key.secret_der().to_vec(), ..SentSvid::of(&new) };
    let no_key = SentSvid { key: b"nonsense".to_vec(), ..SentSvid::of(&new) };
    let no_certificate = SentSvid { chain: vec![b"nonsense".to_vec()], ..SentSvid::of(&new) };
    for (what, entry, bundles, reason) in [
        ("a key of another", entry(foreign_key), (OWN_ID, &own), "does not belong"),
        ("no key", entry(no_key), (OWN_ID, &own), "the key cannot be used"),
        ("no certificate", entry(no_certificate), (OWN_ID, &own), "certificate 1"),
        ("expired", entry(SentSvid::of(&expired)), (OWN_ID, &own), "expired"),
        ("no bundle", entry(SentSvid::of(&new)), (OWN_ID, &nonsense), "certificate 1"),
        ("no such domain", entry(SentSvid::of(&new)), ("https://example.org", &own), "https://"),
        (
            "a federated domain that is none",
            entry(SentSvid::of(&new)).federating(&["Partner"]),
            (OWN_ID, &own),
            "Partner",
        ),
    ] {
        // Two streams: what they say has no order but that in which it was waited for.
        let complains = |seen: &Certificate| seen.complains("cannot be used");
        if bundles.0 != OWN_ID || bundles.1 != &own {
            spire.set_bundles(&[(bundles.0, bundles.1)]);
            pair.agent_a.wait_for_certificate("client", what, complains);
        }
        let before = failures(&pair.agent_a);
        spire.a.register("client", entry);
        wait::wait_until(what, GENEROUS, || failures(&pair.agent_a) > before);
        let shown = pair.agent_a.wait_for_certificate("client", what, complains);
        assert!(shown.complains(reason), "{what}: {shown:?}");
        assert_eq!(shown.state, "stale", "{what}");
        assert_eq!(shown.serial.as_deref(), Some(good.serial()), "{what}");
        flow.assert_alive();
        spire.a.register("client", Entry::new(Subject::selectors(&SELECTORS), good));
        spire.set_bundles(&[(OWN_ID, &own)]);
        pair.agent_a.wait_for_svid("client", good);
        pair.agent_b.wait_for_svid("web", &scene.server);
    }
    flow.finish();
    pair.assert_served();
}

/// How often something could not be used so far.
fn failures(agent: &Agent) -> usize {
    agent.log_lines().iter().filter(|line| line.contains("identity not refreshed")).count()
}

/// A bundle is replaced while everything runs: what the new root issues is believed from then on, what the old one has
/// issued is not once that is gone.
#[test]
fn the_bundle_is_rotated() {
    let scene = Scene::new();
    let (pair, spire) = (&scene.pair, &scene.spire);
    let flow = scene.live_flow();
    let next = Ca::named("root 2", TRUST_DOMAIN);
    let roots = [spire.root.certificate(), next.certificate()];
    spire.set_bundles(&[(OWN_ID, &roots)]);
    let client = next.issue(&spiffe_id("client"));
    spire.a.register("client", Entry::new(Subject::selectors(&SELECTORS), &client));
    pair.agent_a.wait_for_svid("client", &client);
    pair.assert_served();
    let server = next.issue(&spiffe_id("web"));
    let entry = Entry::new(Subject::Cgroup(pair.server.cgroup.relative()), &server);
    spire.b.register("web", entry);
    pair.agent_b.wait_for_svid("web", &server);
    pair.assert_served();
    let mut young = scene.live_flow();
    spire.set_bundles(&[(OWN_ID, &roots[1..])]);
    flow.wait_reset();
    young.assert_alive();
    young.finish();
    pair.assert_served();
}
