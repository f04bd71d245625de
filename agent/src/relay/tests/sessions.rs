//! Records that no TLS library sends, and keys that change.

use super::*;
use crate::wire::record::testing::record;
use crate::wire::record::{Alert, KEY_UPDATE, Opened, RecordError};
use crate::wire::testing::limit_keys;

const DATA: ContentType = ContentType::ApplicationData;
/// A KeyUpdate that asks for one in return.
const KEY_UPDATE_REQUEST: [u8; 5] = [24, 0, 0, 1, 1];

/// A relay of bytes, and the peer that it speaks with.
async fn bytes() -> (Carried, Raw) {
    let account = account();
    let (wire, raw) = with_raw(tcp_pair().await, &account);
    (Carried::start(bytes_of(wire), &account).await, raw)
}

async fn next(app: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut heard = vec![0; length];
    tokio::time::timeout(GENEROUS, app.read_exact(&mut heard)).await.expect("no more").unwrap();
    heard
}

#[tokio::test]
async fn padding_and_tiny_records_are_no_part_of_the_data() {
    let (mut relay, mut raw) = bytes().await;
    let said = pattern(5000, 4);
    let mut records = Vec::new();
    for (number, byte) in said.iter().enumerate() {
        let padding = if number % 10 == 0 { number } else { 0 };
        records.extend(record(&mut raw.sealing, &[*byte], DATA as u8, padding));
    }
    let (_, heard) = tokio::join!(raw.write(&records), next(&mut relay.app, said.len()));
    assert!(heard == said);
    // As much padding as there can be.
    let padded = record(&mut raw.sealing, b"x", DATA as u8, 16_383);
    raw.write(&padded).await;
    assert_eq!(next(&mut relay.app, 1).await, b"x");
}

