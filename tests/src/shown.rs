//! Which certificate a workload shows, seen from the other end of the wire.

use rustls::pki_types::CertificateDer;

use crate::ca::Leaf;
use crate::pair::{Pair, say};
use crate::rogue::{Dial, End, Face, RogueServer};
use crate::world::Family;

/// A port of the server's node where no workload lives.
const PORT: u16 = 9443;

/// What the server workload shows to somebody with this certificate, who must be served by an echo.
#[track_caller]
pub fn by_server(pair: &Pair, caller: &Leaf) -> CertificateDer<'static> {
    let dial = Dial {
        netns: &pair.world.a.netns,
        to: pair.target(Family::V4),
        leaf: Some(caller),
        alpn: &["sheath/0"],
        send: "who are you",
        end: End::CloseNotify,
    };
    let answer = dial.run();
    assert_eq!(answer.received, "who are you", "{answer:?}");
    answer.certificate.expect("a certificate of the server")
}

/// What the client workload shows to a server with this certificate, which must be expected.
#[track_caller]
pub fn by_client(pair: &Pair, server: &Leaf) -> CertificateDer<'static> {
    let listen = pair.world.b.addresses.at(Family::V4, PORT);
    let face = Face::Tls(server.clone());
    let server = RogueServer::start(&pair.world.b.netns, listen, face, "hello", End::CloseNotify);
    let seen = pair.connect(listen, &say("who am I"));
    assert_eq!((seen.ended_by(), seen.last().text.as_str()), (None, "hello"), "{seen:?}");
    let session = server.sessions(1).remove(0);
    session.client_certificate.expect("a certificate of the client")
}
