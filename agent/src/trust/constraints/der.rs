//! The DER of names and their constraints.

use x509_parser::asn1_rs::{Any, Class, FromDer, Tag};
use x509_parser::prelude::X509Certificate;

/// The bytes are not DER, or not of the expected form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// The value of an extension. One that is there twice cannot be read.
pub fn extension<'c>(
    certificate: &X509Certificate<'c>,
    oid: &str,
) -> Result<Option<&'c [u8]>, Unreadable> {
    let mut values = certificate
        .extensions()
        .iter()
        .filter(|extension| extension.oid.to_id_string() == oid)
        .map(|extension| extension.value);
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(Unreadable),
    }
}

/// The next value, and what is behind it.
pub fn next(bytes: &[u8]) -> Result<(Any<'_>, &[u8]), Unreadable> {
    let (rest, value) = Any::from_der(bytes).map_err(|_| Unreadable)?;
    Ok((value, rest))
}

/// The content of a SEQUENCE, behind which there must be nothing.
pub fn sequence(bytes: &[u8]) -> Result<&[u8], Unreadable> {
    match next(bytes)? {
        (value, []) if value.tag() == Tag::Sequence && value.class() == Class::Universal => {
            Ok(value.data)
        }
        _ => Err(Unreadable),
    }
}

/// The content of a value, and what is behind it.
pub type Parts<'c> = (&'c [u8], &'c [u8]);

/// The content of the constructed value `[tag]`, if that comes next, and what is behind it.
pub fn optional(bytes: &[u8], tag: u32) -> Result<Option<Parts<'_>>, Unreadable> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (value, rest) = next(bytes)?;
    let is_it = value.class() == Class::ContextSpecific
        && value.tag() == Tag(tag)
        && value.header.constructed();
    Ok(is_it.then_some((value.data, rest)))
}
