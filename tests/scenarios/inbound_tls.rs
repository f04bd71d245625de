//! Clients without an agent, at a server workload that expects them by their DNS name: the mirror image
//! of external peers.

use sheath_tests::ca::San;
use sheath_tests::config::{Inbound, StandardTls, TlsContext, spiffe_id};
use sheath_tests::interop::envoy::Envoy;
use sheath_tests::interop::openssl::{s_client, s_server};
use sheath_tests::interop::pki::Pki;
use sheath_tests::interop::scene::Scene;
use sheath_tests::interop::{Program, Route, Start, Tls, Versions, nginx, stunnel};
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::names::marker;
use sheath_tests::pair::PORT;
use sheath_tests::programs::{self, Nginx};
use sheath_tests::script::Step;
use sheath_tests::wait::{GENEROUS, wait_for};
use sheath_tests::world::{FAMILIES, Family};

const SERVER: &str = "web.example.com";
const CLIENT: &str = "partner.example.com";
const PEER_ID: &str = "dns:partner.example.com";
const CONTEXT: &str = "web";

/// The usual pair of workloads, of which the server expects [`CLIENT`] beside the client workload.
fn scene(pki: &Pki) -> Scene {
    scene_with(pki, |_| {})
}

fn scene_with(pki: &Pki, change: impl FnOnce(&mut Inbound)) -> Scene {
    let mut tls = StandardTls::named(CONTEXT, pki.authority(), CLIENT);
    tls.alpn = vec!["h2", "http/1.1"];
    tls.min_version = Some("1.2");
    let files = pki.issue(SERVER);
    Scene::with(|_, b| {
        b.tls_contexts = vec![TlsContext { name: CONTEXT.to_owned(), files }];
        let inbound = b.workloads[0].inbound.as_mut().unwrap();
        inbound.tls = Some(tls);
        change(inbound);
    })
}

/// The client as it should be.
fn partner(pki: &Pki) -> Tls {
    Tls::mutual(pki.issue(CLIENT), pki.authority())
}

/// An Envoy that takes nobody but [`SERVER`] for its server.
fn envoy(route: &Route, tls: &Tls) -> Program {
    Envoy::originating(route, tls, &[San::dns(SERVER)]).start()
}

