//! Traffic keys of one direction.

use std::fmt;

use rustls::ConnectionTrafficSecrets;
use zeroize::Zeroizing;

use super::aead::{Aead, Cipher, NONCE};
use super::{HEADER, TAG};

/// Records that may be sealed with one AES-GCM key, and some room to spare: RFC 8446, 5.5 allows 2^24.5 of full
/// size.
const GCM_LIMIT: u64 = 1 << 24;

/// The longest key of a cipher.
const LONGEST: usize = 32;

/// The key and the initialisation vector of one direction, and the number of the next record. The key is erased when
/// this is dropped.
pub struct Keys {
    cipher: Cipher,
    /// As many bytes of it as the cipher's keys have.
    key: Zeroizing<[u8; LONGEST]>,
    /// The key as the cipher uses it, ten times as large: made when it is needed.
    expanded: Option<Aead>,
    iv: [u8; NONCE],
    sequence: u64,
    limit: u64,
}

/// The keys are of an algorithm that TLS 1.3 does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the keys are not ones of TLS 1.3")]
pub struct UnsupportedKeys;

impl fmt::Debug for Keys {
    /// Never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Keys {
    /// # Errors
    /// If TLS 1.3 has no such keys.
    pub fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, UnsupportedKeys> {
        let (cipher, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (Cipher::ChaCha20Poly1305, key, iv)
            }
            _ => return Err(UnsupportedKeys),
        };
        Self::of(cipher, key.as_ref(), iv.as_ref(), sequence)
    }

    /// From a key and an initialisation vector as they are.
    ///
    /// # Errors
    /// If one of them has not the length that the cipher asks for.
    pub fn of(
        cipher: Cipher,
        key: &[u8],
        iv: &[u8],
        sequence: u64,
    ) -> Result<Self, UnsupportedKeys> {
        if key.len() != cipher.key_len() {
            return Err(UnsupportedKeys);
        }
        let mut held = Zeroizing::new([0; LONGEST]);
        held[..key.len()].copy_from_slice(key);
        let iv = iv.try_into().map_err(|_| UnsupportedKeys)?;
        // With ChaCha20-Poly1305 the sequence number would wrap first.
        let limit = if cipher == Cipher::ChaCha20Poly1305 { u64::MAX } else { GCM_LIMIT };
        Ok(Self { cipher, key: held, expanded: None, iv, sequence, limit })
    }

    #[must_use]
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The number of the next record.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Records that may still be sealed with these keys.
    pub(super) fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.sequence)
    }

    #[cfg(test)]
    pub(crate) fn with_limit(self, limit: u64) -> Self {
        Self { limit, ..self }
    }

    /// Encrypts `inner` in place, and returns the tag.
    pub(super) fn seal(
        &mut self,
        header: [u8; HEADER],
        inner: &mut [u8],
    ) -> Result<[u8; TAG], Spent> {
        let nonce = self.next_nonce().ok_or(Spent)?;
        self.expanded().and_then(|aead| aead.seal(nonce, header, inner)).ok_or(Spent)
    }

    /// Decrypts in place what has a tag at its end, and returns how long it is without. `None` if it is forged.
    pub(super) fn open(&mut self, header: [u8; HEADER], ciphertext: &mut [u8]) -> Option<usize> {
        let nonce = self.next_nonce()?;
        self.expanded()?.open(nonce, header, ciphertext)
    }

    /// Releases the expanded key until the next record.
    pub(super) fn rest(&mut self) {
        self.expanded = None;
    }

    /// Always there, as the key has the length it must have.
    fn expanded(&mut self) -> Option<&Aead> {
        if self.expanded.is_none() {
            self.expanded = Aead::new(self.cipher, &self.key[..self.cipher.key_len()]);
        }
        self.expanded.as_ref()
    }

    /// The nonce of the next record (RFC 8446, 5.3): no number is used twice.
    fn next_nonce(&mut self) -> Option<[u8; NONCE]> {
        let mut nonce = self.iv;
        for (byte, number) in nonce[NONCE - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        self.sequence = self.sequence.checked_add(1)?;
        Some(nonce)
    }
}

/// Nothing more can be sealed with these keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spent;
