//! Services without an agent that are known by a DNS name: dnsmasq says where they are.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use sheath_tests::binaries;
use sheath_tests::config::{Config, Dns, ExternalPeer, StandardTls, TlsContext};
use sheath_tests::dissect::tls;
use sheath_tests::interop::dnsmasq::Dnsmasq;
use sheath_tests::interop::pki::Pki;
use sheath_tests::interop::scene::{Scene, TLS_PORT};
use sheath_tests::interop::{Route, Tls, nginx};
use sheath_tests::names::marker;
use sheath_tests::pair::{say, server};
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Job, Socket, Step};
use sheath_tests::wait::{GENEROUS, wait_until};
use sheath_tests::world::{FAMILIES, Family, WIRE};
use tempfile::TempDir;

const NAME: &str = "billing.example.com";
const PEER_ID: &str = "dns:billing.example.com";
const CONTEXT: &str = "billing-client";

/// Where dnsmasq listens: node A's own address.
const NAME_SERVER: &str = "10.0.1.1";

/// The usual pair of workloads, of which the client knows one external peer, by name.
fn scene(pki: &Pki, family: Option<&'static str>) -> Scene {
    scene_with(pki, family, |_| {})
}

fn scene_with(pki: &Pki, family: Option<&'static str>, change: impl FnOnce(&mut Config)) -> Scene {
    let tls = StandardTls::named(CONTEXT, pki.authority(), NAME);
    let mut peer = ExternalPeer::new("billing", &[&format!("{NAME}:{TLS_PORT}")], tls);
    peer.family = family;
    let files = pki.issue("client.example.com");
    Scene::with(|a, _| {
        a.peers.clear();
        a.tls_contexts = vec![TlsContext { name: CONTEXT.to_owned(), files }];
        a.external_peers = vec![peer];
        a.dns = Some(Dns { servers: vec![Dnsmasq::endpoint(NAME_SERVER.parse().unwrap())] });
        change(a);
    })
}

fn dnsmasq(scene: &Scene, addresses: &[IpAddr]) -> Dnsmasq {
    let place = scene.pair.world.a.host("names");
    let server = NAME_SERVER.parse().unwrap();
    Dnsmasq::start(&place, &scene.dir(), server, &records(addresses))
}

/// A host's `/etc`, as the agent sees it: the agent runs in a mount namespace of its own, over which this lies.
struct Etc(TempDir);

/// Without it, whoever does not answer is waited for.
const IMPATIENT: &str = "options timeout:1 attempts:1";

impl Etc {
    fn new(resolv_conf: &str) -> Self {
        let etc = Self(tempfile::tempdir().expect("a temporary directory"));
        fs::create_dir(etc.0.path().join("etc")).expect("a directory");
        etc.write("resolv.conf", resolv_conf);
        etc
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("etc")
    }

    /// Writes a file anew, as whoever manages it does: not in place.
    fn write(&self, name: &str, text: &str) {
        let new = self.0.path().join("new");
        fs::write(&new, format!("{text}\n")).expect("a file in /etc");
        fs::rename(&new, self.path().join(name)).expect("a file in /etc");
    }

    /// The agent's program, which sees this.
    fn sheath(&self) -> PathBuf {
        let script = self.0.path().join("sheath");
        let text = format!(
            "exec unshare --mount --propagation private sh -c \
             'mount --bind \"$0\" /etc && exec \"$@\"' {} {} \"$@\"",
            quoted(&self.path()),
            quoted(&binaries::sheath())
        );
        binaries::script(&script, &text);
        script
    }
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}

/// The usual scene of these, on a host with this `/etc`.
fn host_scene(pki: &Pki, etc: &Etc) -> Scene {
    scene_with(pki, None, |a| {
        a.dns = None;
        a.binary = etc.sheath();
    })
}

fn records(addresses: &[IpAddr]) -> Vec<(&'static str, IpAddr)> {
    addresses.iter().map(|address| (NAME, *address)).collect()
}

