//! What two agents of an instance say to each other, as bytes. Pure: it knows of no socket.
//!
//! A message is a header of 8 bytes and a body. The header says the version of the protocol (u16, little-endian, as all
//! numbers), how many descriptors come with the message (u8), a zero, and the length of the body (u32). The body is one
//! [`Message`] in postcard. The header is the same in all versions: an agent that does not know the version of another can always
//! say so.

use std::collections::BTreeSet;
use std::fmt;

use postcard::ser_flavors::Size;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The version of all that stands in this file.
pub const VERSION: u16 = 1;

/// Bytes in a header.
pub const HEADER: usize = 8;

/// Bytes in the body of a message with the state of a flow, at most.
const LONGEST_FLOW: usize = 4 * 1024 * 1024;
/// Bytes in the body of a [`Message::Welcome`]: a node may have thousands of workloads.
const LONGEST_WELCOME: usize = 1024 * 1024;
/// Bytes in the body of any other.
const LONGEST: usize = 4096;
/// Bytes of a text for people.
const LONGEST_TEXT: usize = 1024;

/// Which agent speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The version of Sheath, for the log.
    pub agent: String,
    /// The version of its maps: where they differ, connections may be refused for a moment while one set of programs takes the
    /// other's place.
    pub abi: u32,
}

/// What a predecessor tells of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub introduction: Introduction,
    /// Keys of the workloads that can prove who they are: it serves them, and so must its successor.
    pub identified: BTreeSet<String>,
}

/// A message. In the order in which they are said; `<` by the successor, `>` by the predecessor.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// `>` No. Says why.
    Refused(String),
    /// `<` The successor is there, and prepares.
    Hello(Introduction),
    /// `>` It may.
    Welcome(Welcome),
    /// `<` The successor is prepared: the predecessor is to write nothing any more that both would write.
    Yield,
    /// `>` It does not. With the lock of the instance.
    Yielded,
    /// `<` New connections come to the successor.
    Serving,
    /// `>` A flow is offered: its state. With its leg to the application and its leg to the other node.
    Flow(Zeroizing<Vec<u8>>),
    /// `<` The flow is restored, and neither leg has been touched.
    Restored,
    /// `<` It is not, and neither leg has been touched. Says why.
    NotRestored(String),
    /// `>` The flow is the successor's. The predecessor never touches it again.
    Yours,
}

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many descriptors come with it.
    pub descriptors: usize,
    /// Bytes of the body.
    pub length: usize,
}

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("it speaks version {0} of the hand-over's protocol, and this agent version {VERSION}")]
    Version(u16),
    #[error("the header of its message makes no sense")]
    Header,
    #[error("its message has {0} bytes, more than any may have")]
    TooLong(usize),
    #[error("its message cannot be read")]
    Body,
    #[error("its message came with {found} descriptors in place of {wanted}")]
    Descriptors { wanted: usize, found: usize },
}

impl Header {
    /// # Errors
    /// If no agent of this version sends such a header.
    pub fn parse(bytes: [u8; HEADER]) -> Result<Self, Malformed> {
        let [v0, v1, descriptors, zero, l0, l1, l2, l3] = bytes;
        let version = u16::from_le_bytes([v0, v1]);
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if zero != 0 || length == 0 || descriptors > 2 {
            return Err(Malformed::Header);
        }
        if length > LONGEST_FLOW {
            return Err(Malformed::TooLong(length));
        }
        Ok(Self { descriptors: descriptors.into(), length })
    }
}

