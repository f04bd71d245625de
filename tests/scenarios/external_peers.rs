//! Services without an agent, in what they can be told apart from agents by: certificates of a private
//! authority with DNS names, TLS 1.2, one-way TLS, certificates by server name, suites and curves.

use sheath_tests::ca::San;
use sheath_tests::config::{Expect, ExternalPeer, StandardTls, TlsContext, Trust, spiffe_id};
use sheath_tests::dissect::tls;
use sheath_tests::interop::envoy::Envoy;
use sheath_tests::interop::openssl::{s_server, s_server_by_name};
use sheath_tests::interop::pki::Pki;
use sheath_tests::interop::scene::{SERVICE, Scene};
use sheath_tests::interop::{Program, Route, Start, Tls, Versions, nginx, stunnel};
use sheath_tests::pair::{say, server};
use sheath_tests::probe::Probe;
use sheath_tests::script::Step;
use sheath_tests::world::{FAMILIES, Family, TRUST_DOMAIN};

const SERVER: &str = "billing.example.com";
const CLIENT: &str = "client.example.com";
const PEER_ID: &str = "dns:billing.example.com";
const CONTEXT: &str = "billing-client";

/// The usual pair of workloads, of which the client knows one external peer, with mutual TLS.
fn scene(pki: &Pki, change: impl FnOnce(&mut ExternalPeer)) -> Scene {
    let tls = StandardTls::named(CONTEXT, pki.authority(), SERVER);
    let mut peer = ExternalPeer::new("billing", &SERVICE, tls);
    peer.sni = Some(SERVER.to_owned());
    change(&mut peer);
    let files = pki.issue(CLIENT);
    Scene::with(|a, _| {
        a.peers.clear();
        a.tls_contexts = vec![TlsContext { name: CONTEXT.to_owned(), files }];
        a.external_peers = vec![peer];
    })
}

/// The service as it should be.
fn service(pki: &Pki) -> Tls {
    Tls::mutual(pki.issue(SERVER), pki.authority())
}

/// An Envoy that takes nobody but [`CLIENT`] for its client.
fn envoy(route: &Route, tls: &Tls) -> Program {
    Envoy::terminating(route, tls, &[San::dns(CLIENT)]).start()
}

