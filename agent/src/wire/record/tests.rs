use proptest::prelude::*;

use super::testing::record;
use super::*;

/// RFC 8448, 3: the application traffic of a simple handshake.
mod rfc8448 {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    fn client(sequence: u64) -> Keys {
        let key = bytes("17 42 2d da 59 6e d5 d9 ac d8 90 e3 c6 3f 50 51");
        let iv = bytes("5b 78 92 3d ee 08 57 90 33 e5 23 d9");
        Keys::of(Cipher::Aes128Gcm, &key, &iv, sequence).unwrap()
    }

    fn server(sequence: u64) -> Keys {
        let key = bytes("9f 02 28 3b 6c 9c 07 ef c2 6b b9 f2 ac 92 e3 56");
        let iv = bytes("cf 78 2b 88 dd 83 54 9a ad f1 e9 84");
        Keys::of(Cipher::Aes128Gcm, &key, &iv, sequence).unwrap()
    }

    const CLIENT_DATA: &str = "17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe 82 28 ba 55 cb ef ac ea \
        42 f9 14 aa 66 bc ab 3f 2b 98 19 a8 a5 b4 6b 39 5b d5 4a 9a 20 44 1e 2b 62 97 4e 1f 5a 62 92 a2 \
        97 70 14 bd 1e 3d ea e6 3a ee bb 21 69 49 15 e4";
    const CLIENT_CLOSE: &str =
        "17 03 03 00 13 c9 87 27 60 65 56 66 b7 4d 7f f1 15 3e fd 6d b6 d0 b0 e3";
    const SERVER_DATA: &str = "17 03 03 00 43 2e 93 7e 11 ef 4a c7 40 e5 38 ad 36 00 5f c4 a4 69 32 fc \
        32 25 d0 5f 82 aa 1b 36 e3 0e fa f9 7d 90 e6 df fc 60 2d cb 50 1a 59 a8 fc c4 9c 4b f2 e5 f0 a2 \
        1c 00 47 c2 ab f3 32 54 0d d0 32 e1 67 c2 95 5d";
    const SERVER_CLOSE: &str =
        "17 03 03 00 13 b5 8f d6 71 66 eb f5 99 d2 47 20 cf be 7e fa 7a 88 64 a9";

    #[test]
    fn keys_come_from_traffic_secrets() {
        let secret = bytes(
            "9e 40 64 6c e7 9a 7f 9d c0 5a f8 88 9b ce 65 52 87 5a fa 0b 06 df 00 87 f7 92 eb b7 c1 75 04 a5",
        );
        let keys = TrafficSecret::new(Cipher::Aes128Gcm, &secret).unwrap().keys().unwrap();
        let mut room = [0; 100];
        let length = Sealer::new(keys)
            .seal_copy(ContentType::ApplicationData, &payload(), &mut room)
            .unwrap();
        assert_eq!(room[..length], bytes(CLIENT_DATA));
    }

    fn payload() -> Vec<u8> {
        (0..50).collect()
    }

    #[test]
    fn records_are_sealed() {
        let mut sealer = Sealer::new(client(0));
        let mut room = [0; 100];
        let length = sealer.seal_copy(ContentType::ApplicationData, &payload(), &mut room).unwrap();
        assert_eq!(room[..length], bytes(CLIENT_DATA));
        let length = sealer.seal_copy(ContentType::Alert, &CLOSE_NOTIFY, &mut room).unwrap();
        assert_eq!(room[..length], bytes(CLIENT_CLOSE));
    }

    #[test]
    fn records_are_opened() {
        // Number 0 is a ticket.
        let mut opener = Opener::of_server(server(1));
        let mut stream = bytes(SERVER_DATA);
        stream.extend(bytes(SERVER_CLOSE));
        let (length, opened) = opener.open(&mut stream).unwrap().unwrap();
        assert_eq!(opened, Opened::Data(5..55));
        assert_eq!(stream[5..55], payload());
        let (rest, opened) = opener.open(&mut stream[length..]).unwrap().unwrap();
        assert_eq!((length + rest, opened), (stream.len(), Opened::Closed));
    }
}

fn keys(cipher: Cipher) -> Keys {
    let key: Vec<u8> = (0..cipher.key_len() as u8).collect();
    Keys::of(cipher, &key, &[9; 12], 0).unwrap()
}

fn pair() -> (Sealer, Opener) {
    (Sealer::new(keys(Cipher::Aes128Gcm)), Opener::of_server(keys(Cipher::Aes128Gcm)))
}

const DATA: u8 = ContentType::ApplicationData as u8;
const ALERT: u8 = ContentType::Alert as u8;
const HANDSHAKE: u8 = ContentType::Handshake as u8;