impl Message {
    /// Header and body. They may hold the secrets of a flow.
    ///
    /// # Errors
    /// If the message is longer than any may be.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, Malformed> {
        let size = postcard::serialize_with_flavor(self, Size::default());
        let size = size.map_err(|_| Malformed::Body)?;
        self.check_length(size)?;
        // In one piece of memory, so that no copy of a secret stays behind where it has grown.
        let mut bytes = Zeroizing::new(vec![0; HEADER + size]);
        bytes[..2].copy_from_slice(&VERSION.to_le_bytes());
        bytes[2] = self.descriptors() as u8;
        bytes[4..HEADER].copy_from_slice(&(size as u32).to_le_bytes());
        postcard::to_slice(self, &mut bytes[HEADER..]).map_err(|_| Malformed::Body)?;
        Ok(bytes)
    }

    /// Reads the body of a message, with which so many descriptors have come.
    ///
    /// # Errors
    /// If no agent of this version sends such a message.
    pub fn decode(body: &[u8], descriptors: usize) -> Result<Self, Malformed> {
        let (message, rest) =
            postcard::take_from_bytes::<Self>(body).map_err(|_| Malformed::Body)?;
        if !rest.is_empty() {
            return Err(Malformed::Body);
        }
        message.check_length(body.len())?;
        let wanted = message.descriptors();
        if descriptors != wanted {
            return Err(Malformed::Descriptors { wanted, found: descriptors });
        }
        Ok(message)
    }

    /// A refusal that is not longer than it may be.
    #[must_use]
    pub fn refused(why: &str) -> Self {
        Self::Refused(shortened(why))
    }

    /// The same, of a flow.
    #[must_use]
    pub fn not_restored(why: &str) -> Self {
        Self::NotRestored(shortened(why))
    }

    /// A welcome that is not longer than it may be: more workloads than it has room for are not told.
    #[must_use]
    pub fn welcome(introduction: Introduction, identified: BTreeSet<String>) -> Self {
        let mut room = LONGEST_WELCOME - LONGEST;
        let told = identified.into_iter().take_while(|key| {
            let needed = key.len() + size_of::<u64>();
            let fits = needed <= room;
            room = room.saturating_sub(needed);
            fits
        });
        Self::Welcome(Welcome { introduction, identified: told.collect() })
    }

    /// How many descriptors come with it.
    fn descriptors(&self) -> usize {
        match self {
            Self::Yielded => 1,
            Self::Flow(_) => 2,
            _ => 0,
        }
    }

    fn check_length(&self, length: usize) -> Result<(), Malformed> {
        let longest = match self {
            Self::Flow(_) => LONGEST_FLOW,
            Self::Welcome(_) => LONGEST_WELCOME,
            _ => LONGEST,
        };
        if length > longest { Err(Malformed::TooLong(length)) } else { Ok(()) }
    }
}

/// Without the state of a flow, which is nobody's business.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => f.debug_tuple("Refused").field(why).finish(),
            Self::Hello(who) => f.debug_tuple("Hello").field(who).finish(),
            Self::Welcome(welcome) => {
                f.debug_tuple("Welcome").field(&welcome.introduction).finish()
            }
            Self::Yield => f.write_str("Yield"),
            Self::Yielded => f.write_str("Yielded"),
            Self::Serving => f.write_str("Serving"),
            Self::Flow(_) => f.write_str("Flow"),
            Self::Restored => f.write_str("Restored"),
            Self::NotRestored(why) => f.debug_tuple("NotRestored").field(why).finish(),
            Self::Yours => f.write_str("Yours"),
        }
    }
}

