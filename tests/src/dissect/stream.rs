//! TCP streams put together from their segments, by sequence number.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::packet::Segment;
use super::tls::{self, NotTls};

/// One direction of one connection.
pub struct Stream {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// The payload in order, up to the first byte the tap did not see.
    pub bytes: Vec<u8>,
    /// Each segment's payload as it was sent, for [`Self::contains_split`].
    segments: Vec<Segment>,
    initial: u32,
    pub reset: bool,
}

impl Stream {
    fn start(segment: &Segment) -> Self {
        Self {
            source: segment.source,
            destination: segment.destination,
            bytes: Vec::new(),
            segments: Vec::new(),
            // The number before the first byte; a SYN takes it for itself.
            initial: segment.sequence.wrapping_sub(u32::from(!segment.is_syn())),
            reset: false,
        }
    }

    /// Whether the stream is TLS from its first byte to its last.
    ///
    /// # Errors
    /// What was found in place of a TLS record.
    pub fn tls_records(&self) -> Result<Vec<tls::Record<'_>>, NotTls> {
        tls::records(&self.bytes)
    }

    pub fn contains(&self, needle: &[u8]) -> bool {
        contains(&self.bytes, needle)
    }

    /// Whether the stream contains `needle` although no single segment does.
    pub fn contains_split(&self, needle: &[u8]) -> bool {
        self.contains(needle)
            && !self.segments.iter().any(|segment| contains(segment.payload(), needle))
    }

    fn assemble(&mut self) {
        let mut pieces: BTreeMap<u32, &Segment> = BTreeMap::new();
        for segment in &self.segments {
            // The SYN takes the initial number itself; its data, if any, starts one later.
            let number = segment.sequence.wrapping_add(u32::from(segment.is_syn()));
            let offset = number.wrapping_sub(self.initial).wrapping_sub(1);
            let longest = pieces.entry(offset).or_insert(segment);
            if segment.payload().len() > longest.payload().len() {
                *longest = segment;
            }
        }
        let mut bytes = Vec::new();
        for (offset, segment) in pieces {
            let Some(known) = bytes.len().checked_sub(offset as usize) else {
                break;
            };
            bytes.extend_from_slice(segment.payload().get(known..).unwrap_or_default());
        }
        self.bytes = bytes;
    }
}

/// Sorts segments into streams. A SYN with another initial number starts a new stream, so a port
/// used twice makes two.
pub fn reassemble(segments: &[Segment]) -> Vec<Stream> {
    let mut streams: Vec<Stream> = Vec::new();
    let mut current: BTreeMap<(SocketAddr, SocketAddr), usize> = BTreeMap::new();
    for segment in segments {
        let key = (segment.source, segment.destination);
        let known = current
            .get(&key)
            .copied()
            .filter(|&index| !segment.is_syn() || streams[index].initial == segment.sequence);
        let index = known.unwrap_or_else(|| {
            streams.push(Stream::start(segment));
            current.insert(key, streams.len() - 1);
            streams.len() - 1
        });
        streams[index].reset |= segment.is_reset();
        if !segment.payload().is_empty() {
            streams[index].segments.push(segment.clone());
        }
    }
    for stream in &mut streams {
        stream.assemble();
    }
    streams
}

/// Whether `haystack` contains `needle`.
pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
