//! Records for tests, also ones that nobody should send.

use super::{HEADER, Keys, TAG};

/// A record with any content of any type, padded.
pub(crate) fn record(keys: &mut Keys, content: &[u8], kind: u8, padding: usize) -> Vec<u8> {
    let mut inner = content.to_vec();
    inner.push(kind);
    inner.resize(inner.len() + padding, 0);
    let length = (inner.len() + TAG) as u16;
    let header: [u8; HEADER] = [23, 3, 3, (length >> 8) as u8, length as u8];
    let tag = keys.seal(header, &mut inner).unwrap();
    [header.as_slice(), &inner, &tag].concat()
}
