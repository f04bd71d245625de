//! `openssl s_server` and `s_client` at the other end: applications that speak TLS themselves.

use sheath_tests::config::spiffe_id;
use sheath_tests::interop::openssl::{s_client, s_server};
use sheath_tests::interop::scene::Scene;
use sheath_tests::interop::talk::{Side, Talk};
use sheath_tests::interop::{Tls, Versions};
use sheath_tests::pair::PORT;
use sheath_tests::script::Step;
use sheath_tests::world::{FAMILIES, Family};

#[test]
fn a_client_workload_talks_with_s_server() {
    let scene = Scene::new();
    for family in FAMILIES {
        let (route, svid) = (scene.server_route(family), scene.svid("web"));
        scene.client_workload_talks_with(&route, &s_server, &svid, &spiffe_id("web"));
    }
}

#[test]
fn s_client_talks_with_a_server_workload() {
    let scene = Scene::new();
    for family in FAMILIES {
        let (route, talk) = (scene.client_route(family), Talk::ended_by(Side::Server));
        let mut web = scene.pair.serve(family, &talk.server());
        let tap = scene.pair.world.tap();
        let svid = scene.svid("client");
        let mut client = s_client(&route, &svid);
        client.say(&talk.question);
        client.wait_for_log(&talk.answer);

        assert!(client.wait().success(), "{}", client.log());
        talk.assert_asked(&web.connection());
        talk.assert_tls(&tap, PORT, Versions::Tls13);
        talk.assert_logged(&scene.access_at_b(tap.attempts(PORT)[0]), &spiffe_id("client"), &svid);
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

/// Mutual means both: a server with the right certificate that does not ask for ours serves anybody.
#[test]
fn a_peer_that_does_not_ask_who_we_are_is_refused() {
    let scene = Scene::new();
    let asking = scene.svid("web");
    let tls = Tls { trust: None, ..asking };
    let line =
        scene.client_workload_gets_nothing(Family::V4, &tls, &s_server, &[Step::ReceiveToEnd]);
    assert_eq!(line.outcome, "denied", "{line:?}");
    assert!(line.reason.contains("did not ask who we are"), "{line:?}");
}
