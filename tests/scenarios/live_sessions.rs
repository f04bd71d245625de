//! What made a session good may go while it lives. Then it is cut within a second, and only it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sheath_tests::agent::Agent;
use sheath_tests::ca::{Ca, Leaf, PemFiles, replace, write_bundle};
use sheath_tests::config::{Config, Crl, Pin, Sessions, TrustDomain, Workload, spiffe_id};
use sheath_tests::pair::{Pair, Setting, client, living};
use sheath_tests::place::Place;
use sheath_tests::probe::Probe;
use sheath_tests::script::{Connection, Job, Step};
use sheath_tests::wait::{GENEROUS, wait_for};
use sheath_tests::world::{Family, TRUST_DOMAIN};

/// How long a session may live on when it is not good any more.
const A_SECOND: Duration = Duration::from_secs(1);

/// A server, and two clients with certificates from files.
struct Scene {
    pair: Pair,
    /// A workload beside the pair's client, on the same node.
    neighbour: Place,
    _echo: Probe,
    _resident: Probe,
}

/// What both agents are told at the start.
struct Setup<'s> {
    client: PemFiles,
    neighbour: PemFiles,
    /// Where agent B finds what it believes.
    bundle: &'s Path,
    change_a: &'s dyn Fn(&mut Config),
    change_b: &'s dyn Fn(&mut Config),
}

/// A directory for the files of a scene, which outlives it.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn trusting(bundle: &Path) -> TrustDomain {
    TrustDomain { name: TRUST_DOMAIN.to_owned(), bundle: Some(bundle.to_owned()), crl: None }
}

impl Scene {
    /// Certificates of the server come from the embedded CA, those of the clients from files.
    fn new(setup: &Setup<'_>) -> Self {
        let mut neighbour_cgroup = String::new();
        let pair = Pair::with(Setting::Host, |a, b| {
            neighbour_cgroup = format!("{}/neighbour", a.capture.cgroup);
            let own = a.ca_dir().join("ca.crt");
            a.workloads[0] = a.workloads[0].clone().files(setup.client.clone());
            a.workloads.push(
                Workload::new("neighbour", &neighbour_cgroup)
                    .outbound("require", &[])
                    .files(setup.neighbour.clone()),
            );
            // Files bring no bundle here: A believes the embedded CA, which certifies the server.
            a.trust_domains = vec![trusting(&own)];
            let inbound = b.workloads[0].inbound.as_mut().expect("an inbound mode");
            inbound.allow.push(spiffe_id("neighbour"));
            b.trust_domains = vec![trusting(setup.bundle)];
            (setup.change_a)(a);
            (setup.change_b)(b);
        });
        let neighbour = pair.world.a.host("neighbour");
        let resident = Probe::start(&neighbour, &Job::Idle);
        pair.agent_a.wait_enrolled("neighbour", &neighbour);
        let echo = pair.serve(Family::V4, &[Step::Echo]);
        Self { pair, neighbour, _echo: echo, _resident: resident }
    }

    /// Opens a connection of each client, has both say something, does `change`, and returns how long after it
    /// the client's was cut. The neighbour's must go on.
    fn assert_client_alone_is_cut(&mut self, reason: &str, change: impl FnOnce(&mut Pair)) {
        let to = self.pair.target(Family::V4);
        let victim = [Step::Send("ab".into()), Step::Receive(2), Step::Pause, Step::ReceiveToEnd];
        let mut victim = Probe::start(&self.pair.client, &client(to, &victim));
        let mut bystander = Probe::start(&self.neighbour, &client(to, &living()));
        victim.wait_paused();
        bystander.wait_paused();
        let changed = Instant::now();
        change(&mut self.pair);
        victim.go();
        let seen = victim.connection();
        let took = changed.elapsed();
        assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
        assert!(took < A_SECOND, "it lived on for {took:?}");
        bystander.go();
        let seen = bystander.connection();
        assert_eq!(seen.last().text, "cd", "{seen:?}");
        let agents = [&self.pair.agent_a, &self.pair.agent_b];
        let line = wait_for("the end in an access log", GENEROUS, || {
            let lines = agents.iter().flat_map(|agent| agent.access());
            lines.into_iter().find(|line| line.outcome == "revoked")
        });
        assert!(line.reason.contains(reason), "{line:?}");
        assert_eq!(line.stage, "relay", "{line:?}");
    }

