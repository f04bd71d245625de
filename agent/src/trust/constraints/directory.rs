//! Distinguished names, compared as directories do (RFC 5280, 7.1).

use std::fmt;

use x509_parser::asn1_rs::{Any, Class, FromDer as _, Tag};
use x509_parser::prelude::X509Name;

use super::der::{Unreadable, next, sequence};

/// `emailAddress` (1.2.840.113549.1.9.1), in DER.
const MAIL_ADDRESS: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01];

/// A distinguished name, or the upper part of one.
#[derive(Clone, Debug)]
pub struct Directory<'c> {
    raw: &'c [u8],
    /// From the root downwards; what is in one of them has no order.
    levels: Vec<Vec<(&'c [u8], Value<'c>)>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value<'c> {
    /// In lower case, with single spaces.
    Text(String),
    /// Type and bytes of what is no text.
    Else(u32, &'c [u8]),
}

/// Whether a name is in a subtree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    Within,
    Outside,
    /// It depends on how letters beyond ASCII are compared.
    Doubtful,
}

impl<'c> Directory<'c> {
    pub fn read(raw: &'c [u8]) -> Result<Self, Unreadable> {
        let (mut rest, mut levels) = (sequence(raw)?, Vec::new());
        while !rest.is_empty() {
            let (level, after) = next(rest)?;
            rest = after;
            if level.tag() != Tag::Set || level.class() != Class::Universal || level.data.is_empty()
            {
                return Err(Unreadable);
            }
            let (mut attributes, mut read) = (level.data, Vec::new());
            while !attributes.is_empty() {
                let (attribute, after) = next(attributes)?;
                attributes = after;
                if attribute.tag() != Tag::Sequence || attribute.class() != Class::Universal {
                    return Err(Unreadable);
                }
                let (oid, value) = next(attribute.data)?;
                let (value, []) = next(value)? else {
                    return Err(Unreadable);
                };
                if oid.tag() != Tag::Oid || oid.class() != Class::Universal {
                    return Err(Unreadable);
                }
                read.push((oid.data, Value::read(&value)?));
            }
            read.sort();
            levels.push(read);
        }
        Ok(Self { raw, levels })
    }

    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    pub fn has_mail_address(&self) -> bool {
        self.levels.iter().flatten().any(|(oid, _)| *oid == MAIL_ADDRESS)
    }

    /// Whether it begins as `base` does.
    pub fn likeness(&self, base: &Self) -> Likeness {
        if self.levels.len() < base.levels.len() {
            return Likeness::Outside;
        }
        let mut likeness = Likeness::Within;
        for (own, its) in self.levels.iter().zip(&base.levels) {
            if own == its {
                continue;
            }
            // Without these letters there is but one way to compare.
            let is_plain = |(_, value): &(&[u8], Value<'_>)| value.is_plain();
            let types = |level: &[(&[u8], Value<'_>)]| -> Vec<Vec<u8>> {
                level.iter().map(|(oid, _)| oid.to_vec()).collect()
            };
            if own.iter().chain(its).all(is_plain) || types(own) != types(its) {
                return Likeness::Outside;
            }
            likeness = Likeness::Doubtful;
        }
        likeness
    }
}

impl<'c> Value<'c> {
    fn read(value: &Any<'c>) -> Result<Self, Unreadable> {
        let bytes = value.data;
        if value.class() != Class::Universal {
            return Ok(Self::Else(value.tag().0, bytes));
        }
        let text = match value.tag() {
            Tag::Utf8String
            | Tag::PrintableString
            | Tag::Ia5String
            | Tag::VisibleString
            | Tag::NumericString => std::str::from_utf8(bytes).map_err(|_| Unreadable)?.to_owned(),
            // Read as Latin-1, which is what its makers mean.
            Tag::T61String => bytes.iter().map(|byte| char::from(*byte)).collect(),
            Tag::BmpString => {
                let (pairs, []) = bytes.as_chunks::<2>() else {
                    return Err(Unreadable);
                };
                let units = pairs.iter().map(|pair| u16::from_be_bytes(*pair));
                char::decode_utf16(units).collect::<Result<_, _>>().map_err(|_| Unreadable)?
            }
            Tag::UniversalString => {
                let (quads, []) = bytes.as_chunks::<4>() else {
                    return Err(Unreadable);
                };
                let letter = |quad: &[u8; 4]| char::from_u32(u32::from_be_bytes(*quad));
                quads.iter().map(letter).collect::<Option<_>>().ok_or(Unreadable)?
            }
            other => return Ok(Self::Else(other.0, bytes)),
        };
        let words: Vec<_> = text.split_whitespace().collect();
        Ok(Self::Text(words.join(" ").to_lowercase()))
    }

    fn is_plain(&self) -> bool {
        match self {
            Self::Text(text) => text.is_ascii(),
            Self::Else(..) => true,
        }
    }
}

impl fmt::Display for Directory<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match X509Name::from_der(self.raw) {
            Ok((_, name)) => write!(f, "{name}"),
            Err(_) => f.write_str("?"),
        }
    }
}
