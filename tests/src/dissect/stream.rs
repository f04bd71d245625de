//! TCP streams put together from their segments, by sequence number.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

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
            let offset = segment.first_byte().wrapping_sub(self.initial).wrapping_sub(1);
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

/// How many of `frames` carry `needle`. What TCP sends again was said once: under load a kernel
/// retransmits although nothing was lost.
pub fn carriers(frames: &[Arc<[u8]>], needle: &[u8]) -> usize {
    let mut said = BTreeSet::new();
    let carries = |frame: &&Arc<[u8]>| {
        if !contains(frame, needle) {
            return false;
        }
        let place = Segment::parse(Arc::clone(frame)).and_then(|segment| {
            let offset = position(segment.payload(), needle)? as u32;
            let number = segment.first_byte().wrapping_add(offset);
            Some((segment.source, segment.destination, number))
        });
        place.is_none_or(|place| said.insert(place))
    };
    frames.iter().filter(carries).count()
}

/// Whether `haystack` contains `needle`.
pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    position(haystack, needle).is_some()
}

fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;

    /// Ethernet, IPv4 and TCP, with no more in them than the dissector looks at.
    fn frame(from: u8, flags: u8, sequence: u32, payload: &[u8]) -> Arc<[u8]> {
        let mut frame = [&[0; 12][..], &[0x08, 0x00]].concat();
        let mut ip = [0; 20];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&(40 + payload.len() as u16).to_be_bytes());
        ip[9] = 6;
        ip[15] = from;
        let mut tcp = [0; 20];
        tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
        (tcp[12], tcp[13]) = (5 << 4, flags);
        frame.extend([&ip, &tcp, payload].concat());
        frame.into()
    }

    #[test]
    fn what_is_retransmitted_counts_once() {
        let said = [
            frame(1, SYN, 99, b"the secret"),
            // Again, as the server took the SYN without its data, and again in a longer segment.
            frame(1, ACK, 100, b"the secret"),
            frame(1, ACK, 96, b"and the secret"),
        ];
        assert_eq!(carriers(&said, b"secret"), 1);
    }

    #[test]
    fn what_is_said_again_counts_again() {
        let said = [
            frame(1, ACK, 100, b"secret"),
            frame(1, ACK, 106, b"secret"),
            frame(2, ACK, 100, b"secret"),
            frame(2, ACK, 106, b"nothing"),
        ];
        assert_eq!(carriers(&said, b"secret"), 3);
    }
}
