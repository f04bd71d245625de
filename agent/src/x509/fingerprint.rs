//! SHA-256 of something in DER, as people compare certificates by it.

use std::fmt;

use aws_lc_rs::digest::{Context, Digest, SHA256, digest};
use base64ct::{Base64, Encoding};

/// A SHA-256 digest. Displayed in lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_digest(&digest(&SHA256, bytes))
    }

    /// Of several things, each with its length (64 bits, big-endian) before it: no other sequence has the same
    /// bytes.
    #[must_use]
    pub fn of_sequence<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        Self::from_digest(&context.finish())
    }

    fn from_digest(digest: &Digest) -> Self {
        let mut value = [0; 32];
        value.copy_from_slice(digest.as_ref());
        Self(value)
    }

    /// From 64 hexadecimal digits, with or without colons between the bytes, or from 44 characters of base64.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        parse_hex(text).or_else(|| parse_base64(text)).map(Self)
    }
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = if text.len() == 64 + 31 {
        let groups: Vec<_> = text.split(':').collect();
        if groups.iter().any(|group| group.len() != 2) {
            return None;
        }
        groups.concat().into_bytes()
    } else {
        text.bytes().collect()
    };
    if digits.len() != 64 {
        return None;
    }
    let mut value = [0; 32];
    for (byte, pair) in value.iter_mut().zip(digits.chunks_exact(2)) {
        let high = (pair[0] as char).to_digit(16)?;
        let low = (pair[1] as char).to_digit(16)?;
        *byte = (high * 16 + low) as u8;
    }
    Some(value)
}

/// Base64 with padding (RFC 4648, 4), of exactly 32 bytes.
fn parse_base64(text: &str) -> Option<[u8; 32]> {
    Base64::decode_vec(text).ok()?.try_into().ok()
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_forms_that_tools_print_are_read() {
        let expected = Fingerprint::of(b"");
        assert_eq!(expected.to_string(), EMPTY);
        let colons: Vec<_> =
            EMPTY.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap()).collect();
        for text in [
            EMPTY.to_owned(),
            EMPTY.to_uppercase(),
            colons.join(":"),
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".to_owned(),
        ] {
            assert_eq!(Fingerprint::parse(&text), Some(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "e3b0",
            &EMPTY[1..],
            &format!("{EMPTY}00"),
            &EMPTY.replace('e', "g"),
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
        ] {
            assert_eq!(Fingerprint::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_can_be_read(bytes: Vec<u8>) {
            let fingerprint = Fingerprint::of(&bytes);
            prop_assert_eq!(Fingerprint::parse(&fingerprint.to_string()), Some(fingerprint));
        }

        #[test]
        fn sequences_differ_wherever_they_are_cut(bytes: Vec<u8>, cuts: [prop::sample::Index; 2]) {
            let [one, two] = cuts.map(|cut| cut.index(bytes.len() + 1));
            let of = |cut| Fingerprint::of_sequence(<[&[u8]; 2]>::from(bytes.split_at(cut)));
            prop_assert_eq!(of(one) == of(two), one == two);
            prop_assert_ne!(of(one), Fingerprint::of_sequence([&bytes[..]]));
            prop_assert_ne!(of(one), Fingerprint::of_sequence([&bytes[..one], &bytes[one..], b""]));
        }

        #[test]
        fn never_panics(text in ".{0,100}") {
            let _ = Fingerprint::parse(&text);
        }
    }
}
