//! The state of sessions and relays, in a form that another process can go on with.
//!
//! Each part of that state has a `save` and a `restore` beside it, which make and take a plain value: `SavedReader`,
//! `SavedWatch` and so on. What belongs together is encoded as a whole, behind the version of its format. A later agent
//! reads every version that an agent before it may have written; one that it does not know is refused, and nothing of
//! it is used. What was read is checked as if a stranger had sent it.
//!
//! The encoded form has traffic secrets and bytes of the application in it. It is erased when it is dropped.

use postcard::ser_flavors::Size;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The encoded state of a session, and the name of its kind: what [`Mode::restore`](super::Mode) takes.
#[derive(Serialize, Deserialize)]
pub struct SavedWire {
    pub mode: String,
    pub state: Encoded,
}

/// A value behind the version of its format.
#[derive(Serialize, Deserialize)]
pub struct Encoded {
    version: u16,
    bytes: Zeroizing<Vec<u8>>,
}

/// Why a state cannot be saved for another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSaved {
    /// The records are those of the TLS library, whose state is its own.
    #[error("the session's records are left to the TLS library, which keeps its state to itself")]
    Library,
    #[error("the state cannot be encoded")]
    Encoding,
}

/// Why a saved state cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum NotRestored {
    #[error("the state is of the unknown version {0}; was it saved by a later agent?")]
    Version(u16),
    #[error("the state is of a kind of session that this agent does not have: {0}")]
    Mode(String),
    #[error("the state is damaged")]
    Decoding,
    /// No agent can have saved such a state.
    #[error("the state contradicts itself: {0}")]
    Contradiction(&'static str),
    #[error("the connection cannot be used: {0}")]
    Connection(#[from] std::io::Error),
}

impl Encoded {
    /// # Errors
    /// If a value cannot be encoded at all.
    pub fn new<T: Serialize>(version: u16, value: &T) -> Result<Self, NotSaved> {
        let encoding = |_| NotSaved::Encoding;
        // In one piece of memory, so that no copy of a secret stays behind where it has grown.
        let size = postcard::serialize_with_flavor(value, Size::default()).map_err(encoding)?;
        let mut bytes = Zeroizing::new(vec![0; size]);
        postcard::to_slice(value, &mut bytes).map_err(encoding)?;
        Ok(Self { version, bytes })
    }

    /// The value, if it is of this version.
    ///
    /// # Errors
    /// If it is of another, or not whole.
    pub fn decode<T: DeserializeOwned>(&self, version: u16) -> Result<T, NotRestored> {
        if self.version != version {
            return Err(NotRestored::Version(self.version));
        }
        let (value, rest) =
            postcard::take_from_bytes(&self.bytes).map_err(|_| NotRestored::Decoding)?;
        if rest.is_empty() { Ok(value) } else { Err(NotRestored::Decoding) }
    }

    /// All of it in one piece: the version, and the encoded value behind it.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(size_of::<u16>() + self.bytes.len()));
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes.extend_from_slice(&self.bytes);
        bytes
    }

    /// What [`Self::to_bytes`] has made.
    ///
    /// # Errors
    /// If it has not even a version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NotRestored> {
        let (version, bytes) = bytes.split_first_chunk().ok_or(NotRestored::Decoding)?;
        let (version, bytes) = (u16::from_be_bytes(*version), Zeroizing::new(bytes.to_vec()));
        Ok(Self { version, bytes })
    }

    #[must_use]
    pub fn version(&self) -> u16 {
        self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_another_version_or_not_whole_is_refused() {
        let mut encoded = Encoded::new(3, &("secret".to_owned(), 7_u8)).unwrap();
        assert_eq!(encoded.decode::<(String, u8)>(3).unwrap(), ("secret".to_owned(), 7));
        let refused = encoded.decode::<(String, u8)>(2).unwrap_err();
        assert!(matches!(refused, NotRestored::Version(3)), "{refused}");
        let bytes = encoded.to_bytes();
        let same = Encoded::from_bytes(&bytes).unwrap();
        assert_eq!(same.decode::<(String, u8)>(3).unwrap(), ("secret".to_owned(), 7));
        assert!(Encoded::from_bytes(&bytes[..1]).is_err());
        encoded.bytes.push(0);
        let refused = encoded.decode::<(String, u8)>(3).unwrap_err();
        assert!(matches!(refused, NotRestored::Decoding), "{refused}");
        encoded.bytes.truncate(2);
        assert!(encoded.decode::<(String, u8)>(3).is_err());
    }
}
