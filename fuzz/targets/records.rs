//! Records: of nobody who has the keys, and of a peer that has them and may still be mad.
//!
//! Nothing opens that was not sealed; what was sealed opens as what it is, however it was cut up.

#![no_main]

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use libfuzzer_sys::fuzz_target;
use sheath::wire::record::{Cipher, HEADER, Keys, LONGEST_CONTENT, Opened, Opener, RecordError};
use sheath_fuzz::cuts;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
const TAG: usize = 16;

fuzz_target!(|input: &[u8]| {
    let Some((suite, input)) = input.split_first() else {
        return;
    };
    let cipher = Cipher::ALL[usize::from(suite % 3)];
    assert_forged(cipher, input);
    let sent = plan(input);
    let records = seal(cipher, &sent);
    let stream = records.concat();
    let (opened, error) = open(cipher, &[&stream]);
    assert!(opened.len() <= sent.len());
    for ((sent, record), (length, what)) in sent.iter().zip(&records).zip(&opened) {
        assert_eq!(record.len(), *length);
        assert_opened(sent, what);
    }
    if let Some(failed) = sent.get(opened.len()) {
        let is_closed = opened.last().is_some_and(|(_, what)| *what == What::Closed);
        assert!(error.is_some() || is_closed, "{failed:?} was not opened");
        assert_refused(failed, error);
    }
    for pieces in cuts(&stream, 9000) {
        assert_eq!(open(cipher, &pieces), (opened.clone(), error), "cut up");
    }
});

/// A record that the peer makes.
#[derive(Debug)]
struct Sent<'i> {
    kind: u8,
    content: &'i [u8],
    /// Zeros behind the content that are part of it.
    zeros: usize,
    padding: usize,
}

impl Sent<'_> {
    fn length(&self) -> usize {
        self.content.len() + self.zeros
    }

    /// True if it says that its sender's next record has the next keys.
    fn may_change_keys(&self) -> bool {
        self.kind == HANDSHAKE
    }
}

/// What a record was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Data(Vec<u8>),
    Nothing,
    KeyUpdate,
    Closed,
}

/// Reads instructions: four bytes each, and the content behind them.
fn plan(mut input: &[u8]) -> Vec<Sent<'_>> {
    let mut plan = Vec::new();
    while let ([kind, length, zeros, padding, rest @ ..], true) = (input, plan.len() < 64) {
        let kind = match kind {
            0..=99 => DATA,
            100..=159 => HANDSHAKE,
            160..=199 => ALERT,
            other => *other,
        };
        let (content, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        // Up to a bit more than there may be.
        let zeros = usize::from(*zeros) * 65;
        plan.push(Sent { kind, content, zeros, padding: usize::from(*padding) * 65 });
        input = rest;
    }
    plan
}

/// The key and the initialisation vector after so many changes.
fn secrets(cipher: Cipher, generation: u8) -> (Vec<u8>, [u8; NONCE_LEN]) {
    (vec![generation; cipher.key_len()], [!generation; NONCE_LEN])
}

/// Seals as any implementation might, by RFC 8446, 5.2, changing keys where the opener should.
fn seal(cipher: Cipher, sent: &[Sent<'_>]) -> Vec<Vec<u8>> {
    let mut messages = Messages::default();
    let (mut generation, mut sequence) = (0, 0_u64);
    sent.iter()
        .map(|sent| {
            let mut inner = sent.content.to_vec();
            inner.resize(sent.length(), 0);
            let updates = sent.may_change_keys() && messages.end_in_key_update(&inner);
            inner.push(sent.kind);
            inner.resize(inner.len() + sent.padding, 0);
            let (key, iv) = secrets(cipher, generation);
            let algorithm = match cipher {
                Cipher::Aes128Gcm => &AES_128_GCM,
                Cipher::Aes256Gcm => &AES_256_GCM,
                Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            };
            let key = LessSafeKey::new(UnboundKey::new(algorithm, &key).expect("a key"));
            let mut nonce = iv;
            for (byte, number) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
                *byte ^= number;
            }
            let length = (inner.len() + TAG) as u16;
            let header = [DATA, 3, 3, (length >> 8) as u8, length as u8];
            let nonce = Nonce::assume_unique_for_key(nonce);
            let sealed = key.seal_in_place_append_tag(nonce, Aad::from(header), &mut inner);
            sealed.expect("a record");
            sequence += 1;
            if updates {
                (generation, sequence) = (generation.wrapping_add(1), 0);
            }
            [&header[..], &inner].concat()
        })
        .collect()
}