/// Opens the records of a stream that comes in pieces of these lengths, again and again.
fn open_all(opener: &mut Opener, stream: &[u8], pieces: &[usize]) -> Result<Vec<u8>, RecordError> {
    let (mut plaintext, mut buffer) = (Vec::new(), Vec::new());
    let mut rest = stream;
    let mut pieces = pieces.iter().cycle();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(*pieces.next().unwrap()));
        buffer.extend_from_slice(now);
        rest = later;
        while let Some((length, opened)) = opener.open(&mut buffer)? {
            if let Opened::Data(range) = opened {
                plaintext.extend_from_slice(&buffer[range]);
            }
            buffer.drain(..length);
        }
    }
    assert!(buffer.is_empty());
    Ok(plaintext)
}

proptest! {
    #[test]
    fn any_stream_in_any_pieces_comes_out_as_it_went_in(
        records in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 1..2000), 0_usize..300),
            1..12,
        ),
        pieces in prop::collection::vec(1_usize..3000, 1..8),
        cipher in prop::sample::select(&Cipher::ALL[..]),
    ) {
        let mut sealing = keys(cipher);
        let mut opener = Opener::of_server(keys(cipher));
        let stream: Vec<u8> = records
            .iter()
            .flat_map(|(content, padding)| record(&mut sealing, content, DATA, *padding))
            .collect();
        let sent: Vec<u8> = records.iter().flat_map(|(content, _)| content.clone()).collect();
        prop_assert_eq!(open_all(&mut opener, &stream, &pieces).unwrap(), sent);
    }

    #[test]
    fn a_changed_bit_is_noticed(content: Vec<u8>, place: prop::sample::Index, bit in 0_u32..8) {
        let (mut sealer, mut opener) = pair();
        let mut room = vec![0; content.len() + OVERHEAD];
        let length =
            sealer.seal_copy(ContentType::ApplicationData, &content, &mut room).unwrap();
        prop_assert_eq!(length, room.len());
        let place = place.index(length);
        room[place] ^= 1_u8 << bit;
        // A longer record than there is may still be on its way; every other change is an error.
        let opened = opener.open(&mut room);
        prop_assert!(matches!(opened, Err(_) | Ok(None)), "{opened:?}");
        prop_assert!(opened.is_err() || (3..5).contains(&place));
    }

    #[test]
    fn no_bytes_make_it_panic(mut bytes: Vec<u8>, looks_right: bool) {
        if looks_right && bytes.len() > 5 {
            let length = bytes.len() - 5;
            bytes[..5].copy_from_slice(&[23, 3, 3, (length >> 8) as u8, length as u8]);
        }
        let opened = pair().1.open(&mut bytes);
        prop_assert!(!matches!(opened, Ok(Some(_))));
    }

    #[test]
    fn post_handshake_messages_may_come_in_any_pieces(
        ticket in prop::collection::vec(any::<u8>(), 1..500),
        pieces in prop::collection::vec(1_usize..60, 1..20),
    ) {
        let mut sealing = keys(Cipher::Aes128Gcm);
        let mut opener = Opener::of_server(keys(Cipher::Aes128Gcm));
        let mut messages = vec![4, 0, (ticket.len() >> 8) as u8, ticket.len() as u8];
        messages.extend(&ticket);
        messages.extend([24, 0, 0, 1, 1]);
        let mut rest = messages.as_slice();
        let mut pieces = pieces.iter().cycle();
        let mut last = Ok(None);
        while !rest.is_empty() {
            // Not so many that it is taken for an attack.
            let most = (*pieces.next().unwrap()).max(messages.len().div_ceil(20));
            let (now, later) = rest.split_at(rest.len().min(most));
            last = opener.open(&mut record(&mut sealing, now, HANDSHAKE, 0));
            rest = later;
        }
        let key_update = Opened::KeyUpdate { is_requested: true };
        prop_assert_eq!(last.unwrap().unwrap().1, key_update);
    }
}

#[test]
fn a_record_that_is_repeated_or_left_out_is_noticed() {
    let mut sealing = keys(Cipher::Aes128Gcm);
    let first = record(&mut sealing, b"one", DATA, 0);
    record(&mut sealing, b"two", DATA, 0);
    let third = record(&mut sealing, b"three", DATA, 0);
    let mut opener = Opener::of_server(keys(Cipher::Aes128Gcm));
    opener.open(&mut first.clone()).unwrap();
    assert_eq!(opener.open(&mut first.clone()), Err(RecordError::BadMac));
    let mut opener = Opener::of_server(keys(Cipher::Aes128Gcm));
    opener.open(&mut first.clone()).unwrap();
    assert_eq!(opener.open(&mut third.clone()), Err(RecordError::BadMac));
}

