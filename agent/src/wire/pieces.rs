//! Places of a buffer that wait to be written to the application, in order.

use std::io::IoSlice;
use std::ops::Range;

/// Pieces that are written at once: as many as the largest buffer holds full records, and some for small ones.
pub const PIECES: usize = 24;

/// What is written at once.
pub struct Slices<'b> {
    slices: [IoSlice<'b>; PIECES],
    count: usize,
}

impl<'b> Slices<'b> {
    /// One piece, or none if it is empty.
    pub(super) fn of(piece: &'b [u8]) -> Self {
        let mut slices = [IoSlice::new(&[]); PIECES];
        slices[0] = IoSlice::new(piece);
        Self { slices, count: usize::from(!piece.is_empty()) }
    }

    #[must_use]
    pub fn as_slice(&self) -> &[IoSlice<'b>] {
        &self.slices[..self.count]
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Places that wait, of which none is empty.
#[derive(Debug, Default)]
pub struct Pieces {
    places: [(u32, u32); PIECES],
    waiting: Range<usize>,
}

impl Pieces {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// True if no more can be pushed.
    pub fn is_full(&self) -> bool {
        self.waiting.end == PIECES
    }

    /// A buffer is far smaller than 4 GiB.
    pub fn push(&mut self, place: Range<usize>) {
        self.places[self.waiting.end] = (place.start as u32, place.end as u32);
        self.waiting.end += 1;
    }

    pub fn slices<'b>(&self, buffer: &'b [u8]) -> Slices<'b> {
        let mut slices = [IoSlice::new(&[]); PIECES];
        let places = &self.places[self.waiting.clone()];
        for (slice, (start, end)) in slices.iter_mut().zip(places) {
            *slice = IoSlice::new(&buffer[*start as usize..*end as usize]);
        }
        Slices { slices, count: places.len() }
    }

    /// So many bytes have been written.
    pub fn advance(&mut self, mut written: usize) {
        while let Some((start, end)) = self.places[self.waiting.clone()].first_mut() {
            let length = (*end - *start) as usize;
            if written < length {
                *start += written as u32;
                return;
            }
            written -= length;
            self.waiting.start += 1;
        }
        self.waiting = 0..0;
    }

    pub fn clear(&mut self) {
        self.waiting = 0..0;
    }
}