#[test]
fn standard_clients_of_a_private_authority_are_served_with_either_version_of_tls() {
    let pki = Pki::new();
    let scene = scene(&pki);
    let nginx = |route: &Route, tls: &Tls| nginx::originating(route, tls, SERVER);
    let programs: [Start<'_>; 3] = [&envoy, &nginx, &stunnel::originating];
    for versions in [Versions::Tls12, Versions::Tls13] {
        let tls = partner(&pki).versions(versions);
        for (family, program) in FAMILIES.into_iter().cycle().zip(programs) {
            scene.server_workload_is_reached_by(family, program, &tls, PEER_ID);
        }
    }
}

#[test]
fn an_agent_is_served_on_the_same_port() {
    let pki = Pki::new();
    let scene = scene(&pki);
    for family in FAMILIES {
        let _web = scene.pair.serve(family, &[Step::Send("welcome".into())]);
        let seen = scene.pair.connect(scene.pair.target(family), &[Step::ReceiveToEnd]);
        assert_eq!(seen.last().text, "welcome", "{seen:?}");
        let line = scene.access_at_b(seen.local.unwrap());
        assert_eq!(line.peer_id, spiffe_id("client"), "{line:?}");
    }
}

#[test]
fn an_envoy_client_speaks_http2_with_a_plaintext_server() {
    let pki = Pki::new();
    let scene = scene(&pki);
    let page = marker();
    let nginx = Nginx::start_http2(&scene.pair.server, &scene.dir(), PORT, &page);
    for family in FAMILIES {
        let route = scene.client_route(family);
        let tls = partner(&pki).alpn(&["h2"]);
        let envoy = Envoy::originating(&route, &tls, &[San::dns(SERVER)]).sni(SERVER).http2();
        let _envoy = envoy.start();
        let tap = scene.pair.world.tap();
        let answer = programs::get(&scene.place_a, route.listen);
        assert!(answer.contains(&page) && answer.contains("server: envoy"), "{answer}");
        assert_ciphertext(&tap, PORT, &page);
        nginx.wait_for_client(tap.attempts(PORT)[0]);
    }
}

#[test]
fn the_first_protocol_that_both_sides_know_is_selected() {
    let pki = Pki::new();
    let scene = scene(&pki);
    let _web = scene.pair.serve(Family::V4, &[Step::Send("welcome".into())]);
    for (offered, selected) in [(["http/1.1", "h2"], "h2"), (["spdy/1", "http/1.1"], "http/1.1")] {
        let route = scene.client_route(Family::V4);
        let mut client = s_client(&route, &partner(&pki).alpn(&offered));
        client.wait();
        let said = client.log();
        assert!(said.contains(&format!("ALPN protocol: {selected}\n")), "{said}");
        assert!(said.contains("welcome"), "{said}");
    }
}

#[test]
fn a_standard_client_with_a_wrong_certificate_is_refused() {
    let (pki, elsewhere) = (Pki::new(), Pki::new());
    let scene = scene_with(&pki, |inbound| inbound.allow.clear());
    for (own, rule) in [
        (Some(pki.issue("other.example.com")), "none of the names"),
        (Some(elsewhere.issue(CLIENT)), "does not chain"),
        (Some(pki.self_signed(CLIENT)), "does not chain"),
        (None, "no certificate"),
    ] {
        let tls = Tls { own, ..partner(&pki) };
        let line = scene.server_workload_stays_unreached(Family::V6, &tls, &envoy);
        assert_eq!(line.outcome, "denied", "{line:?}");
        assert!(line.reason.contains(rule), "no {rule:?} in {line:?}");
    }
}

/// What a permissive port is asked by a client that speaks TLS, and whose TLS it turns out to be.
#[test]
fn a_permissive_port_takes_the_protocols_it_knows_and_leaves_other_tls_to_the_application() {
    let pki = Pki::new();
    let scene = scene_with(&pki, |inbound| inbound.mode = "permissive");
    let mine = Tls::mutual(pki.issue("own.example.com"), pki.authority());
    // The application speaks TLS itself, with a certificate of its own.
    let own = Route::new(
        &scene.pair.server,
        scene.pair.target(Family::V4),
        scene.pair.target(Family::V4),
        &scene.dir(),
    );
    let _application = s_server(&own, &mine);
    for (round, (offered, protection)) in
        [(&["h2"][..], "mtls"), (&["spdy/1"], "passthrough"), (&[], "passthrough")]
            .into_iter()
            .enumerate()
    {
        let route = scene.client_route(Family::V4);
        let client = s_client(&route, &partner(&pki).alpn(offered));
        client.wait_for_log("Verify return code");
        drop(client);
        let agent = &scene.pair.agent_b;
        let line =
            wait_for("the end of the flow", GENEROUS, || agent.access().into_iter().nth(round));
        assert_eq!(line.protection, protection, "{offered:?}: {line:?}");
    }
}

#[test]
fn a_permissive_port_that_is_named_takes_every_tls() {
    let pki = Pki::new();
    let scene = scene_with(&pki, |inbound| {
        inbound.mode = "permissive";
        inbound.tls.as_mut().expect("inbound.tls").ports = vec![PORT];
    });
    scene.server_workload_is_reached_by(Family::V4, &envoy, &partner(&pki), PEER_ID);
    // Plaintext passes as it always does.
    let _web = scene.pair.serve(Family::V6, &[Step::Send("welcome".into())]);
    let stranger = sheath_tests::pair::client(scene.pair.target(Family::V6), &[Step::ReceiveToEnd]);
    let seen = sheath_tests::probe::run(&scene.place_a, &stranger);
    assert_eq!(seen.last().text, "welcome", "{seen:?}");
}

/// Where more than one kind of client is expected, the reason is also about the kind that it wanted to be.
#[test]
fn a_refusal_names_the_rule_that_a_standard_client_broke_also_where_agents_are_expected() {
    let pki = Pki::new();
    let tls = Tls { own: Some(pki.issue("other.example.com")), ..partner(&pki) };
    let line = scene(&pki).server_workload_stays_unreached(Family::V4, &tls, &envoy);
    assert!(line.reason.contains("none of the names"), "{line:?}");
}
