//! Packets written by hand: what no socket of an unprivileged process sends, and anybody on the network may.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::NetNs;

const TCP: u8 = 6;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// An initial sequence number, where it does not matter.
const SEQUENCE: u32 = 1000;

/// What stands between the IP header and the TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    Nothing,
    /// IPv6: a fragment header of a packet that is in one piece (RFC 6946).
    AtomicFragment,
    /// IPv6: so many headers with destination options, each of them padding.
    DestinationOptions(usize),
    /// IPv4: as many options that do nothing as fit.
    Padding,
}

impl Between {
    pub const V6: [Self; 4] = [
        Self::Nothing,
        Self::AtomicFragment,
        Self::DestinationOptions(7),
        Self::DestinationOptions(20),
    ];
    pub const V4: [Self; 2] = [Self::Nothing, Self::Padding];
}

/// Sends a SYN from the namespace.
pub fn send_syn(netns: &NetNs, from: SocketAddr, to: SocketAddr, between: Between) {
    send(netns, from, to, between, SYN, SEQUENCE, 0);
}

/// Sends a SYN whose initial sequence number is this one.
pub fn send_syn_with(netns: &NetNs, from: SocketAddr, to: SocketAddr, sequence: u32) {
    send(netns, from, to, Between::Nothing, SYN, sequence, 0);
}

/// Sends what ends a handshake: an ACK for the SYN-ACK with this sequence number.
pub fn send_ack(netns: &NetNs, from: SocketAddr, to: SocketAddr, between: Between, sequence: u32) {
    send(netns, from, to, between, ACK, SEQUENCE + 1, sequence.wrapping_add(1));
}

fn send(
    netns: &NetNs,
    from: SocketAddr,
    to: SocketAddr,
    between: Between,
    flags: u8,
    sequence: u32,
    acknowledged: u32,
) {
    let numbers = (sequence, acknowledged);
    let packet = match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => v4(from, to, between, flags, numbers),
        (SocketAddr::V6(from), SocketAddr::V6(to)) => v6(from, to, between, flags, numbers),
        _ => panic!("a packet from {from} to {to}"),
    };
    let sent = netns.run(|| -> io::Result<usize> {
        let raw = Protocol::from(libc::IPPROTO_RAW);
        let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(raw))?;
        // The port of a raw socket's destination means nothing, and IPv6 wants none.
        socket.send_to(&packet, &SocketAddr::new(to.ip(), 0).into())
    });
    assert_eq!(sent.expect("sending a raw packet (needs root)"), packet.len());
}

/// RFC 791, 3.1. Checksum, length and identification are the kernel's to fill in (raw(7)).
fn v4(
    from: SocketAddrV4,
    to: SocketAddrV4,
    between: Between,
    flags: u8,
    numbers: (u32, u32),
) -> Vec<u8> {
    let options: &[u8] = if between == Between::Padding { &[1; 40] } else { &[] };
    let words = 5 + options.len() as u8 / 4;
    let mut packet = vec![0x40 | words, 0, 0, 0, 0, 0, 0, 0, 64, TCP, 0, 0];
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    packet.extend(options);
    let segment = segment(from.port(), to.port(), flags, numbers);
    let mut pseudo: Vec<u8> = [from.ip(), to.ip()].iter().flat_map(|ip| ip.octets()).collect();
    pseudo.extend([0, TCP]);
    pseudo.extend((segment.len() as u16).to_be_bytes());
    packet.extend(with_checksum(segment, &pseudo));
    packet
}

/// RFC 8200, 3 and 4.
fn v6(
    from: SocketAddrV6,
    to: SocketAddrV6,
    between: Between,
    flags: u8,
    numbers: (u32, u32),
) -> Vec<u8> {
    const FRAGMENT: u8 = 44;
    const DESTINATION_OPTIONS: u8 = 60;

    let mut headers = Vec::new();
    let first = match between {
        Between::AtomicFragment => {
            headers.extend([TCP, 0, 0, 0, 0, 0, 0, 7]);
            FRAGMENT
        }
        Between::DestinationOptions(count) => {
            for left in (0..count).rev() {
                let next = if left == 0 { TCP } else { DESTINATION_OPTIONS };
                // One option of padding (PadN) that fills the header.
                headers.extend([next, 0, 1, 4, 0, 0, 0, 0]);
            }
            DESTINATION_OPTIONS
        }
        Between::Nothing | Between::Padding => TCP,
    };
    let segment = segment(from.port(), to.port(), flags, numbers);
    let mut pseudo: Vec<u8> = [from.ip(), to.ip()].iter().flat_map(|ip| ip.octets()).collect();
    pseudo.extend((segment.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, TCP]);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(((headers.len() + segment.len()) as u16).to_be_bytes());
    packet.extend([first, 64]);
    for ip in [from.ip(), to.ip()] {
        packet.extend(ip.octets());
    }
    packet.extend(headers);
    packet.extend(with_checksum(segment, &pseudo));
    packet
}

/// RFC 9293, 3.1, without data and options.
fn segment(from: u16, to: u16, flags: u8, (sequence, acknowledged): (u32, u32)) -> Vec<u8> {
    let mut segment = Vec::from(from.to_be_bytes());
    segment.extend(to.to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledged.to_be_bytes());
    segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment
}

/// RFC 1071
fn with_checksum(mut segment: Vec<u8>, pseudo: &[u8]) -> Vec<u8> {
    let words = pseudo.chunks(2).chain(segment.chunks(2));
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    segment[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    segment
}
