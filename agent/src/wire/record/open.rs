//! From records to plaintext.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::handshake::{Message, PostHandshake, SavedPostHandshake};
use super::{
    Alert, ContentType, HEADER, Keys, LONGEST_CIPHERTEXT, LONGEST_CONTENT, RecordError, TAG,
    TrafficSecret,
};
use crate::wire::saved::NotRestored;

/// Records that carry nothing for the application and may follow each other; more are an attack on our time. As
/// many as OpenSSL allows.
const MOST_IDLE: u8 = 32;

/// Opens the records of one direction.
#[derive(Debug)]
pub struct Opener {
    keys: Keys,
    post_handshake: PostHandshake,
    /// Records since the last one with content.
    idle: u8,
}

/// An [`Opener`] for another process, its secret apart.
#[derive(Serialize, Deserialize)]
pub struct SavedOpener {
    /// The number of the next record.
    sequence: u64,
    post_handshake: SavedPostHandshake,
    idle: u8,
}

/// What a record was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Content for the application, at this place of the buffer.
    Data(Range<usize>),
    /// Nothing to act on.
    Nothing,
    /// The peer's next record comes with its next keys: [`Opener::rekey`] before opening it.
    KeyUpdate {
        /// It asks for ours as well.
        is_requested: bool,
    },
    /// Nothing more will come.
    Closed,
}

impl Opener {
    /// Of what a client sends.
    #[must_use]
    pub fn of_client(keys: Keys) -> Self {
        Self { keys, post_handshake: PostHandshake::of_client(), idle: 0 }
    }

    /// Of what a server sends.
    #[must_use]
    pub fn of_server(keys: Keys) -> Self {
        Self { keys, post_handshake: PostHandshake::of_server(), idle: 0 }
    }

    /// Opens the record at the start of `buffer` in place. Returns how long it was, or `None` if it is not there
    /// as a whole yet.
    ///
    /// # Errors
    /// Final ones: the session must end, and nothing may be opened any more.
    pub fn open(&mut self, buffer: &mut [u8]) -> Result<Option<(usize, Opened)>, RecordError> {
        let Some((header, rest)) = buffer.split_first_chunk_mut::<HEADER>() else {
            return Ok(None);
        };
        let length = ciphertext_length(*header)?;
        let Some(ciphertext) = rest.get_mut(..length) else {
            return Ok(None);
        };
        let inner = self.keys.open(*header, ciphertext).ok_or(RecordError::BadMac)?;
        if inner > LONGEST_CONTENT + 1 {
            return Err(RecordError::Overflow);
        }
        let inner = &ciphertext[..inner];
        // The type is behind the content, and padding of zeros behind that.
        let Some(end) = inner.iter().rposition(|byte| *byte != 0) else {
            return Err(RecordError::Unexpected("no type"));
        };
        let content = &inner[..end];
        let opened = match inner[end] {
            kind if kind == ContentType::ApplicationData as u8 => {
                if self.post_handshake.is_inside_message() {
                    return Err(RecordError::Unexpected("data amid a handshake message"));
                }
                if content.is_empty() {
                    Opened::Nothing
                } else {
                    Opened::Data(HEADER..HEADER + end)
                }
            }
            kind if kind == ContentType::Alert as u8 => {
                let opened = alert(content)?;
                // Nothing may stand between the pieces of a message (RFC 8446, 5.1). A fatal alert says more than that.
                if self.post_handshake.is_inside_message() {
                    return Err(RecordError::Unexpected("an alert amid a handshake message"));
                }
                opened
            }
            kind if kind == ContentType::Handshake as u8 => {
                match self.post_handshake.read(content)? {
                    Message::None => Opened::Nothing,
                    Message::KeyUpdate { is_requested } => Opened::KeyUpdate { is_requested },
                }
            }
            _ => return Err(RecordError::Unexpected("unknown type")),
        };
        self.idle = match opened {
            Opened::Data(_) => 0,
            _ if self.idle == MOST_IDLE => return Err(RecordError::Idle),
            _ => self.idle + 1,
        };
        Ok(Some((HEADER + length, opened)))
    }

    /// Goes on with the peer's next keys.
    pub fn rekey(&mut self, keys: Keys) {
        self.keys = keys;
    }

    #[must_use]
    pub fn save(&self) -> SavedOpener {
        SavedOpener {
            sequence: self.keys.sequence(),
            post_handshake: self.post_handshake.save(),
            idle: self.idle,
        }
    }

    /// Goes on with the records of a client or of a server.
    ///
    /// # Errors
    /// If the state contradicts itself.
    pub fn restore(
        saved: &SavedOpener,
        is_of_client: bool,
        secret: &TrafficSecret,
    ) -> Result<Self, NotRestored> {
        let bad_keys = |_| NotRestored::Contradiction("keys that TLS 1.3 does not have");
        if saved.idle > MOST_IDLE {
            return Err(NotRestored::Contradiction("too many records without content"));
        }
        Ok(Self {
            keys: secret.keys_from(saved.sequence).map_err(bad_keys)?,
            post_handshake: PostHandshake::restore(&saved.post_handshake, is_of_client)?,
            idle: saved.idle,
        })
    }

    /// Takes less memory until there is something to open.
    pub fn rest(&mut self) {
        self.keys.rest();
    }
}

/// How many bytes follow a header. After the handshake every record looks like application data.
fn ciphertext_length(header: [u8; HEADER]) -> Result<usize, RecordError> {
    let [kind, _, _, high, low] = header;
    if kind != ContentType::ApplicationData as u8 {
        return Err(RecordError::Unexpected("not encrypted"));
    }
    match usize::from(u16::from_be_bytes([high, low])) {
        length if length > LONGEST_CIPHERTEXT => Err(RecordError::Overflow),
        // Not even room for a type.
        length if length <= TAG => Err(RecordError::BadMac),
        length => Ok(length),
    }
}

fn alert(content: &[u8]) -> Result<Opened, RecordError> {
    match content {
        [_, description] => match Alert(*description) {
            Alert::CLOSE_NOTIFY => Ok(Opened::Closed),
            // Followed by a close_notify, if it means anything.
            Alert::USER_CANCELED => Ok(Opened::Nothing),
            alert => Err(RecordError::Alert(alert)),
        },
        [] => Err(RecordError::Unexpected("an alert record without content")),
        _ => Err(RecordError::Undecodable),
    }
}