#[test]
fn services_of_a_private_authority_are_reached_with_either_version_of_tls() {
    let pki = Pki::new();
    let scene = scene(&pki, |peer| peer.tls.min_version = Some("1.2"));
    let programs: [Start<'_>; 3] = [&envoy, &nginx::terminating, &stunnel::terminating];
    for versions in [Versions::Tls12, Versions::Tls13] {
        let tls = service(&pki).versions(versions);
        for family in FAMILIES {
            let route = scene.server_route(family);
            for program in programs {
                scene.client_workload_is_served_by(&route, program, &tls, PEER_ID);
            }
            scene.client_workload_talks_with(&route, &s_server, &tls, PEER_ID);
        }
    }
}

/// Records of TLS 1.2 are left to a library, which must not stop at urgent data of the application either.
#[test]
fn what_is_behind_urgent_data_does_not_wait_for_more_in_tls_1_2() {
    let pki = Pki::new();
    let scene = scene(&pki, |peer| peer.tls.min_version = Some("1.2"));
    let route = scene.server_route(Family::V4);
    let _echo = Probe::start(&scene.place_b, &server(route.forward, &[Step::Echo]));
    let _service = stunnel::terminating(&route, &service(&pki).versions(Versions::Tls12));
    let steps = [
        Step::Send("before".into()),
        Step::Urgent(b'!'),
        Step::Send("behind".into()),
        Step::Receive(13),
    ];
    let seen = scene.pair.connect(route.listen, &steps);
    assert_eq!((seen.ended_by(), &*seen.last().text), (None, "before!behind"));
}

/// As for a public service: its authority is one of the many that the system trusts.
#[test]
fn the_systems_authorities_vouch_for_a_service_by_its_name() {
    let pki = Pki::new();
    let authority = pki.authority();
    let scene = Scene::with(|a, _| {
        let mut tls = StandardTls::named(CONTEXT, authority.clone(), SERVER);
        tls.trust = Some(Trust::System(true));
        tls.certificate = Some("none".to_owned());
        a.peers.clear();
        a.external_peers = vec![ExternalPeer::new("billing", &SERVICE, tls)];
        a.environment = vec![("SSL_CERT_FILE", authority.clone())];
    });
    let tls = Tls::one_way(pki.issue(SERVER));
    let route = scene.server_route(Family::V4);
    scene.client_workload_is_served_by(&route, &nginx::terminating, &tls, PEER_ID);
    let tls = Tls::one_way(pki.issue("other.example.com"));
    let refused =
        scene.client_workload_gets_nothing(Family::V4, &tls, &nginx::terminating, &say("hello"));
    assert!(refused.reason.contains("none of the names"), "{refused:?}");
}

/// With a SPIFFE ID and every rule that goes with it, and as a mere URI name.
#[test]
fn a_service_is_known_by_its_spiffe_id_or_its_uri() {
    let id = spiffe_id("web");
    for by_uri in [true, false] {
        let scene = Scene::with(|a, _| {
            let (trust, expect) = if by_uri {
                let expect = Expect { uris: vec![id.clone()], ..Expect::default() };
                (Trust::Bundle(a.ca_dir().join("ca.crt")), expect)
            } else {
                let expect = Expect { spiffe_ids: vec![id.clone()], ..Expect::default() };
                (Trust::TrustDomain(TRUST_DOMAIN.to_owned()), expect)
            };
            let tls =
                StandardTls { trust: Some(trust), expect: Some(expect), ..StandardTls::default() };
            a.peers.clear();
            a.external_peers = vec![ExternalPeer::new("web", &SERVICE, tls)];
        });
        let peer_id = if by_uri { format!("uri:{id}") } else { id.clone() };
        let route = scene.server_route(Family::V4);
        // Our side shows the workload's own certificate, which is what the service asks for.
        let server = |route: &Route, tls: &Tls| {
            Envoy::terminating(route, tls, &[San::Uri(spiffe_id("client"))]).start()
        };
        scene.client_workload_is_served_by(&route, &server, &scene.svid("web"), &peer_id);
        let other = scene.svid("other");
        let line = scene.client_workload_gets_nothing(Family::V4, &other, &server, &say("hello"));
        let rule = if by_uri { "none of the names" } else { "not expected here" };
        assert!(line.reason.contains(rule), "{line:?}");
    }
}

#[test]
fn tls_1_2_is_refused_where_it_is_not_allowed() {
    let pki = Pki::new();
    let scene = scene(&pki, |_| {});
    let tls = service(&pki).versions(Versions::Tls12);
    let line =
        scene.client_workload_gets_nothing(Family::V4, &tls, &nginx::terminating, &say("hello"));
    assert_eq!(line.outcome, "denied", "{line:?}");
    assert!(line.reason.to_lowercase().contains("version"), "{line:?}");
}

#[test]
fn a_service_with_a_wrong_certificate_is_refused() {
    let (pki, elsewhere) = (Pki::new(), Pki::new());
    let scene = scene(&pki, |_| {});
    for (own, rule) in [
        (pki.issue("other.example.com"), "none of the names"),
        (elsewhere.issue(SERVER), "does not chain"),
        (pki.self_signed(SERVER), "does not chain"),
    ] {
        let tls = Tls { own: Some(own), ..service(&pki) };
        let line = scene.client_workload_gets_nothing(Family::V6, &tls, &envoy, &say("hello"));
        assert_eq!(line.outcome, "denied", "{line:?}");
        assert!(line.reason.contains(rule), "no {rule:?} in {line:?}");
    }
}

#[test]
fn the_server_name_selects_the_certificate() {
    let pki = Pki::new();
    let scene = scene(&pki, |_| {});
    let by_name = pki.issue(SERVER);
    let other = Tls::mutual(pki.issue("other.example.com"), pki.authority());
    let server = |route: &Route, tls: &Tls| s_server_by_name(route, tls, SERVER, &by_name);
    for family in FAMILIES {
        let route = scene.server_route(family);
        let heard = scene.client_workload_talks_with(&route, &server, &other, PEER_ID);
        assert_eq!(tls::server_name(&heard.hello).as_deref(), Some(SERVER));
    }
}

#[test]
fn without_a_server_name_the_service_shows_whatever_it_has() {
    let pki = Pki::new();
    let scene = scene(&pki, |peer| peer.sni = None);
    let by_name = pki.issue(SERVER);
    let other = Tls::mutual(pki.issue("other.example.com"), pki.authority());
    let server = |route: &Route, tls: &Tls| s_server_by_name(route, tls, SERVER, &by_name);
    let line = scene.client_workload_gets_nothing(Family::V4, &other, &server, &say("hello"));
    assert!(line.reason.contains("none of the names"), "{line:?}");
}

#[test]
fn one_way_tls_to_nginx() {
    let pki = Pki::new();
    let scene = scene(&pki, |peer| peer.tls.certificate = Some("none".to_owned()));
    let tls = Tls::one_way(pki.issue(SERVER));
    for family in FAMILIES {
        let route = scene.server_route(family);
        scene.client_workload_is_served_by(&route, &nginx::terminating, &tls, PEER_ID);
    }
    // Who asks for a certificate after all is told that there is none.
    let line = scene.client_workload_gets_nothing(
        Family::V4,
        &service(&pki),
        &s_server,
        &[Step::ReceiveToEnd],
    );
    assert!(line.reason.contains("alert certificate_required"), "{line:?}");
}

#[test]
fn a_cipher_suite_and_curves_can_be_demanded() {
    const SUITE: &str = "ECDHE-ECDSA-AES256-GCM-SHA384";
    let pki = Pki::new();
    // P-256 is for the certificates' own keys.
    let demanding = |suite: &'static str| {
        scene(&pki, |peer| {
            peer.tls.min_version = Some("1.2");
            peer.tls.cipher_suites = vec![suite];
            peer.tls.curves = vec!["P-384", "P-256"];
        })
    };
    let tls = service(&pki).versions(Versions::Tls12).ciphers(&[SUITE]).curves(&["P-384", "P-256"]);

    let scene = demanding(SUITE);
    let route = scene.server_route(Family::V4);
    let line = scene.client_workload_talks_with(&route, &s_server, &tls, PEER_ID).line;
    let negotiated = (line.tls_suite.as_str(), line.tls_group.as_str());
    assert_eq!(negotiated, ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "secp384r1"));

    let scene = demanding("ECDHE-ECDSA-CHACHA20-POLY1305");
    let line = scene.client_workload_gets_nothing(Family::V6, &tls, &s_server, &say("hello"));
    assert!(line.reason.contains("alert handshake_failure"), "{line:?}");
}