#[test]
fn lengths_have_their_limits() {
    let (mut sealer, _) = pair();
    let mut room = vec![0; 20_000];
    let mut seal =
        |length: usize| sealer.seal_copy(ContentType::ApplicationData, &vec![1; length], &mut room);
    assert_eq!(seal(LONGEST_CONTENT), Ok(LONGEST_CONTENT + OVERHEAD));
    assert_eq!(seal(LONGEST_CONTENT + 1), Err(SealError::Length));
    assert_eq!(sealer.seal(ContentType::ApplicationData, &mut [0; 21]), Err(SealError::Length));

    let open = |content: usize, padding: usize| {
        let sealed = record(&mut keys(Cipher::Aes128Gcm), &vec![1; content], DATA, padding);
        pair().1.open(&mut sealed.clone()).map(|opened| opened.map(|(length, _)| length))
    };
    assert_eq!(open(LONGEST_CONTENT, 0), Ok(Some(LONGEST_CONTENT + OVERHEAD)));
    assert_eq!(open(1, LONGEST_CONTENT - 1), Ok(Some(LONGEST_CONTENT + OVERHEAD)));
    assert_eq!(open(LONGEST_CONTENT, 1), Err(RecordError::Overflow));
    assert_eq!(open(LONGEST_CONTENT + 1, 0), Err(RecordError::Overflow));
    // Refused by its header, before anything is waited for.
    assert_eq!(pair().1.open(&mut [23, 3, 3, 0x41, 0x01]), Err(RecordError::Overflow));
    assert_eq!(pair().1.open(&mut [23, 3, 3, 0x41, 0x00]), Ok(None));
    assert_eq!(pair().1.open(&mut [0; 21]), Err(RecordError::Unexpected("not encrypted")));
}

/// One record as the first of a session.
fn first(content: &[u8], kind: u8) -> Result<Opened, RecordError> {
    let mut sealed = record(&mut keys(Cipher::Aes128Gcm), content, kind, 3);
    pair().1.open(&mut sealed).map(|opened| opened.unwrap().1)
}

#[test]
fn what_records_may_say() {
    assert_eq!(first(b"x", DATA), Ok(Opened::Data(5..6)));
    assert_eq!(first(b"", DATA), Ok(Opened::Nothing));
    assert_eq!(first(&CLOSE_NOTIFY, ALERT), Ok(Opened::Closed));
    assert_eq!(first(&[1, 90], ALERT), Ok(Opened::Nothing));
    let failure = RecordError::Alert(Alert(40));
    assert_eq!(first(&[2, 40], ALERT), Err(failure));
    assert!(failure.to_string().contains("TLS alert handshake_failure: it has no cipher suite"));
    assert_eq!(first(&[2], ALERT), Err(RecordError::Undecodable));
    assert_eq!(first(&[2, 40, 0], ALERT), Err(RecordError::Undecodable));
    let update = |is_requested| Ok(Opened::KeyUpdate { is_requested });
    assert_eq!(first(&KEY_UPDATE, HANDSHAKE), update(false));
    assert_eq!(first(&[24, 0, 0, 1, 1], HANDSHAKE), update(true));
    // RFC 8446, 4.6.3 has an alert of its own for it.
    let illegal = first(&[24, 0, 0, 1, 2], HANDSHAKE).unwrap_err();
    assert_eq!(illegal.alert(), Some(Alert::ILLEGAL_PARAMETER));
    for undecodable in [&[24, 0, 0, 2, 0, 0][..], &[24, 0, 0, 0], &[4, 0, 0, 0]] {
        assert_eq!(first(undecodable, HANDSHAKE), Err(RecordError::Undecodable), "{undecodable:?}");
    }
    // Behind a KeyUpdate; messages of a handshake; nothing; unknown types.
    for (content, kind) in [
        (&[24, 0, 0, 1, 0, 4][..], HANDSHAKE),
        (&[1, 0, 0, 0], HANDSHAKE),
        (&[2, 0, 0, 0], HANDSHAKE),
        (&[11, 0, 0, 0], HANDSHAKE),
        (&[13, 0, 0, 0], HANDSHAKE),
        (&[15, 0, 0, 0], HANDSHAKE),
        (&[20, 0, 0, 32], HANDSHAKE),
        (&[254, 0, 0, 0], HANDSHAKE),
        (&[], HANDSHAKE),
        (&[], ALERT),
        (&[1], 20),
        (&[1], 99),
        (&[], 0),
    ] {
        let refused = first(content, kind);
        assert!(matches!(refused, Err(RecordError::Unexpected(_))), "{content:?} {refused:?}");
    }
}

