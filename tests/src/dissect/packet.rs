//! Ethernet, IPv4 or IPv6, TCP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const ETHERNET_HEADER: usize = 14;
const TCP: u8 = 6;

/// One TCP segment; with segmentation offload it may be larger than the link's MTU.
#[derive(Clone)]
pub struct Segment {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub sequence: u32,
    flags: u8,
    frame: Arc<[u8]>,
    payload: Range<usize>,
}

impl Segment {
    /// `None` for whatever is not TCP over IPv4 or IPv6.
    pub fn parse(frame: Arc<[u8]>) -> Option<Self> {
        let ip = frame.get(ETHERNET_HEADER..)?;
        let (source, destination, header, total) = match frame.get(12..14)? {
            [0x08, 0x00] => ipv4(ip)?,
            [0x86, 0xdd] => ipv6(ip)?,
            _ => return None,
        };
        let tcp = ip.get(header..total)?;
        let data = usize::from(*tcp.get(12)? >> 4) * 4;
        let payload = ETHERNET_HEADER + header + data..ETHERNET_HEADER + total;
        if payload.start > payload.end {
            return None;
        }
        Some(Self {
            source: SocketAddr::new(source, u16_at(tcp, 0)?),
            destination: SocketAddr::new(destination, u16_at(tcp, 2)?),
            sequence: u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?),
            flags: *tcp.get(13)?,
            payload,
            frame,
        })
    }

    pub fn payload(&self) -> &[u8] {
        &self.frame[self.payload.clone()]
    }

    /// The sequence number of the payload's first byte: a SYN takes one for itself.
    pub fn first_byte(&self) -> u32 {
        self.sequence.wrapping_add(u32::from(self.is_syn()))
    }

    pub fn is_syn(&self) -> bool {
        self.flags & SYN != 0
    }

    /// The first SYN of a connection, as opposed to the answer to it.
    pub fn is_attempt(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }

    pub fn is_fin(&self) -> bool {
        self.flags & FIN != 0
    }

    pub fn is_reset(&self) -> bool {
        self.flags & RST != 0
    }
}

/// Source, destination, header length, total length.
fn ipv4(ip: &[u8]) -> Option<(IpAddr, IpAddr, usize, usize)> {
    if *ip.get(9)? != TCP {
        return None;
    }
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 4] = ip.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets).into())
    };
    let total = usize::from(u16_at(ip, 2)?);
    Some((address(12)?, address(16)?, usize::from(ip[0] & 0x0f) * 4, total))
}

/// Source, destination, header length, total length.
fn ipv6(ip: &[u8]) -> Option<(IpAddr, IpAddr, usize, usize)> {
    const HEADER: usize = 40;
    // No option this project uses puts an extension header before TCP.
    if *ip.get(6)? != TCP {
        return None;
    }
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = ip.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(octets).into())
    };
    let total = HEADER + usize::from(u16_at(ip, 4)?);
    Some((address(8)?, address(24)?, HEADER, total))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
