//! What the guards do with a packet: pure, total, and the same in the kernel and on the host.
//!
//! A guard decides by facts that nobody can forge: the interface, the state of the socket, the addresses in the IP header.
//! The meaning of an address proves nothing about where a packet goes, and headers are only parsed where they can
//! change the answer. The truth table is in ARCHITECTURE.md, under "The guards".

use crate::net::{Address, Endpoint};
use crate::verdict::Verdict;
use crate::workload::{InboundMode, OutboundMode, Workload};

/// The loopback interface has this index in every network namespace.
pub const LOOPBACK: u32 = 1;

/// What a TCP socket is about to do, by its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// It sends the SYN of a connection of its own.
    Opening,
    /// It answers for those that have no socket of their own yet.
    Listening,
    /// Whatever it sends belongs to a connection that was looked at when it was opened.
    Other,
}

impl SocketState {
    /// From `bpf_sock.state` (`BPF_TCP_*` in the UAPI header).
    #[inline(always)]
    #[must_use]
    pub const fn from_kernel(state: u32) -> Self {
        const SYN_SENT: u32 = 2;
        const LISTEN: u32 = 10;
        match state {
            SYN_SENT => Self::Opening,
            LISTEN => Self::Listening,
            _ => Self::Other,
        }
    }
}

/// How the IP header's destination comes to be what it is.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// It is the socket's own.
    Direct = 0,
    /// It is another, and no header of the sender's explains it: the host translates addresses.
    Translated = 1,
    /// It is another, and so is the protocol: the host encapsulates the socket's packets.
    Encapsulated = 2,
    /// The sender has written a route into the packet (RFC 791, 3.1; RFC 8200, 4.4).
    Sourced = 3,
    /// It is another, and the headers cannot be parsed to the end.
    Unreadable = 4,
}

impl Route {
    /// An unknown code reads as [`Route::Unreadable`].
    #[inline(always)]
    const fn from_code(code: u32) -> Self {
        match code {
            0 => Self::Direct,
            1 => Self::Translated,
            2 => Self::Encapsulated,
            3 => Self::Sourced,
            _ => Self::Unreadable,
        }
    }
}

/// How a packet comes to have its destination, and which port of it is meant if it was translated; zero otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detour {
    pub route: Route,
    pub port: u16,
}

impl Detour {
    /// As one number: what a BPF function can return.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        (self.route as u32) << 16 | self.port as u32
    }

    /// From [`Detour::to_bits`].
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self { route: Route::from_code(bits >> 16), port: bits as u16 }
    }
}

impl From<Route> for Detour {
    #[inline(always)]
    fn from(route: Route) -> Self {
        Self { route, port: 0 }
    }
}

/// A packet of a TCP socket on its way out.
#[derive(Clone, Copy, Debug)]
pub struct Departure {
    /// Index of the interface that it leaves by. On loopback only connections that were turned to the agent are checked
    /// ([`comes_to_the_agent`]).
    pub interface: u32,
    pub state: SocketState,
    /// True if a workload has connected the socket to the agent or to loopback. It must not send beyond loopback, whoever
    /// made the socket.
    pub is_confined: bool,
    /// From the IP header.
    pub source: Address,
    /// From the IP header.
    pub destination: Address,
    pub route: Route,
}

/// Why a packet is dropped. The codes are shared with the agent, which spells them out.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// A connection to a destination that is protected or refused, which capture has not seen.
    Destination = 1,
    /// A connection to the agent or to loopback that leaves by another interface.
    Confined = 2,
    /// Sent to this very host, by an interface that leads elsewhere.
    LoopbackAddress = 3,
    /// Its sender has chosen its route.
    SourceRouted = 4,
    /// Its headers cannot be parsed.
    Unreadable = 5,
    /// A connection to a port on which only the agent answers.
    Port = 6,
    /// A connection that was turned to the agent and would not come to it.
    Diverted = 7,
    /// It bears the addresses and ports of a connection of the kubelet's, and is not of that.
    NoProbe = 8,
}