/// Whether policy knows the service's address: its mode is `require`. Asked with a socket that is bound to a device, which is
/// refused either way, so that nobody is dialled.
fn is_known(scene: &Scene, address: IpAddr) -> bool {
    let socket = Socket { device: Some(WIRE.to_owned()), ..Socket::default() };
    let to = SocketAddr::new(address, TLS_PORT);
    let job = Job::Client { socket, to, steps: Vec::new() };
    match probe::run(&scene.pair.client, &job).error {
        Some(libc::EOPNOTSUPP) => true,
        Some(libc::EPERM) => false,
        other => panic!("{to}: {other:?}"),
    }
}

fn wait_until_known(scene: &Scene, address: IpAddr) {
    let what = format!("{address} taken up");
    wait_until(&what, GENEROUS, || is_known(scene, address));
}

#[test]
fn a_service_is_reached_at_the_addresses_of_its_name() {
    let pki = Pki::new();
    let scene = scene(&pki, None);
    let addresses = FAMILIES.map(|family| scene.pair.world.b.addresses.of(family));
    let _dnsmasq = dnsmasq(&scene, &addresses);
    let tls = Tls::mutual(pki.issue(NAME), pki.authority());
    for family in FAMILIES {
        let route = scene.server_route(family);
        wait_until_known(&scene, route.listen.ip());
        let heard = scene.client_workload_is_served_by(&route, &nginx::terminating, &tls, PEER_ID);
        assert_eq!(tls::server_name(&heard.hello).as_deref(), Some(NAME));
    }
}

#[test]
fn a_service_that_moves_is_followed_when_the_time_to_live_is_over() {
    let pki = Pki::new();
    let scene = scene(&pki, None);
    let node = &scene.pair.world.b;
    let tls = Tls::mutual(pki.issue(NAME), pki.authority());
    for family in FAMILIES {
        let [old, new] = [node.addresses.of(family), node.extra.of(family)];
        let dnsmasq = dnsmasq(&scene, &[old]);
        wait_until_known(&scene, old);
        assert!(!is_known(&scene, new), "{new} is nobody's yet");

        dnsmasq.change(&records(&[new]));
        wait_until_known(&scene, new);
        let route = Route { listen: SocketAddr::new(new, TLS_PORT), ..scene.server_route(family) };
        scene.client_workload_is_served_by(&route, &nginx::terminating, &tls, PEER_ID);
    }
}

#[test]
fn addresses_of_an_unwanted_family_are_left_alone() {
    let pki = Pki::new();
    for (wanted, name) in [(Family::V4, "ipv4Only"), (Family::V6, "ipv6Only")] {
        let scene = scene(&pki, Some(name));
        let addresses = FAMILIES.map(|family| scene.pair.world.b.addresses.of(family));
        let _dnsmasq = dnsmasq(&scene, &addresses);
        wait_until_known(&scene, scene.pair.world.b.addresses.of(wanted));
        let known = addresses.map(|address| is_known(&scene, address));
        assert_eq!(known, FAMILIES.map(|family| family == wanted), "{name}");
    }
}

/// What was protected stays so when the agent starts anew and nobody answers for the name: mode `prefer`
/// would let it out.
#[test]
fn what_a_name_stood_for_stays_protected_over_a_restart() {
    let pki = Pki::new();
    let mut scene = scene_with(&pki, None, |a| {
        a.workloads[0].outbound.as_mut().expect("an outbound mode").mode = "prefer";
    });
    let address = scene.pair.world.b.addresses.of(Family::V4);
    let target = SocketAddr::new(address, TLS_PORT);
    let job = server(target, &[Step::Echo]);
    let _plaintext = Probe::start(&scene.place_b, &job);
    let names = dnsmasq(&scene, &[address]);
    wait_until("the address taken up", GENEROUS, || {
        scene.pair.connect(target, &say("x")).last().text != "x"
    });
    drop(names);
    let tap = scene.pair.world.tap();
    let secret = marker();
    let assert_protected = |scene: &Scene, when: &str| {
        let seen = scene.pair.connect(target, &say(&secret));
        assert_ne!(seen.last().text, secret, "{when}: {seen:?}");
        assert_eq!(tap.sightings(&secret), 0, "{when}");
    };
    scene.pair.agent_a.kill();
    assert_protected(&scene, "without an agent");
    scene.pair.agent_a.launch();
    assert_protected(&scene, "after the restart");
    // Nor does it matter who is asked from now on, or that a reload is refused.
    let nobody = SocketAddr::new(NAME_SERVER.parse().unwrap(), 5353);
    let output = scene.pair.agent_a.reload(|a| a.dns = Some(Dns { servers: vec![nobody] }));
    assert!(output.status.success(), "{output:?}");
    assert_protected(&scene, "with another resolver");
    let output = scene.pair.agent_a.reload(|a| a.node = "other".to_owned());
    assert!(!output.status.success());
    assert_protected(&scene, "after a refused reload");
}

