//! `openssl s_server` and `s_client` at the other end: applications that speak TLS themselves.

use sheath_tests::config::spiffe_id;
use sheath_tests::interop::openssl::{
    change_keys, s_client, s_client_that_obeys, s_server, s_server_that_obeys,
};
use sheath_tests::interop::scene::Scene;
use sheath_tests::interop::talk::{Side, Talk};
use sheath_tests::interop::{Program, Tls, Versions};
use sheath_tests::names;
use sheath_tests::pair::{self, PORT};
use sheath_tests::probe::Probe;
use sheath_tests::script::{Connection, Step};
use sheath_tests::status::Access;
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
    scene.alert_of_server_is_logged(Family::V4, &misled, &s_server, "unknown_ca");
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
    assert!(line.reason.contains("did not request a client certificate"), "{line:?}");
}

/// TLS 1.3's suites, by OpenSSL's name and by ours.
const SUITES: [(&str, &str); 3] = [
    ("TLS_AES_128_GCM_SHA256", "TLS13_AES_128_GCM_SHA256"),
    ("TLS_AES_256_GCM_SHA384", "TLS13_AES_256_GCM_SHA384"),
    ("TLS_CHACHA20_POLY1305_SHA256", "TLS13_CHACHA20_POLY1305_SHA256"),
];

/// Words of a conversation in which OpenSSL changes its keys before each of its own.
struct Words {
    ours: Vec<String>,
    theirs: Vec<String>,
}

impl Words {
    /// Long enough for several records of OpenSSL's.
    fn new() -> Self {
        let words =
            |kind: &str| (0..4).map(|_| format!("{kind} {}", names::marker().repeat(40))).collect();
        Self { ours: words("our"), theirs: words("an answer") }
    }

    /// What the application does that speaks first, or, the other way round, answers.
    fn steps(&self) -> Vec<Step> {
        let turns = self.ours.iter().zip(&self.theirs);
        turns
            .flat_map(|(ours, theirs)| [Step::Send(ours.clone()), Step::Receive(theirs.len())])
            .chain([Step::EndSending, Step::ReceiveToEnd])
            .collect()
    }

    /// What OpenSSL does: with tickets, padding and short records all along.
    #[track_caller]
    fn answer(&self, program: &mut Program) {
        for (turn, (ours, theirs)) in self.ours.iter().zip(&self.theirs).enumerate() {
            program.wait_for_log(ours);
            change_keys(program, turn % 2 == 0);
            program.say(theirs);
        }
    }

    #[track_caller]
    fn assert_heard(&self, application: &Connection, line: &Access, suite: &str) {
        assert_eq!(application.ended_by(), None, "{application:?}");
        for (turn, theirs) in self.theirs.iter().enumerate() {
            assert_eq!(&application.steps[2 * turn + 1].text, theirs);
        }
        assert_eq!((&*line.outcome, &*line.tls_suite), ("ok", suite), "{line:?}");
    }
}

#[test]
fn s_server_changes_keys_pads_and_sends_tickets_as_it_likes() {
    let scene = Scene::new();
    for (theirs, ours) in SUITES {
        let words = Words::new();
        let (route, svid) = (scene.server_route(Family::V4), scene.svid("web"));
        let mut server = s_server_that_obeys(&route, &svid, theirs);
        let job = pair::client(route.listen, &words.steps());
        let mut client = Probe::start(&scene.pair.client, &job);
        words.answer(&mut server);
        let seen = client.connection();
        let line = scene.access_at_a(seen.local.expect("the client's address"));
        words.assert_heard(&seen, &line, ours);
    }
}

#[test]
fn s_client_changes_keys_and_pads_as_it_likes() {
    let scene = Scene::new();
    for (theirs, ours) in SUITES {
        let words = Words::new();
        let (route, svid) = (scene.client_route(Family::V4), scene.svid("client"));
        let mut web = scene.pair.serve(Family::V4, &words.steps());
        let tap = scene.pair.world.tap();
        let mut client = s_client_that_obeys(&route, &svid, theirs);
        words.answer(&mut client);
        let seen = web.connection();
        let line = scene.access_at_b(tap.attempts(PORT)[0]);
        words.assert_heard(&seen, &line, ours);
    }
}
