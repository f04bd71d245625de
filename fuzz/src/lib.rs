//! What fuzz targets share.

use std::hash::{DefaultHasher, Hash, Hasher};

/// A few ways to cut a stream up, one of them in pieces of up to `longest`: others for each stream, the same for the
/// same one.
#[must_use]
pub fn cuts(stream: &[u8], longest: usize) -> [Vec<&[u8]>; 2] {
    let mut hasher = DefaultHasher::new();
    stream.hash(&mut hasher);
    // Many pieces of short streams, not many more of long ones.
    [1 + stream.len() / 50, longest].map(|most| {
        let (mut pieces, mut rest) = (Vec::new(), stream);
        while !rest.is_empty() {
            hasher.write_u8(0);
            let length = 1 + hasher.finish() as usize % most;
            let (piece, later) = rest.split_at(length.min(rest.len()));
            pieces.push(piece);
            rest = later;
        }
        pieces
    })
}