#[test]
fn a_message_in_pieces_is_not_interrupted() {
    let mut sealing = keys(Cipher::Aes128Gcm);
    let mut opener = Opener::of_server(keys(Cipher::Aes128Gcm));
    opener.open(&mut record(&mut sealing, &[24, 0], HANDSHAKE, 0)).unwrap();
    let data = opener.open(&mut record(&mut sealing, b"x", DATA, 0));
    assert!(matches!(data, Err(RecordError::Unexpected(_))));
    for (alert, is_told) in [(&CLOSE_NOTIFY, false), (&[1, 90], false), (&[2, 40], true)] {
        let mut sealing = keys(Cipher::Aes128Gcm);
        let mut opener = Opener::of_server(keys(Cipher::Aes128Gcm));
        opener.open(&mut record(&mut sealing, &[4, 0, 0, 9, 1], HANDSHAKE, 0)).unwrap();
        let error = opener.open(&mut record(&mut sealing, alert, ALERT, 0)).unwrap_err();
        assert_eq!(matches!(error, RecordError::Alert(_)), is_told, "{alert:?}: {error}");
        assert_eq!(matches!(error, RecordError::Unexpected(_)), !is_told, "{alert:?}: {error}");
    }
}

#[test]
fn a_ticket_comes_from_a_server_alone() {
    // Whole, in pieces, and before a KeyUpdate: its header is enough.
    for ticket in [&[4, 0, 0, 2, 7, 7][..], &[4, 0, 0, 2], &[4, 0, 0, 1, 7, 24, 0, 0, 1, 0]] {
        let from = |mut opener: Opener| {
            let mut sealing = keys(Cipher::Aes128Gcm);
            opener.open(&mut record(&mut sealing, ticket, HANDSHAKE, 0))
        };
        from(Opener::of_server(keys(Cipher::Aes128Gcm))).unwrap();
        let error = from(Opener::of_client(keys(Cipher::Aes128Gcm))).unwrap_err();
        assert_eq!(error.alert(), Some(Alert::UNEXPECTED_MESSAGE), "{ticket:?}: {error}");
    }
    // All else is the same of both.
    for (content, kind) in [(&b"x"[..], DATA), (&[24, 0, 0, 1, 0], HANDSHAKE)] {
        let sealed = record(&mut keys(Cipher::Aes128Gcm), content, kind, 0);
        let of_server = Opener::of_server(keys(Cipher::Aes128Gcm)).open(&mut sealed.clone());
        let of_client = Opener::of_client(keys(Cipher::Aes128Gcm)).open(&mut sealed.clone());
        assert!(of_server.is_ok() && of_server == of_client);
    }
}

#[test]
fn records_without_content_have_an_end() {
    let mut sealing = keys(Cipher::Aes128Gcm);
    let mut opener = Opener::of_server(keys(Cipher::Aes128Gcm));
    let mut nothing = || opener.open(&mut record(&mut sealing, b"", DATA, 0));
    for _ in 0..32 {
        nothing().unwrap();
    }
    assert_eq!(nothing(), Err(RecordError::Idle));
}

#[test]
fn a_key_is_left_before_its_limit() {
    let mut sealer = Sealer::new(keys(Cipher::Aes128Gcm).with_limit(1026));
    let mut room = [0; 100];
    let mut seal =
        |sealer: &mut Sealer| sealer.seal_copy(ContentType::ApplicationData, b"x", &mut room);
    seal(&mut sealer).unwrap();
    assert!(!sealer.wants_rekey());
    seal(&mut sealer).unwrap();
    assert!(sealer.wants_rekey());
    for _ in 0..1024 {
        seal(&mut sealer).unwrap();
    }
    // Never beyond it.
    assert_eq!(seal(&mut sealer), Err(SealError::Spent));
    sealer.rekey(keys(Cipher::Aes128Gcm));
    assert!(!sealer.wants_rekey());
    seal(&mut sealer).unwrap();
    assert!(!Sealer::new(keys(Cipher::ChaCha20Poly1305)).wants_rekey());
}

#[test]
fn keys_that_have_rested_go_on_where_they_were() {
    let (mut sealer, mut opener) = pair();
    let mut room = [0; 64];
    for content in [&b"one"[..], b"two", b"three"] {
        let length = sealer.seal_copy(ContentType::ApplicationData, content, &mut room).unwrap();
        let (_, opened) = opener.open(&mut room[..length]).unwrap().unwrap();
        assert_eq!(opened, Opened::Data(HEADER..HEADER + content.len()));
        assert_eq!(&room[HEADER..HEADER + content.len()], content);
        sealer.rest();
        opener.rest();
    }
}
