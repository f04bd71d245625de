//! UDP is not Sheath's: it passes untouched, also between protected workloads.

use std::net::UdpSocket;
use std::thread;

use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, Pair};
use sheath_tests::probe;
use sheath_tests::script::Job;
use sheath_tests::world::FAMILIES;

#[test]
fn udp_is_untouched() {
    let pair = Pair::host();
    for family in FAMILIES {
        let tap = pair.world.tap();
        let marker = marker();
        let to = pair.target(family);
        let socket = pair.world.b.netns.run(|| UdpSocket::bind(to)).expect("a UDP socket");
        let echo = thread::spawn(move || {
            let mut buffer = [0; 4096];
            let (length, from) = socket.recv_from(&mut buffer).expect("a datagram");
            socket.send_to(&buffer[..length], from).expect("an answer");
        });
        let seen = probe::run(&pair.client, &Job::Datagram { to, text: marker.clone() });
        assert_eq!(seen.last().text, marker, "{family:?}: {seen:?}");
        echo.join().expect("the echo");
        assert_eq!(tap.sightings(&marker), 2, "{family:?}: as it was, there and back");
        assert!(tap.attempts(PORT).is_empty());
    }
}