/// Handshake messages as one stream.
#[derive(Default)]
struct Messages(Vec<u8>);

impl Messages {
    /// True if the stream is a KeyUpdate at its end with this record, by the shape of its messages alone.
    fn end_in_key_update(&mut self, content: &[u8]) -> bool {
        self.0.extend_from_slice(content);
        let mut updates = false;
        while let [kind, high, middle, low, rest @ ..] = self.0.as_slice() {
            let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
            if rest.len() < length {
                return false;
            }
            updates = *kind == 24;
            let rest = rest[length..].to_vec();
            self.0 = rest;
        }
        updates && self.0.is_empty()
    }
}

/// Opens a stream in pieces, to its end or to the first error.
fn open(cipher: Cipher, pieces: &[&[u8]]) -> (Vec<(usize, What)>, Option<RecordError>) {
    let keys = |generation| {
        let (key, iv) = secrets(cipher, generation);
        Keys::of(cipher, &key, &iv, 0).expect("keys")
    };
    let mut generation = 0_u8;
    let mut opener = Opener::of_server(keys(generation));
    let (mut opened, mut buffer) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let (length, what) = match opener.open(&mut buffer) {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(error) => return (opened, Some(error)),
            };
            let what = match what {
                Opened::Data(place) => {
                    assert!(place.start == HEADER && place.end < length - TAG);
                    What::Data(buffer[place].to_vec())
                }
                Opened::Nothing => What::Nothing,
                Opened::KeyUpdate { .. } => {
                    generation = generation.wrapping_add(1);
                    opener.rekey(keys(generation));
                    What::KeyUpdate
                }
                Opened::Closed => What::Closed,
            };
            buffer.drain(..length);
            let is_closed = what == What::Closed;
            opened.push((length, what));
            if is_closed {
                return (opened, None);
            }
        }
    }
    (opened, None)
}

/// What a record was found to be is what it is.
fn assert_opened(sent: &Sent<'_>, what: &What) {
    assert!(sent.length() <= LONGEST_CONTENT && sent.length() + sent.padding <= LONGEST_CONTENT);
    match what {
        What::Data(data) => {
            assert_eq!((sent.kind, data.len()), (DATA, sent.length()));
            assert!(data.starts_with(sent.content));
            assert!(data[sent.content.len()..].iter().all(|byte| *byte == 0));
        }
        What::Nothing => match sent.kind {
            DATA => assert_eq!(sent.length(), 0),
            ALERT => assert_eq!(sent.content.get(1), Some(&90)),
            kind => assert_eq!(kind, HANDSHAKE),
        },
        What::KeyUpdate => assert_eq!(sent.kind, HANDSHAKE),
        What::Closed => {
            // The second byte is the description; zeros may be part of the content.
            assert_eq!((sent.kind, sent.length()), (ALERT, 2));
            assert_eq!(sent.content.get(1).unwrap_or(&0), &0);
        }
    }
}

/// Nothing is refused that is plainly allowed.
fn assert_refused(sent: &Sent<'_>, error: Option<RecordError>) {
    let Some(error) = error else {
        return;
    };
    let is_long = sent.length() + sent.padding > LONGEST_CONTENT;
    assert_eq!(error == RecordError::Overflow, is_long, "{sent:?}");
    match error {
        RecordError::Overflow => {}
        RecordError::Alert(_) => assert_eq!((sent.kind, sent.length()), (ALERT, 2)),
        RecordError::Illegal(_) => assert_eq!(sent.kind, HANDSHAKE),
        RecordError::Undecodable => assert!([ALERT, HANDSHAKE].contains(&sent.kind)),
        RecordError::Idle => assert!(sent.kind != DATA || sent.length() == 0),
        // Either a message has begun, or the type is no such type.
        RecordError::Unexpected(_) => {}
        RecordError::BadMac => panic!("{sent:?} was sealed with the right keys"),
    }
}

/// What nobody has sealed does not open.
fn assert_forged(cipher: Cipher, input: &[u8]) {
    let (key, iv) = secrets(cipher, 0);
    let mut opener = Opener::of_server(Keys::of(cipher, &key, &iv, 0).expect("keys"));
    assert!(!matches!(opener.open(&mut input.to_vec()), Ok(Some(_))));
}
