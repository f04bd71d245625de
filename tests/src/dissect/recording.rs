//! What a tap has recorded, and what can be asked of it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::packet::Segment;
use super::stream::{self, Stream};
use super::tls;

/// Frames in the order in which they were on the wire.
#[derive(Clone, Default)]
pub struct Recording {
    frames: Vec<Arc<[u8]>>,
}

/// Whatever records frames.
pub trait Recorded {
    /// What has been recorded so far.
    fn recording(&self) -> Recording;
}

impl Recorded for Recording {
    fn recording(&self) -> Recording {
        self.clone()
    }
}

impl Recording {
    pub fn new(frames: Vec<Arc<[u8]>>) -> Self {
        Self { frames }
    }

    pub fn frames(&self) -> &[Arc<[u8]>] {
        &self.frames
    }

    /// The TCP segments among the frames.
    pub fn segments(&self) -> Vec<Segment> {
        self.frames.iter().cloned().filter_map(Segment::parse).collect()
    }

    /// Each direction of each TCP connection, put together.
    pub fn streams(&self) -> Vec<Stream> {
        stream::reassemble(&self.segments())
    }

    /// The streams towards `port`.
    pub fn streams_to(&self, port: u16) -> Vec<Stream> {
        self.streams().into_iter().filter(|stream| stream.destination.port() == port).collect()
    }

    /// TLS handshakes that clients have begun on `port`.
    pub fn handshakes(&self, port: u16) -> usize {
        let begun = |stream: &Stream| tls::alpn_offered(&stream.bytes).is_some();
        self.streams_to(port).iter().filter(|stream| begun(stream)).count()
    }

    /// How often `text` was seen: packets that contain it, retransmissions not counted, plus
    /// streams that contain it only when their packets are put together.
    pub fn sightings(&self, text: &str) -> usize {
        let needle = text.as_bytes();
        let packets = stream::carriers(&self.frames, needle);
        let split = self.streams().iter().filter(|stream| stream.contains_split(needle)).count();
        packets + split
    }

    /// Source addresses of the connection attempts towards some destinations, in the order of their SYNs.
    pub fn attempts(&self, is_meant: impl Fn(SocketAddr) -> bool) -> Vec<SocketAddr> {
        let segments = self.segments();
        let attempts = segments.iter().filter(|it| it.is_attempt() && is_meant(it.destination));
        attempts.map(|attempt| attempt.source).collect()
    }
}
