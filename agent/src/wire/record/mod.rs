//! The TLS 1.3 record layer (RFC 8446, 5) as it is after the handshake, without any I/O: [`Sealer`] and [`Opener`]
//! turn plaintext into records and back, in place, in buffers of the caller's.
//!
//! rustls does the handshake and hands over the traffic keys. From there on nothing of a record is copied, and
//! nothing is allocated for it. A record that does not open, or that breaks a rule, ends the session: every
//! error is final.

mod aead;
mod alert;
mod handshake;
mod keys;
mod open;
mod seal;
mod secret;

pub use aead::Cipher;
pub use alert::{Alert, CLOSE_NOTIFY};
pub use keys::{Keys, UnsupportedKeys};
pub use open::{Opened, Opener, SavedOpener};
#[cfg(test)]
pub(crate) use seal::RESERVE;
pub use seal::{KEY_UPDATE, SealError, Sealer};
pub use secret::{SavedSecret, TrafficSecret};

/// `TLSPlaintext.type` (RFC 8446, 5.1), of which these are seen after the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ContentType {
    Alert = 21,
    Handshake = 22,
    ApplicationData = 23,
}

/// Bytes of a record's header.
pub const HEADER: usize = 5;
/// Bytes behind a record's content: its type and the authentication tag.
pub const TRAILER: usize = 1 + TAG;
/// What a record of ours has besides its content.
pub const OVERHEAD: usize = HEADER + TRAILER;
/// The longest content of a record (RFC 8446, 5.1).
pub const LONGEST_CONTENT: usize = 1 << 14;
/// The longest record there is, header included (RFC 8446, 5.2).
pub const LONGEST_RECORD: usize = HEADER + LONGEST_CIPHERTEXT;

const TAG: usize = 16;
const LONGEST_CIPHERTEXT: usize = LONGEST_CONTENT + 256;
/// `legacy_record_version`: TLS 1.2, and to be ignored.
const VERSION: [u8; 2] = [3, 3];

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("a record that is too long")]
    Overflow,
    #[error("a record that was forged, damaged, repeated or left out")]
    BadMac,
    #[error("a record that makes no sense here: {0}")]
    Unexpected(&'static str),
    #[error("a message that cannot be decoded")]
    Undecodable,
    #[error("a message with a value that is not allowed: {0}")]
    Illegal(&'static str),
    #[error("too many records without content")]
    Idle,
    /// The peer ends the session, and says why.
    #[error("the peer ended it with the TLS alert {0}")]
    Alert(Alert),
}

impl RecordError {
    /// The alert to send to the peer (RFC 8446, 6.2); none if the peer itself has sent one.
    #[must_use]
    pub fn alert(&self) -> Option<Alert> {
        Some(match self {
            Self::Overflow => Alert::RECORD_OVERFLOW,
            Self::BadMac => Alert::BAD_RECORD_MAC,
            Self::Unexpected(_) | Self::Idle => Alert::UNEXPECTED_MESSAGE,
            Self::Undecodable => Alert::DECODE_ERROR,
            Self::Illegal(_) => Alert::ILLEGAL_PARAMETER,
            Self::Alert(_) => return None,
        })
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