#[tokio::test]
async fn a_record_may_come_byte_by_byte() {
    let (mut relay, mut raw) = bytes().await;
    for said in [&b"a"[..], b"few", b"records"] {
        for byte in raw.seal(DATA, said) {
            raw.write(&[byte]).await;
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        assert_eq!(next(&mut relay.app, said.len()).await, said);
    }
    none_held(&relay.account).await;
}

/// Whether it is asked for in return or not, with data before and behind it in one segment.
#[tokio::test]
async fn a_peer_may_change_its_keys_amid_data() {
    let (mut relay, mut raw) = bytes().await;
    for update in [KEY_UPDATE, KEY_UPDATE_REQUEST, KEY_UPDATE] {
        let mut records = raw.seal(DATA, b"before");
        // In two records, as the message may be.
        records.extend(raw.seal(ContentType::Handshake, &update[..2]));
        records.extend(raw.seal(ContentType::Handshake, &update[2..]));
        raw.rekey();
        records.extend(raw.seal(DATA, b"behind"));
        raw.write(&records).await;
        assert_eq!(next(&mut relay.app, 12).await, b"beforebehind");
    }
    // It was asked for once, and is done at once, although there is nothing to send.
    let (opened, _) = raw.receive().await.unwrap().unwrap();
    assert_eq!(opened, Opened::KeyUpdate { is_requested: false });
    raw.follow();
    relay.app.write_all(b"new").await.unwrap();
    let (_, content) = raw.receive().await.unwrap().unwrap();
    assert_eq!(content, b"new");
}

/// Asked for again and again before it could answer, a side changes its keys once.
#[tokio::test]
async fn requests_for_new_keys_are_not_answered_one_by_one() {
    let (mut relay, mut raw) = bytes().await;
    let mut records = Vec::new();
    for _ in 0..20 {
        records.extend(raw.seal(ContentType::Handshake, &KEY_UPDATE_REQUEST));
        raw.rekey();
    }
    records.extend(raw.seal(DATA, b"done"));
    raw.write(&records).await;
    assert_eq!(next(&mut relay.app, 4).await, b"done");
    let (opened, _) = raw.receive().await.unwrap().unwrap();
    assert_eq!(opened, Opened::KeyUpdate { is_requested: false });
    raw.follow();
    relay.app.write_all(b"answer").await.unwrap();
    assert_eq!(raw.receive().await.unwrap().unwrap().1, b"answer");
}

/// RFC 8446, 4.6.3: a side that was asked for its next keys sends no more application data with its present ones, not
/// even the frames between two flows.
#[tokio::test]
async fn keys_asked_for_between_flows_come_before_the_next_frame() {
    let account = account();
    let (wire, mut raw) = serving(&account).await;
    let mut relay = Carried::start(wire, &account).await;
    let fin = Control::Fin.encode();
    let flow = [opening().encode().as_ref(), fin.as_ref()].concat();
    raw.send(DATA, &flow).await;
    relay.app.shutdown().await.unwrap();
    let mut wire = ended(relay.task).await.wire.unwrap();
    assert_eq!(raw.receive().await.unwrap().unwrap().1, fin.as_ref());

    raw.send(ContentType::Handshake, &KEY_UPDATE_REQUEST).await;
    raw.rekey();
    std::future::poll_fn(|cx| wire.poll_fill(cx)).await.unwrap();
    wire.collect().unwrap();
    wire.accept().unwrap();
    std::future::poll_fn(|cx| wire.poll_flush(cx)).await.unwrap();
    let (opened, _) = raw.receive().await.unwrap().unwrap();
    assert_eq!(opened, Opened::KeyUpdate { is_requested: false });
    raw.follow();
    assert_eq!(raw.receive().await.unwrap().unwrap().1, Control::Accepted.encode().as_ref());
}

/// Keys that come to their limit again and again while data goes both ways.
#[tokio::test]
async fn our_keys_change_before_their_limit() {
    for kind in KINDS {
        let accounts = [account(), account()];
        let (client, server) = sessions(tcp_pair().await, [&accounts[0], &accounts[1]]);
        let (client, server) = begin(kind, limit_keys(client, 20), limit_keys(server, 3));
        let client = Carried::start(client, &accounts[0]).await;
        let server = Carried::start(server, &accounts[1]).await;
        let said = pattern(4 << 20, 6);
        let mut relays = [client, server];
        let [one, other] = &mut relays;
        let (mut from_one, mut to_one) = one.app.split();
        let (mut from_other, mut to_other) = other.app.split();
        let (mut heard_one, mut heard_other) = (Vec::new(), Vec::new());
        let write = async {
            to_one.write_all(&said).await.unwrap();
            to_one.shutdown().await.unwrap();
        };
        let answer = async {
            to_other.write_all(&said).await.unwrap();
            to_other.shutdown().await.unwrap();
        };
        let (_, _, read_one, read_other) = tokio::join!(
            write,
            answer,
            from_one.read_to_end(&mut heard_one),
            from_other.read_to_end(&mut heard_other)
        );
        read_one.unwrap();
        read_other.unwrap();
        assert!(heard_one == said && heard_other == said, "{kind:?}");
        for relay in relays {
            ended(relay.task).await.result.unwrap();
        }
    }
}

/// How a relay ends whose peer writes this, and what it says to its peer.
async fn after(write: impl FnOnce(&mut Raw) -> Vec<u8>) -> (RelayError, Option<Alert>) {
    let (relay, mut raw) = bytes().await;
    let bytes = write(&mut raw);
    raw.write(&bytes).await;
    let error = ended(relay.task).await.result.unwrap_err();
    let told = match raw.receive().await {
        Err(WireError::Record(RecordError::Alert(alert))) => Some(alert),
        _ => None,
    };
    (error, told)
}

#[tokio::test]
async fn a_broken_rule_ends_the_session_with_its_alert() {
    type Write = fn(&mut Raw) -> Vec<u8>;
    let cases: [(&str, Write, Alert); 7] = [
        (
            "forged",
            |raw| {
                let mut record = raw.seal(DATA, b"data");
                record[7] ^= 1;
                record
            },
            Alert::BAD_RECORD_MAC,
        ),
        ("repeated", |raw| raw.seal(DATA, b"twice").repeat(2), Alert::BAD_RECORD_MAC),
        (
            "with the keys of before",
            |raw| [raw.seal(ContentType::Handshake, &KEY_UPDATE), raw.seal(DATA, b"x")].concat(),
            Alert::BAD_RECORD_MAC,
        ),
        ("too long", |_| vec![23, 3, 3, 0x41, 0x01], Alert::RECORD_OVERFLOW),
        ("not encrypted", |_| vec![21, 3, 3, 0, 2, 2, 40], Alert::UNEXPECTED_MESSAGE),
        ("of no type", |raw| record(&mut raw.sealing, b"", 0, 4), Alert::UNEXPECTED_MESSAGE),
        (
            "a KeyUpdate that says neither yes nor no",
            |raw| raw.seal(ContentType::Handshake, &[24, 0, 0, 1, 2]),
            Alert::ILLEGAL_PARAMETER,
        ),
    ];
    for (what, write, alert) in cases {
        let (error, told) = after(write).await;
        assert!(matches!(error, RelayError::Wire(WireError::Record(_))), "{what}: {error:?}");
        assert_eq!(told, Some(alert), "{what}");
    }
}

/// An alert is not answered.
#[tokio::test]
async fn a_fatal_alert_ends_the_session_without_an_answer() {
    let (error, told) = after(|raw| raw.seal(ContentType::Alert, &[2, 80])).await;
    let expected = RecordError::Alert(Alert::INTERNAL_ERROR);
    assert!(
        matches!(error, RelayError::Wire(WireError::Record(error)) if error == expected),
        "{error:?}"
    );
    assert_eq!(told, None);
}

/// Frames may be cut over records in any way, padded or not.
#[tokio::test]
async fn frames_and_records_need_not_agree() {
    let account = account();
    let (wire, mut raw) = serving(&account).await;
    let mut relay = Carried::start(wire, &account).await;
    let said = pattern(70_000, 8);
    let mut frames = opening().encode().as_ref().to_vec();
    for chunk in said.chunks(9_001) {
        frames.extend(data_header(chunk.len()));
        frames.extend(chunk);
    }
    frames.extend(Control::Fin.encode().as_ref());
    let mut records = Vec::new();
    for (number, piece) in frames.chunks(1_237).enumerate() {
        // Some byte by byte.
        let pieces = piece.chunks(if number % 7 == 0 { 1 } else { piece.len() });
        for piece in pieces {
            records.extend(record(&mut raw.sealing, piece, DATA as u8, number % 3));
        }
    }
    let mut heard = Vec::new();
    let (_, read) = tokio::join!(raw.write(&records), relay.app.read_to_end(&mut heard));
    read.unwrap();
    assert!(heard == said);
}