    /// What comes of a new connection of the client.
    fn try_again(&self) -> Connection {
        let to = self.pair.target(Family::V4);
        self.pair.connect(to, &[Step::Send("x".into()), Step::EndSending, Step::ReceiveToEnd])
    }
}

fn nothing(_: &mut Config) {}

/// The files of two clients, one authority for each.
struct Clients {
    dir: tempfile::TempDir,
    authorities: [Ca; 2],
    leaves: [Leaf; 2],
    bundle: PathBuf,
}

impl Clients {
    fn new() -> Self {
        Self::of(["one", "two"].map(|name| Ca::named(name, TRUST_DOMAIN)))
    }

    fn of(authorities: [Ca; 2]) -> Self {
        let dir = directory();
        let leaves = [("client", 0), ("neighbour", 1)]
            .map(|(name, index)| authorities[index].issue(&spiffe_id(name)));
        let bundle = dir.path().join("bundle.pem");
        write_bundle(&authorities.each_ref(), &bundle);
        Self { dir, authorities, leaves, bundle }
    }

    fn files(&self, index: usize) -> PemFiles {
        self.leaves[index].write(&self.dir.path().join(index.to_string()))
    }

    fn setup<'s>(
        &'s self,
        change_a: &'s dyn Fn(&mut Config),
        change_b: &'s dyn Fn(&mut Config),
    ) -> Setup<'s> {
        let [client, neighbour] = [0, 1].map(|index| self.files(index));
        Setup { client, neighbour, bundle: &self.bundle, change_a, change_b }
    }
}

#[test]
fn a_revoked_peer_is_cut_and_its_neighbour_is_not() {
    let clients = Clients::new();
    let lists = ["one.crl", "two.crl"].map(|name| clients.dir.path().join(name));
    for (ca, list) in clients.authorities.iter().zip(&lists) {
        ca.write_crl(&[], list);
    }
    let crl = Crl { files: lists.to_vec(), unknown: "deny", expired: "deny" };
    let change_b = |b: &mut Config| b.trust_domains[0].crl = Some(crl.clone());
    let mut scene = Scene::new(&clients.setup(&nothing, &change_b));
    scene.assert_client_alone_is_cut("is revoked", |_| {
        clients.authorities[0].write_crl(&[&clients.leaves[0]], &lists[0]);
    });
    let seen = scene.try_again();
    assert_ne!(seen.ended_by(), None, "a revoked peer is served again: {seen:?}");
    let denied = scene.pair.agent_b.wait_for_access("the refusal", |line| line.outcome == "denied");
    assert!(denied.reason.contains("is revoked"), "{denied:?}");
    // A list that cannot be read changes nothing, and what it said still holds.
    replace(&lists[0], "nonsense");
    wait_for("the complaint", GENEROUS, || {
        let lines = scene.pair.agent_b.log_lines();
        lines.iter().any(|line| line.contains("one.crl") && line.contains("no CRL")).then_some(())
    });
    assert_ne!(scene.try_again().ended_by(), None);
    // Taken off the list, it is welcome.
    clients.authorities[0].write_crl(&[], &lists[0]);
    wait_for("a pardon", GENEROUS, || (scene.try_again().last().text == "x").then_some(()));
}