impl DropReason {
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            1 => Self::Destination,
            2 => Self::Confined,
            3 => Self::LoopbackAddress,
            4 => Self::SourceRouted,
            5 => Self::Unreadable,
            6 => Self::Port,
            7 => Self::Diverted,
            8 => Self::NoProbe,
            _ => return None,
        })
    }
}

/// What the packet's own facts decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    Pass,
    /// To be dropped, whoever has sent it.
    Drop(DropReason),
    /// To be dropped if a workload has sent it whose connections are the agent's affair in either direction.
    DropFromAny(DropReason),
    /// To be dropped if a workload has sent it whose outbound connections are the agent's affair.
    DropFromOutbound(DropReason),
    /// It opens a connection: policy about its destination decides.
    AskPolicy,
    /// It answers for a listening socket: the owner of the port decides.
    AskPort,
}

impl Departure {
    /// What can be said without knowing whose the socket is.
    #[inline(always)]
    #[must_use]
    pub fn finding(&self) -> Finding {
        if self.interface == LOOPBACK {
            return Finding::Pass;
        }
        if self.is_confined {
            return Finding::Drop(DropReason::Confined);
        }
        // The local leg of an inbound flow runs from an address of the host to the same: beyond loopback it is out.
        if self.destination == self.source {
            return Finding::DropFromAny(DropReason::LoopbackAddress);
        }
        if matches!(self.state, SocketState::Listening) {
            return Finding::AskPort;
        }
        if self.destination.is_loopback() || self.destination.is_unspecified() {
            return Finding::DropFromOutbound(DropReason::LoopbackAddress);
        }
        match self.route {
            Route::Sourced => return Finding::DropFromOutbound(DropReason::SourceRouted),
            Route::Unreadable => return Finding::DropFromOutbound(DropReason::Unreadable),
            Route::Direct | Route::Translated | Route::Encapsulated => {}
        }
        match self.state {
            SocketState::Opening => Finding::AskPolicy,
            SocketState::Listening | SocketState::Other => Finding::Pass,
        }
    }
}

/// True if the opening of a connection that was turned to the agent comes to where it was turned to: `asked` by its
/// socket, and `destination` in the packet, once the host has translated it. Its own source is the one place there
/// that is not the agent's: TCP would connect the socket to itself (RFC 9293, 3.5).
#[inline(always)]
#[must_use]
pub fn comes_to_the_agent(asked: &Endpoint, destination: &Endpoint, source: &Endpoint) -> bool {
    destination == asked && source != asked
}

/// True if [`Finding::DropFromAny`] means this workload.
#[inline(always)]
#[must_use]
pub const fn is_any(workload: &Workload) -> bool {
    is_outbound(workload) || is_inbound(workload)
}

/// True if [`Finding::DropFromOutbound`] and [`Finding::AskPolicy`] mean this workload.
#[inline(always)]
#[must_use]
pub const fn is_outbound(workload: &Workload) -> bool {
    !matches!(workload.outbound(), OutboundMode::Disabled)
}

/// True if [`Finding::AskPort`] means this workload.
#[inline(always)]
#[must_use]
pub const fn is_inbound(workload: &Workload) -> bool {
    !matches!(workload.inbound(), InboundMode::Disabled)
}

/// Answers [`Finding::AskPolicy`]: `asked` is policy's verdict on the socket's destination, `translated` that on the
/// one in the IP header, where the host has translated it. What policy leaves alone stays left alone, unless the
/// translation leads to a protected destination.
#[inline(always)]
#[must_use]
pub const fn may_open(asked: Verdict, translated: Option<Verdict>) -> bool {
    if !matches!(asked, Verdict::Bypass) {
        return false;
    }
    use crate::verdict::Denial::{PlainDestination, UnknownDestination};
    matches!(
        translated,
        None | Some(Verdict::Bypass | Verdict::Deny(UnknownDestination | PlainDestination))
    )
}

#[cfg(test)]
mod tests;