/// The old name server still answers: that is no reason to go on asking it.
#[test]
fn other_name_servers_of_the_host_are_asked_from_the_moment_they_are_said() {
    let pki = Pki::new();
    let etc = Etc::new(&format!("nameserver {NAME_SERVER}"));
    let scene = host_scene(&pki, &etc);
    let node = &scene.pair.world.b;
    let [old, new] = [node.addresses.v4, node.extra.v4].map(IpAddr::from);
    let _old = dnsmasq(&scene, &[old]);
    wait_until_known(&scene, old);
    let elsewhere = scene.pair.world.a.extra.v4.into();
    let place = scene.pair.world.a.host("other-names");
    let _new = Dnsmasq::start(&place, &scene.dir(), elsewhere, &records(&[new]));
    etc.write("resolv.conf", &format!("nameserver {elsewhere}"));
    wait_until_known(&scene, new);
}

#[test]
fn what_makes_no_sense_in_resolv_conf_is_ignored_alone() {
    let pki = Pki::new();
    let etc = Etc::new(&format!(
        "search a..b %$ *.x\nnameserver 10.0.1.256\nnonsense\nnameserver {NAME_SERVER}\n{IMPATIENT}"
    ));
    let scene = host_scene(&pki, &etc);
    let address = scene.pair.world.b.addresses.v4.into();
    let _dnsmasq = dnsmasq(&scene, &[address]);
    wait_until_known(&scene, address);
}

#[test]
fn a_name_server_on_the_link_is_asked_by_way_of_its_interface() {
    let pki = Pki::new();
    for zone in [WIRE.to_owned(), String::new()] {
        let etc = Etc::new("");
        let scene = host_scene(&pki, &etc);
        let (a, b) = (&scene.pair.world.a, &scene.pair.world.b);
        b.netns.ip(&format!("addr add fe80::53/64 dev {WIRE} nodad\n"));
        // Whoever does not say which link is meant gets this one.
        a.netns.ip("link add decoy type veth peer name decoy2
             link set decoy up
             link set decoy2 up
             route add fe80::/64 dev decoy metric 1\n");
        let zone = if zone.is_empty() { a.netns.interface(WIRE).to_string() } else { zone };
        let address = b.addresses.v4.into();
        let names = records(&[address]);
        let _names = Dnsmasq::on_interface(&scene.place_b, &scene.dir(), WIRE, &names);
        etc.write("resolv.conf", &format!("nameserver fe80::53%{zone}\n{IMPATIENT}"));
        wait_until_known(&scene, address);
    }
}

#[test]
fn the_hosts_file_of_names_counts_and_is_followed() {
    let pki = Pki::new();
    let etc = Etc::new(&format!("nameserver {NAME_SERVER}\n{IMPATIENT}"));
    let scene = host_scene(&pki, &etc);
    let node = &scene.pair.world.b;
    // Nobody says anything of the name, and status does.
    let status = scene.pair.agent_a.wait_for_status("the reason", |status| {
        status.names.iter().any(|name| !name.problem.is_empty())
    });
    let name = &status.names[0];
    assert_eq!((name.name.as_str(), name.addresses.len()), (NAME, 0));
    assert!(name.problem.contains("no name server"), "{name:?}");
    let shown = scene.pair.agent_a.sheath("status", &[]);
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.contains(NAME) && shown.contains("not resolved: no name server"), "{shown}");
    for address in [node.addresses.v4.into(), node.extra.v4.into(), node.addresses.v6.into()] {
        etc.write("hosts", &format!("{address} other {NAME}."));
        wait_until_known(&scene, address);
    }
    scene.pair.agent_a.wait_for_status("no complaint", |status| status.names[0].problem.is_empty());
}
