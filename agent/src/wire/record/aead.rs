//! The ciphers of TLS 1.3 (RFC 8446, B.4), from the library that is fastest on this processor.
//!
//! aws-lc does the cryptography of the agent. Its AES-GCM is at its best with AVX-512, and falls back to single
//! AES instructions without, also where a processor has wide ones (VAES) with AVX2: AMD's Zen 3, and Intel's
//! processors for desktops since Alder Lake. There ring, whose code for these is BoringSSL's, takes half the time.

use aws_lc_rs::aead as aws_lc;
use ring::aead as ring;
use serde::{Deserialize, Serialize};

use super::{HEADER, TAG};
use crate::sys::erased::Erased;

pub(super) const NONCE: usize = 12;

/// What records are encrypted and authenticated with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl Cipher {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Aes128Gcm, Self::Aes256Gcm, Self::ChaCha20Poly1305];

    /// Bytes of a key.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }
}

/// A key, ready for use.
pub(super) enum Aead {
    AwsLc(aws_lc::LessSafeKey),
    /// ring does not erase its keys.
    Ring(Erased<ring::LessSafeKey>),
}

impl Aead {
    /// `None` if the key is not as long as the cipher's keys are.
    pub(super) fn new(cipher: Cipher, key: &[u8]) -> Option<Self> {
        if cipher != Cipher::ChaCha20Poly1305 && has_wide_aes_with_avx2_alone() {
            Self::ring(cipher, key)
        } else {
            Self::aws_lc(cipher, key)
        }
    }

    fn aws_lc(cipher: Cipher, key: &[u8]) -> Option<Self> {
        let algorithm = match cipher {
            Cipher::Aes128Gcm => &aws_lc::AES_128_GCM,
            Cipher::Aes256Gcm => &aws_lc::AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &aws_lc::CHACHA20_POLY1305,
        };
        let key = aws_lc::UnboundKey::new(algorithm, key).ok()?;
        Some(Self::AwsLc(aws_lc::LessSafeKey::new(key)))
    }

    fn ring(cipher: Cipher, key: &[u8]) -> Option<Self> {
        let algorithm = match cipher {
            Cipher::Aes128Gcm => &ring::AES_128_GCM,
            Cipher::Aes256Gcm => &ring::AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &ring::CHACHA20_POLY1305,
        };
        let key = ring::UnboundKey::new(algorithm, key).ok()?;
        Some(Self::Ring(Erased::new(ring::LessSafeKey::new(key))))
    }

    /// Encrypts in place, and returns the tag. No nonce may ever be used twice.
    pub(super) fn seal(
        &self,
        nonce: [u8; NONCE],
        header: [u8; HEADER],
        inner: &mut [u8],
    ) -> Option<[u8; TAG]> {
        match self {
            Self::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                let aad = aws_lc::Aad::from(header);
                let tag = key.seal_in_place_separate_tag(nonce, aad, inner).ok()?;
                tag.as_ref().try_into().ok()
            }
            Self::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                let aad = ring::Aad::from(header);
                let tag = key.seal_in_place_separate_tag(nonce, aad, inner).ok()?;
                tag.as_ref().try_into().ok()
            }
        }
    }

    /// Decrypts in place what has a tag at its end, and returns how long it is without. `None` if it is forged.
    pub(super) fn open(
        &self,
        nonce: [u8; NONCE],
        header: [u8; HEADER],
        ciphertext: &mut [u8],
    ) -> Option<usize> {
        let inner = match self {
            Self::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, aws_lc::Aad::from(header), ciphertext).ok()?
            }
            Self::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, ring::Aad::from(header), ciphertext).ok()?
            }
        };
        Some(inner.len())
    }
}

#[cfg(target_arch = "x86_64")]
fn has_wide_aes_with_avx2_alone() -> bool {
    is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq")
        && is_x86_feature_detected!("avx2")
        && !is_x86_feature_detected!("avx512bw")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_wide_aes_with_avx2_alone() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_one_library_seals_the_other_seals_alike_and_opens(
            cipher in prop::sample::select(&Cipher::ALL[..]),
            key in any::<[u8; 32]>(),
            nonce in any::<[u8; NONCE]>(),
            header in any::<[u8; HEADER]>(),
            content in prop::collection::vec(any::<u8>(), 0..1500),
            flipped in any::<prop::sample::Index>(),
        ) {
            let key = &key[..cipher.key_len()];
            let libraries = [Aead::aws_lc(cipher, key).unwrap(), Aead::ring(cipher, key).unwrap()];
            let sealed = libraries.each_ref().map(|aead| {
                let mut inner = content.clone();
                let tag = aead.seal(nonce, header, &mut inner).unwrap();
                [inner.as_slice(), &tag].concat()
            });
            prop_assert_eq!(&sealed[0], &sealed[1]);

            for aead in &libraries {
                let mut opened = sealed[0].clone();
                let length = aead.open(nonce, header, &mut opened);
                prop_assert_eq!(length, Some(content.len()));
                prop_assert_eq!(&opened[..content.len()], &content);

                let mut forged = sealed[0].clone();
                let place = flipped.index(forged.len());
                forged[place] ^= 1;
                prop_assert_eq!(aead.open(nonce, header, &mut forged), None);
            }
        }
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        for cipher in Cipher::ALL {
            for key in [&[][..], &[1; 15], &[1; 24], &[1; 33]] {
                assert!(Aead::aws_lc(cipher, key).is_none() && Aead::ring(cipher, key).is_none());
            }
        }
    }
}
