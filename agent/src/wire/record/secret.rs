//! Traffic secrets, from which keys come one after the other (RFC 8446, 7).

use std::fmt;

use aws_lc_rs::hkdf::{Algorithm, HKDF_SHA256, HKDF_SHA384, KeyType, Prk};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::aead::{Cipher, NONCE};
use super::{Keys, UnsupportedKeys};

/// The output of the longest hash of TLS 1.3, SHA-384.
const LONGEST: usize = 48;
/// The longest key of a cipher.
const LONGEST_KEY: usize = 32;
/// The longest `HkdfLabel` here: two lengths, `tls13 traffic upd`, and an empty context.
const LONGEST_LABEL: usize = 2 + 1 + 17 + 1;

/// The secret of one direction, `application_traffic_secret_N`. It is erased when it is dropped.
pub struct TrafficSecret {
    cipher: Cipher,
    /// As many bytes of it as the hash of the cipher's suite has.
    secret: Zeroizing<[u8; LONGEST]>,
    #[cfg(test)]
    limit: Option<u64>,
}

/// A [`TrafficSecret`] for another process.
#[derive(Serialize, Deserialize)]
pub struct SavedSecret {
    cipher: Cipher,
    secret: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for TrafficSecret {
    /// Never the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrafficSecret").field("cipher", &self.cipher).finish_non_exhaustive()
    }
}

impl TrafficSecret {
    /// # Errors
    /// If it is not as long as the hash that goes with the cipher makes it (RFC 8446, B.4).
    pub fn new(cipher: Cipher, secret: &[u8]) -> Result<Self, UnsupportedKeys> {
        let mut held = Zeroizing::new([0; LONGEST]);
        if secret.len() != hash(cipher).len() {
            return Err(UnsupportedKeys);
        }
        held[..secret.len()].copy_from_slice(secret);
        Ok(Self {
            cipher,
            secret: held,
            #[cfg(test)]
            limit: None,
        })
    }

    /// The keys for the records under this secret.
    ///
    /// # Errors
    /// Only if the library fails.
    pub fn keys(&self) -> Result<Keys, UnsupportedKeys> {
        self.keys_from(0)
    }

    /// The same, when records have gone before the one with this number.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub fn keys_from(&self, sequence: u64) -> Result<Keys, UnsupportedKeys> {
        let mut key = Zeroizing::new([0; LONGEST_KEY]);
        let key = &mut key[..self.cipher.key_len()];
        let mut iv = [0; NONCE];
        self.expand(b"key", key)?;
        self.expand(b"iv", &mut iv)?;
        let keys = Keys::of(self.cipher, key, &iv, sequence)?;
        #[cfg(test)]
        let keys = match self.limit {
            Some(limit) => keys.with_limit(limit),
            None => keys,
        };
        Ok(keys)
    }

    /// Goes on to the next secret, as a KeyUpdate says (RFC 8446, 7.2), and returns its keys.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub fn update(&mut self) -> Result<Keys, UnsupportedKeys> {
        let mut next = Zeroizing::new([0; LONGEST]);
        self.expand(b"traffic upd", &mut next[..hash(self.cipher).len()])?;
        self.secret = next;
        self.keys()
    }

    #[must_use]
    pub fn save(&self) -> SavedSecret {
        let secret = self.secret[..hash(self.cipher).len()].to_vec();
        SavedSecret { cipher: self.cipher, secret: Zeroizing::new(secret) }
    }

    /// # Errors
    /// As [`Self::new`].
    pub fn restore(saved: &SavedSecret) -> Result<Self, UnsupportedKeys> {
        Self::new(saved.cipher, &saved.secret)
    }

    /// `HKDF-Expand-Label` of the secret, with an empty context (RFC 8446, 7.1).
    fn expand(&self, label: &[u8], out: &mut [u8]) -> Result<(), UnsupportedKeys> {
        const PREFIX: &[u8] = b"tls13 ";
        let mut info = [0; LONGEST_LABEL];
        let length = PREFIX.len() + label.len();
        info[..2].copy_from_slice(&(out.len() as u16).to_be_bytes());
        info[2] = length as u8;
        info[3..3 + PREFIX.len()].copy_from_slice(PREFIX);
        info[3 + PREFIX.len()..3 + length].copy_from_slice(label);
        let info = [&info[..3 + length + 1]];

        let hash = hash(self.cipher);
        let secret = Prk::new_less_safe(hash, &self.secret[..hash.len()]);
        let expanded = secret.expand(&info, Length(out.len())).map_err(|_| UnsupportedKeys)?;
        expanded.fill(out).map_err(|_| UnsupportedKeys)
    }

    /// Keys that come from it may seal this many records.
    #[cfg(test)]
    pub(crate) fn with_limit(self, limit: u64) -> Self {
        Self { limit: Some(limit), ..self }
    }
}

/// The hash of the suite that has this cipher.
fn hash(cipher: Cipher) -> Algorithm {
    match cipher {
        Cipher::Aes128Gcm | Cipher::ChaCha20Poly1305 => HKDF_SHA256,
        Cipher::Aes256Gcm => HKDF_SHA384,
    }
}

/// Bytes to expand to.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}
