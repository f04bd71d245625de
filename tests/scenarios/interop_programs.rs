//! Without any agent: the foreign programs understand one another in the settings that scenarios put
//! them in. What a scenario sees refused there, an agent has refused.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use sheath_tests::ca::San;
use sheath_tests::interop::dnsmasq::Dnsmasq;
use sheath_tests::interop::envoy::Envoy;
use sheath_tests::interop::openssl::s_server_by_name;
use sheath_tests::interop::pki::Pki;
use sheath_tests::interop::scene::{PLAIN_PORT, TLS_PORT, loopback};
use sheath_tests::interop::talk::{Side, Talk};
use sheath_tests::interop::{Route, Start, Tls, Versions, nginx, stunnel};
use sheath_tests::pair;
use sheath_tests::probe::{self, Probe};
use sheath_tests::wait::{GENEROUS, wait_until};
use sheath_tests::world::{FAMILIES, Family, World};

const NAME: &str = "billing.example.com";

/// A client on node A to a server on node B, through two programs.
#[track_caller]
fn understand(family: Family, client: Start<'_>, ours: &Tls, server: Start<'_>, theirs: &Tls) {
    let world = World::new();
    let (a, b) = (world.a.host("foreign"), world.b.host("foreign"));
    let listen = world.b.addresses.at(family, TLS_PORT);
    let behind = Route::new(&b, listen, loopback(family, PLAIN_PORT), world.dir.path());
    let before = Route::new(&a, loopback(family, PLAIN_PORT), listen, world.dir.path());
    // nginx ends only what the side that it serves in plaintext has ended.
    let talk = Talk::ended_by(Side::Client);
    let mut application = Probe::start(&b, &pair::server(behind.forward, &talk.server()));
    let _server = server(&behind, theirs);
    let _client = client(&before, ours);
    let tap = world.tap();
    let seen = probe::run(&a, &pair::client(before.listen, &talk.client()));
    talk.assert_answered(&seen);
    talk.assert_asked(&application.connection());
    talk.assert_tls(&tap, TLS_PORT, ours.versions);
}

#[test]
fn two_envoys_that_pin_each_other() {
    let pki = Pki::new();
    let (client, server) = (pki.self_signed("client.example"), pki.self_signed("server.example"));
    let ours = Tls::mutual(client.clone(), server.certificate.clone()).alpn(&["envoy"]);
    let theirs = Tls::mutual(server, client.certificate).alpn(&["envoy"]);
    let originating = |route: &Route, tls: &Tls| {
        Envoy::originating(route, tls, &[]).connect_timeout("0.25s").start()
    };
    let terminating = |route: &Route, tls: &Tls| Envoy::terminating(route, tls, &[]).start();
    for family in FAMILIES {
        understand(family, &originating, &ours, &terminating, &theirs);
    }
}

#[test]
fn every_program_with_certificates_of_one_authority_and_either_version() {
    let pki = Pki::new();
    let trust = pki.authority();
    let (client, server) = (pki.issue("client.example.com"), pki.issue(NAME));
    let envoy_client = |route: &Route, tls: &Tls| {
        Envoy::originating(route, tls, &[San::dns(NAME)]).sni(NAME).start()
    };
    let envoy_server = |route: &Route, tls: &Tls| {
        Envoy::terminating(route, tls, &[San::dns("client.example.com")]).start()
    };
    let nginx_client = |route: &Route, tls: &Tls| nginx::originating(route, tls, NAME);
    for versions in [Versions::Tls12, Versions::Tls13] {
        let ours = Tls::mutual(client.clone(), trust.clone()).versions(versions);
        let theirs = Tls::mutual(server.clone(), trust.clone()).versions(versions);
        let pairs: [(Start<'_>, Start<'_>); 3] = [
            (&envoy_client, &nginx::terminating),
            (&stunnel::originating, &envoy_server),
            (&nginx_client, &stunnel::terminating),
        ];
        for (client, server) in pairs {
            understand(Family::V4, client, &ours, server, &theirs);
        }
    }
}

#[test]
fn s_server_chooses_its_certificate_by_the_server_name() {
    let (world, pki) = (World::new(), Pki::new());
    let (a, b) = (world.a.host("foreign"), world.b.host("foreign"));
    let listen = world.b.addresses.at(Family::V6, TLS_PORT);
    let behind = Route::new(&b, listen, listen, world.dir.path());
    let theirs = Tls::mutual(pki.issue("other.example.com"), pki.authority());
    let mut server = s_server_by_name(&behind, &theirs, NAME, &pki.issue(NAME));
    let ours = Tls::mutual(pki.issue("client.example.com"), pki.authority());
    for asked in ["another.example.com", NAME] {
        let before = Route::new(&a, loopback(Family::V6, PLAIN_PORT), listen, world.dir.path());
        let envoy = Envoy::originating(&before, &ours, &[San::dns(NAME)]).sni(asked);
        let _envoy = envoy.start();
        let talk = Talk::ended_by(Side::Client);
        let mut client = Probe::start(&a, &pair::client(before.listen, &talk.client()));
        if asked == NAME {
            server.wait_for_log(&talk.question);
            server.say(&talk.answer);
            talk.assert_answered(&client.connection());
        } else {
            assert_eq!(client.connection().steps[1].bytes, 0, "the wrong certificate was believed");
        }
    }
}

#[test]
fn dnsmasq_answers_what_it_was_told_last() {
    let world = World::new();
    let [first, second] = [world.b.addresses.v4, world.b.extra.v4];
    let server = world.a.addresses.v4.into();
    let place = world.a.host("names");
    let dnsmasq = Dnsmasq::start(&place, world.dir.path(), server, &[(NAME, first.into())]);
    let ask = |what: &str, expected: Ipv4Addr| {
        wait_until(what, GENEROUS, || world.b.netns.run(|| ask(server)) == Some((expected, 1)));
    };
    ask("the first address", first);
    dnsmasq.change(&[(NAME, second.into())]);
    ask("the second address", second);
}

/// The only address of [`NAME`] and its time to live (RFC 1035, 4).
fn ask(server: IpAddr) -> Option<(Ipv4Addr, u32)> {
    let mut query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0".to_vec();
    for label in NAME.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(b"\0\0\x01\0\x01");
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(GENEROUS)).unwrap();
    socket.send_to(&query, SocketAddr::new(server, 53)).unwrap();
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).unwrap();
    // Behind the question: a pointer to the name, type, class, time to live, length, address.
    let record = answer.get(query.len()..length)?.strip_prefix(b"\xc0\x0c\0\x01\0\x01")?;
    let (ttl, address) = (record.first_chunk()?, record.get(6..)?.first_chunk::<4>()?);
    Some(((*address).into(), u32::from_be_bytes(*ttl)))
}
