//! Envoy at the other end: with SPIFFE IDs from one CA, as an enterprise with SPIRE runs it.

use sheath_tests::ca::San;
use sheath_tests::config::spiffe_id;
use sheath_tests::interop::envoy::Envoy;
use sheath_tests::interop::scene::{PLAIN_PORT, Scene, TLS_PORT};
use sheath_tests::interop::{Program, Route, Tls};
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::names::marker;
use sheath_tests::pair::PORT;
use sheath_tests::programs::{self, Nginx};
use sheath_tests::world::{FAMILIES, Family};

/// An Envoy that takes nobody but the workload `client` for its client.
fn terminating(route: &Route, tls: &Tls) -> Program {
    Envoy::terminating(route, tls, &[id("client")]).start()
}

/// An Envoy that takes nobody but the workload `web` for its server.
fn originating(route: &Route, tls: &Tls) -> Program {
    Envoy::originating(route, tls, &[id("web")]).start()
}

fn id(name: &str) -> San {
    San::Uri(spiffe_id(name))
}

#[test]
fn a_client_workload_reaches_a_service_behind_envoy() {
    let scene = Scene::new();
    for family in FAMILIES {
        scene.client_workload_is_served(family, &terminating);
    }
}

#[test]
fn an_envoy_client_reaches_a_server_workload() {
    let scene = Scene::new();
    for family in FAMILIES {
        scene.server_workload_is_reached(family, &originating);
    }
}

#[test]
fn much_data_passes_envoy_in_both_directions_at_once() {
    let scene = Scene::new();
    scene.client_workload_hears_its_echo(Family::V4, &terminating);
    scene.server_workload_echoes(Family::V6, &originating);
}

#[test]
fn a_plaintext_http_client_reaches_a_service_behind_envoy() {
    let scene = Scene::new();
    let page = marker();
    let _nginx = Nginx::start(&scene.place_b, &scene.dir(), PLAIN_PORT, &page);
    for family in FAMILIES {
        let route = scene.server_route(family);
        let expect = [id("client")];
        let _envoy = Envoy::terminating(&route, &scene.svid("web"), &expect).http().start();
        let tap = scene.pair.world.tap();
        let answer = programs::get(&scene.pair.client, route.listen);
        assert!(answer.contains(&page) && answer.contains("server: envoy"), "{answer}");
        assert_ciphertext(&tap, TLS_PORT, &page);
    }
}

#[test]
fn a_plaintext_http_server_is_reached_by_an_envoy_client() {
    let scene = Scene::new();
    let page = marker();
    let nginx = Nginx::start(&scene.pair.server, &scene.dir(), PORT, &page);
    for family in FAMILIES {
        let route = scene.client_route(family);
        let expect = [id("web")];
        let _envoy = Envoy::originating(&route, &scene.svid("client"), &expect).http().start();
        let tap = scene.pair.world.tap();
        let answer = programs::get(&scene.place_a, route.listen);
        assert!(answer.contains(&page) && answer.contains("server: envoy"), "{answer}");
        assert_ciphertext(&tap, PORT, &page);
        nginx.wait_for_client(tap.attempts(PORT)[0]);
    }
}

#[test]
fn an_envoy_server_with_a_wrong_certificate_is_refused() {
    Scene::new().wrong_servers_are_refused(Family::V4, &terminating);
}

#[test]
fn an_envoy_client_with_a_wrong_certificate_is_refused() {
    Scene::new().wrong_clients_are_refused(Family::V6, &originating);
}

/// Envoy insists on the post-quantum group; that an agent prefers it is seen between agents.
#[test]
fn envoy_and_an_agent_agree_on_a_key_by_x25519mlkem768() {
    const GROUP: &str = "X25519MLKEM768";
    let scene = Scene::new();
    for family in FAMILIES {
        let (route, tls) = (scene.server_route(family), scene.svid("web").curves(&[GROUP]));
        let web = spiffe_id("web");
        let heard = scene.client_workload_is_served_by(&route, &terminating, &tls, &web);
        assert_eq!(heard.line.tls_group, GROUP);
        let tls = scene.svid("client").curves(&[GROUP]);
        let client = spiffe_id("client");
        let heard = scene.server_workload_is_reached_by(family, &originating, &tls, &client);
        assert_eq!(heard.line.tls_group, GROUP);
    }
}

/// The other way round: Envoy does not know the workload's authority, or expects somebody else.
#[test]
fn an_envoy_server_that_refuses_the_client_workload_is_logged() {
    let scene = Scene::new();
    let misled = scene.misled("web");
    scene.alert_of_server_is_logged(Family::V6, &misled, &terminating, "unknown_ca");
    let svid = scene.svid("web");
    let other = |route: &Route, tls: &Tls| Envoy::terminating(route, tls, &[id("other")]).start();
    scene.alert_of_server_is_logged(Family::V6, &svid, &other, "certificate_unknown");
}

#[test]
fn an_envoy_client_that_refuses_the_server_workload_is_logged() {
    let scene = Scene::new();
    let misled = scene.misled("client");
    scene.alert_of_client_is_logged(Family::V4, &misled, &originating, "unknown_ca");
    let svid = scene.svid("client");
    let other = |route: &Route, tls: &Tls| Envoy::originating(route, tls, &[id("other")]).start();
    scene.alert_of_client_is_logged(Family::V4, &svid, &other, "certificate_unknown");
}