/// Two files as `cat` joins them where the first has lost its last line break. With `unknown: allow` a list that is lost lets
/// everybody through who is on it.
#[test]
fn a_revocation_in_the_second_of_two_joined_lists_counts() {
    let clients = Clients::new();
    let at = |name: &str| clients.dir.path().join(name);
    let joined = at("joined.crl");
    let join = |revoked: &[&Leaf], mark: &str| {
        clients.authorities[1].write_crl(&[], &at("two.crl"));
        clients.authorities[0].write_crl(revoked, &at("one.crl"));
        let [two, one] = ["two.crl", "one.crl"].map(|name| fs::read_to_string(at(name)).unwrap());
        replace(&joined, &format!("{mark}{}{mark}{one}", two.trim_end()));
    };
    join(&[], "");
    let crl = Crl { files: vec![joined.clone()], unknown: "allow", expired: "deny" };
    let change_b = |b: &mut Config| b.trust_domains[0].crl = Some(crl.clone());
    let mut scene = Scene::new(&clients.setup(&nothing, &change_b));
    scene.assert_client_alone_is_cut("is revoked", |_| join(&[&clients.leaves[0]], ""));
    assert_ne!(scene.try_again().ended_by(), None, "a revoked peer is served again");
    join(&[], "");
    wait_for("a pardon", GENEROUS, || (scene.try_again().last().text == "x").then_some(()));
    // With byte order marks, as editors leave them; and from the start.
    join(&[&clients.leaves[0]], "\u{feff}");
    scene.pair.agent_b.kill();
    scene.pair.agent_b.launch();
    let denied = wait_for("the refusal", GENEROUS, || {
        let _ = scene.try_again();
        let lines = scene.pair.agent_b.access();
        lines.into_iter().rev().find(|line| line.outcome == "denied")
    });
    assert!(denied.reason.contains("is revoked"), "{denied:?}");
    // What would lose a list is refused as a whole, and what was read before stays.
    let text = fs::read_to_string(&joined).unwrap();
    replace(&joined, &text.replacen("-----BEGIN X509 CRL-----", "-----BEGIN X509 CRL----", 1));
    wait_for("the complaint", GENEROUS, || {
        let lines = scene.pair.agent_b.log_lines();
        lines.iter().any(|line| line.contains("a BEGIN line must be")).then_some(())
    });
    assert_ne!(scene.try_again().ended_by(), None);
}

#[test]
fn an_authority_that_is_removed_takes_its_sessions_along() {
    let clients = Clients::new();
    let mut scene = Scene::new(&clients.setup(&nothing, &nothing));
    scene.assert_client_alone_is_cut("does not chain to the bundle", |_| {
        write_bundle(&[&clients.authorities[1]], &clients.bundle);
    });
}

#[test]
fn a_pin_that_is_removed_takes_its_sessions_along() {
    let clients = Clients::new();
    let pins = clients.dir.path().join("pins.pem");
    let both: String = clients.leaves.iter().map(|leaf| leaf.certificate_pem()).collect();
    replace(&pins, &both);
    let change_b = |b: &mut Config| {
        let inbound = b.workloads[0].inbound.as_mut().expect("an inbound mode");
        inbound.allow.clear();
        inbound.allow_pins = vec![Pin::Certificate(pins.clone())];
    };
    let mut scene = Scene::new(&clients.setup(&nothing, &change_b));
    scene.assert_client_alone_is_cut("is not pinned here", |_| {
        replace(&pins, clients.leaves[1].certificate_pem());
    });
}

