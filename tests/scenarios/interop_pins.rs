//! An agent and an Envoy that each know the other by its self-signed certificate and nothing else, as
//! two proxies of an enterprise without a common authority are set up: certificates as
//! `openssl req -x509` makes them, ALPN `envoy`, and 250 ms to connect.

use std::path::Path;

use sheath_tests::ca::{PemFiles, fingerprint};
use sheath_tests::config::{ExternalPeer, StandardTls, TlsContext};
use sheath_tests::dissect::tls;
use sheath_tests::interop::envoy::Envoy;
use sheath_tests::interop::pki::Pki;
use sheath_tests::interop::scene::{SERVICE, Scene, TLS_PORT};
use sheath_tests::interop::{Program, Route, Tls};
use sheath_tests::pair::say;
use sheath_tests::world::{FAMILIES, Family};

const CONTEXT: &str = "pinned";
const ALPN: &str = "envoy";

/// Both certificates, and those of strangers.
struct Certificates {
    pki: Pki,
    agent: PemFiles,
    envoy: PemFiles,
}

impl Certificates {
    fn new() -> Self {
        let pki = Pki::new();
        let (agent, envoy) = (pki.self_signed("sheath.example"), pki.self_signed("envoy.example"));
        Self { pki, agent, envoy }
    }

    /// The usual pair of workloads, of which either knows Envoy alone.
    fn scene(&self) -> Scene {
        let context = TlsContext { name: CONTEXT.to_owned(), files: self.agent.clone() };
        let mut pinned = StandardTls::pinned(CONTEXT, self.envoy.certificate.clone());
        pinned.alpn = vec![ALPN];
        let mut peer = ExternalPeer::new("envoy", &SERVICE, pinned.clone());
        peer.connect_timeout = Some("250ms");
        Scene::with(|a, b| {
            a.peers.clear();
            a.tls_contexts = vec![context.clone()];
            a.external_peers = vec![peer];
            b.tls_contexts = vec![context];
            let inbound = b.workloads[0].inbound.as_mut().unwrap();
            inbound.allow.clear();
            inbound.tls = Some(pinned);
        })
    }

    /// How Envoy is set up.
    fn envoy(&self) -> Tls {
        Tls::mutual(self.envoy.clone(), self.agent.certificate.clone()).alpn(&[ALPN])
    }

    /// An Envoy that has lost its certificate, and uses another one.
    fn renewed(&self) -> Tls {
        let own = Some(self.pki.self_signed("envoy.example"));
        Tls { own, ..self.envoy() }
    }

    /// An Envoy that knows another agent.
    fn misled(&self) -> Tls {
        self.envoy().trusting(self.pki.self_signed("sheath.example").certificate)
    }
}

fn terminating(route: &Route, tls: &Tls) -> Program {
    Envoy::terminating(route, tls, &[]).connect_timeout("0.25s").start()
}

fn originating(route: &Route, tls: &Tls) -> Program {
    Envoy::originating(route, tls, &[]).connect_timeout("0.25s").start()
}

fn pin_of(certificate: &Path) -> String {
    format!("pin:sha256:{}", fingerprint(certificate))
}

#[test]
fn a_client_workload_reaches_an_envoy_that_is_pinned_and_pins_it() {
    let certificates = Certificates::new();
    let scene = certificates.scene();
    let peer_id = pin_of(&certificates.envoy.certificate);
    for family in FAMILIES {
        let (route, tls) = (scene.server_route(family), certificates.envoy());
        let heard = scene.client_workload_is_served_by(&route, &terminating, &tls, &peer_id);
        assert_eq!(tls::alpn_offered(&heard.hello), Some(vec![ALPN.to_owned()]));
    }
}

#[test]
fn an_envoy_that_is_pinned_and_pins_it_reaches_a_server_workload() {
    let certificates = Certificates::new();
    let scene = certificates.scene();
    let peer_id = pin_of(&certificates.envoy.certificate);
    for family in FAMILIES {
        let tls = certificates.envoy();
        scene.server_workload_is_reached_by(family, &originating, &tls, &peer_id);
    }
}

#[test]
fn an_envoy_with_another_certificate_than_the_pinned_one_is_refused() {
    let certificates = Certificates::new();
    let (scene, renewed) = (certificates.scene(), certificates.renewed());
    let steps = say("to nobody else");
    let line = scene.client_workload_gets_nothing(Family::V4, &renewed, &terminating, &steps);
    assert_eq!(line.outcome, "denied", "{line:?}");
    assert!(line.reason.contains("not pinned"), "{line:?}");
    let line = scene.server_workload_stays_unreached(Family::V6, &renewed, &originating);
    assert_eq!(line.outcome, "denied", "{line:?}");
    assert!(line.reason.contains("not pinned"), "{line:?}");
}

#[test]
fn an_envoy_that_pins_another_certificate_is_logged_with_its_alert() {
    let certificates = Certificates::new();
    let (scene, misled) = (certificates.scene(), certificates.misled());
    scene.alert_of_server_is_logged(Family::V6, &misled, &terminating, "unknown_ca");
    scene.alert_of_client_is_logged(Family::V4, &misled, &originating, "unknown_ca");
}

/// The address is on the wire's network, but nobody has it.
#[test]
fn a_connect_timeout_of_250_ms_is_kept() {
    let certificates = Certificates::new();
    let tls = StandardTls::pinned(CONTEXT, certificates.envoy.certificate.clone());
    let absent = format!("10.0.2.250:{TLS_PORT}");
    let mut peer = ExternalPeer::new("absent", &[absent.as_str()], tls);
    peer.connect_timeout = Some("250ms");
    let files = certificates.agent.clone();
    let scene = Scene::with(|a, _| {
        a.tls_contexts = vec![TlsContext { name: CONTEXT.to_owned(), files }];
        a.external_peers = vec![peer];
    });
    let seen = scene.pair.connect(absent.parse().unwrap(), &say("anybody?"));
    assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
    let line = scene.pair.agent_a.wait_for_access("the attempt", |line| line.destination == absent);
    assert_eq!(line.outcome, "refused", "{line:?}");
    // Without the limit the kernel gives up after three seconds.
    assert!((250.0..2500.0).contains(&line.duration_ms), "{line:?}");
}

#[test]
fn an_svid_of_the_own_trust_domain_is_nothing_to_a_workload_that_pins() {
    let certificates = Certificates::new();
    let scene = certificates.scene();
    let svid = scene.svid("client").trusting(certificates.agent.certificate.clone());
    let line = scene.server_workload_stays_unreached(Family::V4, &svid, &originating);
    assert_eq!(line.outcome, "denied", "{line:?}");
    assert!(line.reason.contains("not pinned"), "{line:?}");
}
