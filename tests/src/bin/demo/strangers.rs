//! Peers that are not who they should be.

use sheath_tests::ca::Leaf;
use sheath_tests::config::spiffe_id;
use sheath_tests::rogue::{Dial, End, Face, RogueServer, credentials};
use sheath_tests::world::Family;

use crate::report::Report;
use crate::scene::Scene;

/// A port of node B where no workload lives.
const ROGUE_PORT: u16 = 9443;

pub fn are_refused(scene: &Scene, report: &mut Report) {
    report.section("Strangers");
    plaintext_client(scene, report);
    clients(scene, report);
    server(scene, report);
}

/// Same node, same address as the client, but not the client's cgroup.
fn plaintext_client(scene: &Scene, report: &mut Report) {
    let prelude = &scene.prelude;
    let stranger = prelude.world.a.host("stranger");
    let fetch = prelude.curl(&stranger, prelude.http(Family::V4));
    let ok = fetch.page.is_empty() && !fetch.error.is_empty();
    report.check("curl outside of the workload", ok, outcome(&fetch.page, &fetch.error));
}

fn clients(scene: &Scene, report: &mut Report) {
    let prelude = &scene.prelude;
    let tls = |leaf: Option<&Leaf>| {
        Dial {
            netns: &prelude.world.a.netns,
            to: prelude.http(Family::V4),
            leaf,
            alpn: &[],
            send: "GET / HTTP/1.0\r\n\r\n",
            end: End::CloseNotify,
        }
        .run()
    };
    for credential in credentials(prelude.world.ca(), &spiffe_id("client")) {
        let answer = tls(credential.leaf.as_ref());
        let error = answer.error.unwrap_or_default();
        let ok = answer.received.is_empty() && !error.is_empty();
        report.check(client_name(credential.name), ok, outcome(&answer.received, &error));
    }
    let answer = tls(Some(&prelude.world.ca().issue(&spiffe_id("client"))));
    let ok = answer.received.contains(&prelude.secret);
    let error = answer.error.unwrap_or_default();
    report.check("a client with the right one", ok, outcome(&answer.received, &error));
}

fn client_name(credential: &str) -> &'static str {
    match credential {
        "no certificate" => "a client without a certificate",
        "another identity" => "... of another identity",
        "another trust domain" => "... of another trust domain",
        "expired" => "... with an expired one",
        _ => "... of an unknown authority",
    }
}

/// The client asks for nginx and finds somebody else with a certificate of the same authority.
fn server(scene: &Scene, report: &mut Report) {
    let prelude = &scene.prelude;
    let listen = prelude.world.b.addresses.at(Family::V4, ROGUE_PORT);
    let leaf = prelude.world.ca().issue(&spiffe_id("somebody-else"));
    let netns = &prelude.world.b.netns;
    let rogue = RogueServer::start(
        netns,
        listen,
        Face::Tls(leaf),
        "HTTP/1.0 200\r\n\r\n",
        End::CloseNotify,
    );
    let fetch = prelude.curl(&prelude.client, listen);
    let received: usize = rogue.sessions(1).iter().map(|session| session.received.len()).sum();
    let ok = received == 0 && fetch.page.is_empty() && !fetch.error.is_empty();
    let seen = format!("got {received} bytes; curl: {}", fetch.error);
    report.check("a server of another identity", ok, seen);
}

fn outcome(received: &str, error: &str) -> String {
    match (received.len(), error) {
        (bytes, "") => format!("got {bytes} bytes"),
        (bytes, error) => format!("got {bytes} bytes; {error}"),
    }
}