#[track_caller]
fn reload(agent: &mut Agent, change: impl FnOnce(&mut Config)) {
    let output = agent.reload(change);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_rule_that_is_removed_takes_its_sessions_along() {
    let clients = Clients::new();
    let mut scene = Scene::new(&clients.setup(&nothing, &nothing));
    scene.assert_client_alone_is_cut("not expected here", |pair| {
        reload(&mut pair.agent_b, |b| {
            let inbound = b.workloads[0].inbound.as_mut().expect("an inbound mode");
            inbound.allow.retain(|id| *id != spiffe_id("client"));
        });
    });
    let seen = scene.try_again();
    assert_ne!(seen.ended_by(), None, "{seen:?}");
}

#[test]
fn a_workload_that_is_removed_takes_its_sessions_along() {
    let clients = Clients::new();
    let mut scene = Scene::new(&clients.setup(&nothing, &nothing));
    scene.assert_client_alone_is_cut("no identity any more", |pair| {
        reload(&mut pair.agent_a, |a| a.workloads.retain(|workload| workload.name != "client"));
    });
}

/// A certificate that lives for a few seconds.
const SHORT: Duration = Duration::from_secs(6);

#[test]
fn a_peer_that_expires_is_cut_where_that_is_configured_and_kept_where_not() {
    for close in [true, false] {
        let clients = Clients::new();
        let expires = Instant::now() + SHORT;
        let short = clients.authorities[0].issue_short(&spiffe_id("client"), SHORT);
        let scene = assert_cut_at(expires, &clients, &short, close);
        // New connections are refused in either case, at home already.
        let seen = scene.try_again();
        assert_ne!(seen.ended_by(), None, "{seen:?}");
        let line =
            scene.pair.agent_a.wait_for_access("the refusal", |line| line.stage == "identity");
        assert!(line.reason.contains("has expired"), "{line:?}");
    }
}

#[test]
fn a_peer_whose_authority_expires_is_cut_in_the_same_way() {
    for close in [true, false] {
        let expires = Instant::now() + SHORT;
        let one = Ca::short("one", TRUST_DOMAIN, SHORT);
        let clients = Clients::of([one, Ca::named("two", TRUST_DOMAIN)]);
        let scene = assert_cut_at(expires, &clients, &clients.leaves[0], close);
        let seen = scene.try_again();
        assert_ne!(seen.ended_by(), None, "{seen:?}");
        let line = scene.pair.agent_b.wait_for_access("the refusal", |line| line.stage == "tls");
        assert!(line.outcome == "denied" && line.reason.contains("has expired"), "{line:?}");
    }
}

/// A session of the client's with this certificate ends at a time, if agent B is to `close` it.
#[track_caller]
fn assert_cut_at(expires: Instant, clients: &Clients, leaf: &Leaf, close: bool) -> Scene {
    let change_b = |b: &mut Config| {
        b.sessions = close.then(|| Sessions { expired_peer: Some("close"), ..Sessions::default() });
    };
    let mut setup = clients.setup(&nothing, &change_b);
    setup.client = leaf.write(&clients.dir.path().join("short"));
    let scene = Scene::new(&setup);
    let to = scene.pair.target(Family::V4);
    let mut probe = Probe::start(&scene.pair.client, &client(to, &living()));
    probe.wait_paused();
    assert!(Instant::now() < expires, "the scene took too long to set up");
    // Certificates count whole seconds.
    let after = expires + Duration::from_secs(2);
    std::thread::sleep(after.saturating_duration_since(Instant::now()));
    probe.go();
    let seen = probe.connection();
    if close {
        assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
        let line = scene.pair.agent_b.wait_for_access("the end", |line| line.outcome == "revoked");
        assert!(line.reason.contains("has expired"), "{line:?}");
    } else {
        assert_eq!((seen.ended_by(), &*seen.last().text), (None, "cd"), "{seen:?}");
    }
    scene
}

#[test]
fn a_new_certificate_of_ones_own_disturbs_nothing() {
    let clients = Clients::new();
    let scene = Scene::new(&clients.setup(&nothing, &nothing));
    let mut probe =
        Probe::start(&scene.pair.client, &client(scene.pair.target(Family::V4), &living()));
    probe.wait_paused();
    let before = scene.pair.agent_a.status();
    let serial = |status: &sheath_tests::status::Status| {
        status.workload("client").svid.as_ref().map(|svid| svid.serial.clone())
    };
    let renewed = clients.authorities[0].issue(&spiffe_id("client"));
    renewed.write(&clients.dir.path().join("0"));
    scene
        .pair
        .agent_a
        .wait_for_status("the new certificate", |status| serial(status) != serial(&before));
    probe.go();
    let seen = probe.connection();
    assert_eq!(seen.last().text, "cd", "{seen:?}");
    assert_eq!(scene.try_again().last().text, "x");
}