fn shortened(text: &str) -> String {
    let end = (0..=text.len().min(LONGEST_TEXT)).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or_default()].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all() -> Vec<Message> {
        let introduction = Introduction { agent: "1.2.3".to_owned(), abi: 7 };
        vec![
            Message::refused("no"),
            Message::Hello(introduction.clone()),
            Message::welcome(introduction, ["web", "client"].map(str::to_owned).into()),
            Message::Yield,
            Message::Yielded,
            Message::Serving,
            Message::Flow(Zeroizing::new(vec![1, 2, 3])),
            Message::Restored,
            Message::not_restored("why"),
            Message::Yours,
        ]
    }

    fn header(bytes: &[u8]) -> Result<Header, Malformed> {
        Header::parse(bytes[..HEADER].try_into().unwrap())
    }

    #[test]
    fn what_is_encoded_reads_back_and_nothing_that_is_cut_or_longer_does() {
        for message in all() {
            let bytes = message.encode().unwrap();
            let Header { descriptors, length } = header(&bytes).unwrap();
            assert_eq!(length, bytes.len() - HEADER);
            let body = &bytes[HEADER..];
            assert_eq!(Message::decode(body, descriptors).unwrap(), message);
            for end in 0..body.len() {
                assert!(Message::decode(&body[..end], descriptors).is_err(), "{message:?} {end}");
            }
            let longer = [body, &[0]].concat();
            assert_eq!(Message::decode(&longer, descriptors), Err(Malformed::Body));
        }
    }

    #[test]
    fn descriptors_come_with_those_messages_that_need_them() {
        for message in all() {
            let bytes = message.encode().unwrap();
            let wanted = header(&bytes).unwrap().descriptors;
            for found in (0..=3).filter(|found| *found != wanted) {
                let error = Message::decode(&bytes[HEADER..], found).unwrap_err();
                assert_eq!(error, Malformed::Descriptors { wanted, found });
            }
        }
    }

    #[test]
    fn another_version_is_told_from_nonsense() {
        let mut bytes = Message::Yield.encode().unwrap();
        bytes[..2].copy_from_slice(&9_u16.to_le_bytes());
        assert_eq!(header(&bytes), Err(Malformed::Version(9)));
        let with = |at: usize, value: u8| {
            let mut bytes = Message::Yield.encode().unwrap();
            bytes[at] = value;
            header(&bytes)
        };
        assert_eq!(with(2, 3), Err(Malformed::Header));
        assert_eq!(with(3, 1), Err(Malformed::Header));
        assert_eq!(with(4, 0), Err(Malformed::Header));
        assert_eq!(with(7, 1), Err(Malformed::TooLong((1 << 24) + 1)));
    }

    /// Every later version has to read the header.
    #[test]
    fn a_message_has_these_bytes() {
        let bytes = Message::refused("no").encode().unwrap();
        assert_eq!(bytes[..], [1, 0, 0, 0, 4, 0, 0, 0, 0, 2, b'n', b'o']);
        let bytes = Message::Flow(Zeroizing::new(vec![9])).encode().unwrap();
        assert_eq!(bytes[..], [1, 0, 2, 0, 3, 0, 0, 0, 6, 1, 9]);
    }

    #[test]
    fn the_state_of_a_flow_is_not_shown() {
        let flow = Message::Flow(Zeroizing::new(vec![222; 9]));
        assert_eq!(format!("{flow:?}"), "Flow");
        assert_eq!(format!("{:?}", Message::refused("no")), "Refused(\"no\")");
    }

    #[test]
    fn a_welcome_tells_as_many_workloads_as_it_has_room_for() {
        let introduction = Introduction { agent: "1.2.3".to_owned(), abi: 7 };
        let key = |number: usize| format!("\u{1}00000000-0000-4000-8000-{number:012}");
        for (wanted, told) in [(16_000, 16_000), (40_000, 23_000)] {
            let welcome = Message::welcome(introduction.clone(), (0..wanted).map(key).collect());
            let bytes = welcome.encode().unwrap();
            let Message::Welcome(read) = Message::decode(&bytes[HEADER..], 0).unwrap() else {
                panic!()
            };
            let count = read.identified.len();
            assert!((told..=wanted).contains(&count), "{count} of {wanted}");
        }
    }

    #[test]
    fn only_the_state_of_a_flow_is_long() {
        let flow = Message::Flow(Zeroizing::new(vec![0; LONGEST_FLOW - 10]));
        let bytes = flow.encode().unwrap();
        assert_eq!(Message::decode(&bytes[HEADER..], 2).unwrap(), flow);
        let flow = Message::Flow(Zeroizing::new(vec![0; LONGEST_FLOW]));
        assert!(matches!(flow.encode(), Err(Malformed::TooLong(_))));
        let long = "ü".repeat(LONGEST);
        assert!(matches!(Message::Refused(long.clone()).encode(), Err(Malformed::TooLong(_))));
        let Message::Refused(text) = Message::refused(&long) else { unreachable!() };
        assert_eq!(text.len(), LONGEST_TEXT);
        assert!(Message::refused(&format!("x{long}")).encode().is_ok());
        let body = postcard::to_allocvec(&Message::Refused(long)).unwrap();
        assert!(matches!(Message::decode(&body, 0), Err(Malformed::TooLong(_))));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_message_or_an_error(bytes: [u8; HEADER], body: Vec<u8>, count in 0..4_usize) {
            let _ = Header::parse(bytes);
            if let Ok(message) = Message::decode(&body, count) {
                let again = message.encode().unwrap();
                prop_assert_eq!(Message::decode(&again[HEADER..], count).unwrap(), message);
            }
        }
    }
}
