//! Verdicts over what the tap saw.

use crate::dissect::recording::Recorded;
use crate::dissect::tls;

const TLS_1_3: u16 = 0x0304;

/// Nothing but TLS 1.3 has crossed the wire to and from `port`, something has, and `marker` is
/// nowhere.
#[track_caller]
pub fn assert_ciphertext(tap: &impl Recorded, port: u16, marker: &str) {
    assert_tls(tap, port, marker, TLS_1_3);
}

/// The same for a version of TLS, by its number on the wire.
#[track_caller]
pub fn assert_tls(tap: &impl Recorded, port: u16, marker: &str, version: u16) {
    let recording = tap.recording();
    assert_eq!(recording.sightings(marker), 0, "plaintext on the wire");
    let mut clients = 0;
    for stream in recording.streams() {
        let (to, from) = (stream.destination.port() == port, stream.source.port() == port);
        if !(to || from) || stream.bytes.is_empty() {
            continue;
        }
        let (source, destination) = (stream.source, stream.destination);
        if let Err(error) = stream.tls_records() {
            panic!("{source} to {destination}: {error}");
        }
        if to {
            clients += 1;
        } else {
            assert_eq!(tls::version_selected(&stream.bytes), Some(version), "{source}");
        }
    }
    assert!(clients > 0, "nothing was sent to port {port}");
}
