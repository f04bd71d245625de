//! Handshake messages after the handshake (RFC 8446, 4.6). Of a ticket nothing is kept: a session that is resumed
//! would skip the peer's certificate.

use serde::{Deserialize, Serialize};

use super::RecordError;
use crate::wire::saved::NotRestored;

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
/// Bytes of a message's header: its type and its length.
const HEADER: usize = 4;

/// Reads messages that may come in pieces.
#[derive(Debug)]
pub struct PostHandshake {
    /// Tickets come from servers alone (RFC 8446, 4.6.1).
    may_send_tickets: bool,
    header: [u8; HEADER],
    /// Bytes of the header that are there.
    have: u8,
    /// Bytes of a ticket that are still to come, once its header is there.
    ticket: u32,
}

/// A [`PostHandshake`] for another process: what has come of a message that has not ended.
#[derive(Serialize, Deserialize)]
pub struct SavedPostHandshake {
    header: Vec<u8>,
    /// As in [`PostHandshake`].
    ticket: u32,
}

/// What came of the content of a record.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// Nothing to act on.
    None,
    KeyUpdate {
        is_requested: bool,
    },
}

impl PostHandshake {
    pub fn of_client() -> Self {
        Self::new(false)
    }

    pub fn of_server() -> Self {
        Self::new(true)
    }

    fn new(may_send_tickets: bool) -> Self {
        Self { may_send_tickets, header: [0; HEADER], have: 0, ticket: 0 }
    }

    /// Whether a message has begun that has not ended. No other type of record may come then.
    pub fn is_inside_message(&self) -> bool {
        self.have != 0
    }

    pub fn read(&mut self, mut content: &[u8]) -> Result<Message, RecordError> {
        if content.is_empty() {
            return Err(RecordError::Unexpected("a handshake record without content"));
        }
        while let Some((first, rest)) = content.split_first() {
            if usize::from(self.have) < HEADER {
                self.header[usize::from(self.have)] = *first;
                self.have += 1;
                content = rest;
                if usize::from(self.have) == HEADER {
                    self.begin()?;
                }
            } else if self.header[0] == KEY_UPDATE {
                // Keys change behind it, so nothing else may be in its record (RFC 8446, 5.1).
                if !rest.is_empty() {
                    return Err(RecordError::Unexpected("something behind a KeyUpdate"));
                }
                self.have = 0;
                return match first {
                    0 => Ok(Message::KeyUpdate { is_requested: false }),
                    1 => Ok(Message::KeyUpdate { is_requested: true }),
                    _ => Err(RecordError::Illegal("a KeyUpdate that asks for what there is not")),
                };
            } else {
                let skipped = content.len().min(self.ticket as usize);
                self.ticket -= skipped as u32;
                content = &content[skipped..];
                if self.ticket == 0 {
                    self.have = 0;
                }
            }
        }
        Ok(Message::None)
    }

    pub fn save(&self) -> SavedPostHandshake {
        SavedPostHandshake {
            header: self.header[..usize::from(self.have)].to_vec(),
            ticket: self.ticket,
        }
    }

    /// # Errors
    /// If no message can have begun so.
    pub fn restore(saved: &SavedPostHandshake, is_of_client: bool) -> Result<Self, NotRestored> {
        let wrong = || NotRestored::Contradiction("a handshake message that cannot have begun so");
        let mut restored = if is_of_client { Self::of_client() } else { Self::of_server() };
        let begun = restored.header.get_mut(..saved.header.len()).ok_or_else(wrong)?;
        begun.copy_from_slice(&saved.header);
        restored.have = saved.header.len() as u8;
        if saved.header.len() == HEADER {
            restored.begin().map_err(|_| wrong())?;
        }
        // Of a ticket, less may be left than there was.
        if saved.ticket > restored.ticket || (saved.ticket == 0) != (restored.ticket == 0) {
            return Err(wrong());
        }
        restored.ticket = saved.ticket;
        Ok(restored)
    }

    fn begin(&mut self) -> Result<(), RecordError> {
        let [kind, length @ ..] = self.header;
        let length = u32::from_be_bytes([0, length[0], length[1], length[2]]);
        match (kind, length) {
            (NEW_SESSION_TICKET, _) if !self.may_send_tickets => {
                Err(RecordError::Unexpected("a session ticket from a client"))
            }
            (KEY_UPDATE, 1) => Ok(()),
            (KEY_UPDATE, _) | (NEW_SESSION_TICKET, 0) => Err(RecordError::Undecodable),
            (NEW_SESSION_TICKET, _) => {
                self.ticket = length;
                Ok(())
            }
            _ => Err(RecordError::Unexpected("a handshake message")),
        }
    }
}
