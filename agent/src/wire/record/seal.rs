//! From plaintext to records.

use super::{ContentType, HEADER, Keys, LONGEST_CONTENT, OVERHEAD, TAG, VERSION};

/// A `KeyUpdate` that asks for none in return (RFC 8446, 4.6.3), as the content of a record.
pub const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// Records that are left of a key's limit when it is time for the next key: more than one buffer holds.
pub(crate) const RESERVE: u64 = 1 << 10;

/// Seals the records of one direction.
#[derive(Debug)]
pub struct Sealer {
    keys: Keys,
}

/// Why a record cannot be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("the content does not fit into a record")]
    Length,
    #[error("the keys are used up")]
    Spent,
}

impl Sealer {
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        Self { keys }
    }

    /// Makes a record of `record`, in which the content lies between [`HEADER`] and
    /// [`TRAILER`](super::TRAILER) bytes of room.
    ///
    /// # Errors
    /// If the content is too long, or if the keys may not be used any more.
    pub fn seal(&mut self, kind: ContentType, record: &mut [u8]) -> Result<(), SealError> {
        let content = record.len().checked_sub(OVERHEAD).ok_or(SealError::Length)?;
        if content > LONGEST_CONTENT {
            return Err(SealError::Length);
        }
        if self.keys.remaining() == 0 {
            return Err(SealError::Spent);
        }
        let header = header(record.len() - HEADER);
        record[..HEADER].copy_from_slice(&header);
        record[HEADER + content] = kind as u8;
        let (inner, tag) = record[HEADER..].split_at_mut(content + 1);
        let sealed = self.keys.seal(header, inner).map_err(|_| SealError::Spent)?;
        tag.copy_from_slice(&sealed);
        Ok(())
    }

    /// Makes a record with a copy of `content` at the start of `room`, and returns its length.
    ///
    /// # Errors
    /// As [`Self::seal`], and if there is not enough room.
    pub fn seal_copy(
        &mut self,
        kind: ContentType,
        content: &[u8],
        room: &mut [u8],
    ) -> Result<usize, SealError> {
        let length = content.len() + OVERHEAD;
        let record = room.get_mut(..length).ok_or(SealError::Length)?;
        record[HEADER..HEADER + content.len()].copy_from_slice(content);
        self.seal(kind, record)?;
        Ok(length)
    }

    /// True when it is time to send a [`KEY_UPDATE`] and to [`rekey`](Self::rekey).
    #[must_use]
    pub fn wants_rekey(&self) -> bool {
        self.keys.remaining() <= RESERVE
    }

    /// Goes on with the next keys. The last record of the old ones must be a [`KEY_UPDATE`].
    pub fn rekey(&mut self, keys: Keys) {
        self.keys = keys;
    }

    /// The number of the next record: with the secret, all that another process needs.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.keys.sequence()
    }

    /// Takes less memory until there is something to seal.
    pub fn rest(&mut self) {
        self.keys.rest();
    }
}

/// Of a record with `length` bytes behind the header.
fn header(length: usize) -> [u8; HEADER] {
    debug_assert!(length <= LONGEST_CONTENT + 1 + TAG);
    let [high, low] = (length as u16).to_be_bytes();
    [ContentType::ApplicationData as u8, VERSION[0], VERSION[1], high, low]
}
