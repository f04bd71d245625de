//! `openssl s_server` and `s_client` at the other end: applications that speak TLS themselves.

use sheath_tests::interop::Versions;
use sheath_tests::interop::openssl::{s_client, s_server};
use sheath_tests::interop::scene::{Scene, TLS_PORT};
use sheath_tests::interop::talk::{Side, Talk};
use sheath_tests::pair::{self, PORT};
use sheath_tests::probe::Probe;
use sheath_tests::script::Step;
use sheath_tests::world::{FAMILIES, Family};

#[test]
fn a_client_workload_talks_with_s_server() {
    let scene = Scene::new();
    for family in FAMILIES {
        let (route, talk) = (scene.server_route(family), Talk::ended_by(Side::Client));
        let mut server = s_server(&route, &scene.svid("web"));
        let tap = scene.pair.world.tap();
        let job = pair::client(route.listen, &talk.client());
        let mut client = Probe::start(&scene.pair.client, &job);
        server.wait_for_log(&talk.question);
        server.say(&talk.answer);

        let seen = client.connection();
        talk.assert_answered(&seen);
        talk.assert_tls(&tap, TLS_PORT, Versions::Tls13);
        talk.assert_logged(&scene.access_at_a(seen.local.unwrap()), "web");
    }
}

#[test]
fn s_client_talks_with_a_server_workload() {
    let scene = Scene::new();
    for family in FAMILIES {
        let (route, talk) = (scene.client_route(family), Talk::ended_by(Side::Server));
        let mut web = scene.pair.serve(family, &talk.server());
        let tap = scene.pair.world.tap();
        let mut client = s_client(&route, &scene.svid("client"));
        client.say(&talk.question);
        client.wait_for_log(&talk.answer);

        assert!(client.wait().success(), "{}", client.log());
        talk.assert_asked(&web.connection());
        talk.assert_tls(&tap, PORT, Versions::Tls13);
        talk.assert_logged(&scene.access_at_b(tap.attempts(PORT)[0]), "client");
    }
}

#[test]
fn s_server_with_a_wrong_certificate_is_refused() {
    Scene::new().wrong_servers_are_refused(Family::V6, &s_server);
}

#[test]
fn s_client_with_a_wrong_certificate_is_refused() {
    let scene = Scene::new();
    for refusal in scene.refusals("client") {
        let route = scene.client_route(Family::V4);
        let banner = [Step::Send("a banner".into()), Step::ReceiveToEnd];
        let mut web = scene.pair.serve(Family::V4, &banner);
        let tap = scene.pair.world.tap();
        let mut client = s_client(&route, &refusal.tls);
        assert!(!client.wait().success(), "{}: {}", refusal.name, client.log());
        assert!(!client.log().contains("a banner"), "{}: {}", refusal.name, client.log());
        refusal.assert_logged(&scene.access_at_b(tap.attempts(PORT)[0]));
        assert_eq!(web.pending(), 0, "{}: reached the application", refusal.name);
    }
}

/// The other way round: s_server does not know the workload's authority.
#[test]
fn s_server_that_refuses_the_client_workload_is_logged() {
    let scene = Scene::new();
    let misled = scene.misled("web");
    scene.alert_of_server_is_logged(Family::V4, &misled, &s_server, "UnknownCA");
}
