//! Frames, and how they are written; `docs/wire.md` is their specification.

use std::net::{Ipv6Addr, SocketAddr};

use super::{GoAwayCode, RefusalCode, ResetCode};
use crate::wire::Endpoints;
use crate::wire::record::LONGEST_CONTENT;

/// Bytes of a frame's header: its type, and the length of its payload.
pub const HEADER: usize = 4;
/// The longest payload of a DATA frame: with its header it just fills a TLS record.
pub const LONGEST_DATA: usize = LONGEST_CONTENT - HEADER;

/// The longest frame besides DATA.
pub(super) const LONGEST_CONTROL: usize = HEADER + OPEN_PAYLOAD;
pub(super) const OPEN_PAYLOAD: usize = 2 * ENDPOINT;
/// An IPv6 address, or an IPv4 address mapped into one, and a port.
pub(super) const ENDPOINT: usize = 16 + 2;

/// The types of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Open = 1,
    Accepted = 2,
    Refused = 3,
    Data = 4,
    Fin = 5,
    Reset = 6,
    GoAway = 7,
}

/// A frame that carries no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Client: begins a flow.
    Open(Endpoints),
    /// Server: the flow is its own from here on. Before this frame a client may still try elsewhere.
    Accepted,
    /// Server: there will be no flow, or no data from it. The session is over.
    Refused(RefusalCode),
    /// The sender's direction has ended in order.
    Fin,
    /// The flow is broken off. The session is over.
    Reset(ResetCode),
    /// Server: no flow that is opened after this one will be accepted.
    GoAway(GoAwayCode),
}

/// The bytes of a control frame.
#[derive(Clone, Copy, Debug)]
pub struct Encoded {
    bytes: [u8; LONGEST_CONTROL],
    length: usize,
}

impl AsRef<[u8]> for Encoded {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Control {
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Open(_) => Kind::Open,
            Self::Accepted => Kind::Accepted,
            Self::Refused(_) => Kind::Refused,
            Self::Fin => Kind::Fin,
            Self::Reset(_) => Kind::Reset,
            Self::GoAway(_) => Kind::GoAway,
        }
    }

    #[must_use]
    pub fn encode(&self) -> Encoded {
        let mut bytes = [0; LONGEST_CONTROL];
        let payload = &mut bytes[HEADER..];
        let length = match self {
            Self::Open(open) => {
                put_endpoint(&mut payload[..ENDPOINT], open.source);
                put_endpoint(&mut payload[ENDPOINT..], open.destination);
                OPEN_PAYLOAD
            }
            Self::Accepted | Self::Fin => 0,
            Self::Refused(RefusalCode(code))
            | Self::Reset(ResetCode(code))
            | Self::GoAway(GoAwayCode(code)) => {
                payload[0] = *code;
                1
            }
        };
        bytes[..HEADER].copy_from_slice(&header(self.kind(), length));
        Encoded { bytes, length: HEADER + length }
    }
}

/// The header of a DATA frame with this many bytes of payload.
#[must_use]
pub fn data_header(length: usize) -> [u8; HEADER] {
    debug_assert!((1..=LONGEST_DATA).contains(&length));
    header(Kind::Data, length)
}

fn header(kind: Kind, length: usize) -> [u8; HEADER] {
    let [_, length @ ..] = (length as u32).to_be_bytes();
    [kind as u8, length[0], length[1], length[2]]
}

fn put_endpoint(room: &mut [u8], endpoint: SocketAddr) {
    let address = match endpoint {
        SocketAddr::V4(endpoint) => endpoint.ip().to_ipv6_mapped(),
        SocketAddr::V6(endpoint) => *endpoint.ip(),
    };
    room[..16].copy_from_slice(&address.octets());
    room[16..].copy_from_slice(&endpoint.port().to_be_bytes());
}

/// `None` if it is no endpoint that anybody could have.
pub(super) fn endpoint(bytes: &[u8]) -> Option<SocketAddr> {
    let (address, port) = bytes.split_first_chunk::<16>()?;
    let port = u16::from_be_bytes(port.try_into().ok()?);
    let address = Ipv6Addr::from(*address).to_canonical();
    if port == 0 || address.is_unspecified() || address.is_multicast() {
        return None;
    }
    Some(SocketAddr::new(address, port))
}
