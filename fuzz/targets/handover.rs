//! What two agents say to each other when one takes over from the other.
//!
//! What is accepted is written so that it reads back the same, with as many descriptors as it must come with.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sheath::handover::message::{HEADER, Header, Message};

fuzz_target!(|bytes: &[u8]| {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return;
    };
    let Ok(Header { descriptors, length }) = Header::parse(*header) else {
        return;
    };
    let body = rest.get(..length).unwrap_or(rest);
    let Ok(message) = Message::decode(body, descriptors) else {
        return;
    };
    let written = message.encode().expect("what was read is not too long to be written");
    assert!(written.len() <= HEADER + body.len(), "it has grown");
    let (header, body) = written.split_first_chunk::<HEADER>().expect("a header");
    let again = Header::parse(*header).expect("a header that was written");
    assert_eq!((again.descriptors, again.length), (descriptors, body.len()));
    assert_eq!(Message::decode(body, descriptors).expect("a message that was written"), message);
    for other in (0..=3).filter(|other| *other != descriptors) {
        assert!(Message::decode(body, other).is_err());
    }
});
