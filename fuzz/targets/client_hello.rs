//! The first bytes of a connection, from whoever could reach the port.
//!
//! A verdict on them is final, does not depend on how the network cut them up, and `Ours` is earned.

#![no_main]

use std::hash::{DefaultHasher, Hash, Hasher};

use libfuzzer_sys::fuzz_target;
use rustls::server::Acceptor;
use sheath::tls::client_hello::{FirstBytes, classify, offers};

/// The record type of a handshake (RFC 8446, 5.1), the only one that can begin a session.
const HANDSHAKE: u8 = 22;
/// The protocol names as entries of the ALPN extension (RFC 7301, 3.1).
const OUR_ALPN: [&[u8]; 2] = [b"\x08sheath/0", b"\x08sheath/1"];

fuzz_target!(|bytes: &[u8]| {
    let whole = classify(bytes, &[]);
    let tls = bytes.first().is_none_or(|first| *first == HANDSHAKE);
    assert_eq!(whole == FirstBytes::Plaintext, !tls);
    for cut in cuts(bytes) {
        let early = classify(&bytes[..cut], &[]);
        assert!(
            early == FirstBytes::Incomplete || early == whole,
            "{early:?} after {cut} bytes, {whole:?} in the end"
        );
        if tls {
            assert_eq!(handshake_in_two(bytes.split_at(cut)), whole, "cut after {cut} bytes");
        }
    }
    // Claiming a protocol never makes less ours, nor anything else than TLS.
    let claiming = classify(bytes, &[b"h2".to_vec()]);
    assert!(claiming == whole || (whole, claiming) == (FirstBytes::ForeignTls, FirstBytes::Ours));
    if whole == FirstBytes::Ours {
        let handshake = handshake_messages(bytes);
        assert!(handshake.windows(OUR_ALPN[0].len()).any(|window| OUR_ALPN.contains(&window)));
    }
});

/// A few places to cut at: others for each input, the same for the same one.
fn cuts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    (0..4).map(move |_| {
        hasher.write_u8(0);
        hasher.finish() as usize % (bytes.len() + 1)
    })
}

/// What the handshake, which takes the bytes as they come, makes of them.
fn handshake_in_two((first, second): (&[u8], &[u8])) -> FirstBytes {
    let mut acceptor = Acceptor::default();
    for mut piece in [first, second] {
        while !piece.is_empty() {
            if !matches!(acceptor.read_tls(&mut piece), Ok(1..)) {
                return FirstBytes::ForeignTls;
            }
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(hello)) if offers(&hello.client_hello(), &[]) => {
                    return FirstBytes::Ours;
                }
                _ => return FirstBytes::ForeignTls,
            }
        }
    }
    FirstBytes::Incomplete
}

/// What the records hold, without their headers.
fn handshake_messages(mut records: &[u8]) -> Vec<u8> {
    let mut messages = Vec::new();
    while let [_, _, _, high, low, rest @ ..] = records {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        messages.extend(&rest[..length]);
        records = &rest[length..];
    }
    messages
}
