//! Addresses and byte order.
//!
//! One shape serves both families: an IPv4 address is kept in its IPv4-mapped IPv6 form (RFC 4291, 2.5.5.2),
//! so that maps have one key type and an IPv4-mapped socket needs no case of its own.

/// The first port, on loopback, that a protected `connect()` is turned to: see [`Endpoint::turned`].
pub const AGENT_PORT: u16 = 15001;
/// Ports from [`AGENT_PORT`] on that stand for the agent on `::1`; on `127.0.0.0/8` the first alone does.
pub const AGENT_PORTS_V6: u16 = 64;

/// `AF_INET`, as `bpf_sock_ops.family` and `bpf_sk_lookup.family` spell it.
pub const AF_INET: u32 = 2;
/// `AF_INET6`.
pub const AF_INET6: u32 = 10;
/// `IPPROTO_TCP`.
pub const IPPROTO_TCP: u32 = 6;

/// Third word of an IPv4-mapped address, in network byte order.
const MAPPED: u32 = 0x0000_ffff_u32.to_be();

/// An IPv6 or IPv4-mapped address: four 32-bit words in network byte order, as the kernel's UAPI contexts
/// carry them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address {
    pub words: [u32; 4],
}

impl Address {
    /// `::1`
    pub const LOOPBACK_V6: Self = Self { words: [0, 0, 0, 1_u32.to_be()] };
    /// `127.0.0.1`
    pub const LOOPBACK_V4: Self = Self::from_v4(0x7f00_0001_u32.to_be());

    /// `::`
    pub const UNSPECIFIED_V6: Self = Self { words: [0; 4] };
    /// `0.0.0.0`
    pub const UNSPECIFIED_V4: Self = Self::from_v4(0);

    /// From an IPv4 address in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4(network_order: u32) -> Self {
        Self { words: [0, 0, MAPPED, network_order] }
    }

    /// From an IPv6 address, words in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn from_v6(words: [u32; 4]) -> Self {
        Self { words }
    }

    /// The IPv4 address in network byte order, if this is one.
    #[inline(always)]
    #[must_use]
    pub const fn v4(&self) -> Option<u32> {
        if self.is_v4() { Some(self.words[3]) } else { None }
    }

    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == MAPPED
    }

    /// `127.0.0.0/8` or `::1`.
    #[inline(always)]
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            u32::from_be(self.words[3]) >> 24 == 127
        } else {
            self.words[0] == 0
                && self.words[1] == 0
                && self.words[2] == 0
                && u32::from_be(self.words[3]) == 1
        }
    }

    /// `0.0.0.0` or `::`, which Linux connects to the local host.
    #[inline(always)]
    #[must_use]
    pub const fn is_unspecified(&self) -> bool {
        self.words[0] == 0
            && self.words[1] == 0
            && (self.words[2] == 0 || self.words[2] == MAPPED)
            && self.words[3] == 0
    }

    /// `fe80::/10`: meaningful only with an interface, which the kernel does not show to `connect6`.
    #[inline(always)]
    #[must_use]
    pub const fn is_link_local_v6(&self) -> bool {
        u32::from_be(self.words[0]) >> 22 == 0xfe80 >> 6
    }
}

/// An address and a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub address: Address,
    /// In host byte order; 32 bits wide so that the struct has no padding.
    pub port: u32,
}

/// Host part of the last address in 127.0.0.0/8 that is no broadcast address.
const LAST_LOOPBACK_HOST: u32 = 0x00ff_fffe;

impl Endpoint {
    /// Where a protected `connect()` to this destination is turned to. `sk_lookup` hands it to the agent's listener of
    /// that network namespace; nothing is ever bound there.
    ///
    /// Destinations that differ should be turned to places that differ, so that an application can have as many
    /// connections as without the agent: a source port is free as long as no connection has it to the same place.
    /// IPv4 has a whole loopback network for this, IPv6 one address and some ports.
    #[inline(always)]
    #[must_use]
    pub const fn turned(&self) -> Self {
        let words = &self.address.words;
        let spread = mix(words[0] ^ mix(words[1] ^ mix(words[2] ^ mix(words[3] ^ mix(self.port)))));
        if self.address.is_v4() {
            let host = 1 + spread % LAST_LOOPBACK_HOST;
            let address = Address::from_v4((0x7f00_0000 | host).to_be());
            Self { address, port: AGENT_PORT as u32 }
        } else {
            let port = AGENT_PORT as u32 + spread % AGENT_PORTS_V6 as u32;
            Self { address: Address::LOOPBACK_V6, port }
        }
    }

    /// Which of the agent's places on loopback this is, if it is one: a number that no other has in the same family.
    #[inline(always)]
    #[must_use]
    pub const fn agents_place(&self) -> Option<u32> {
        if !self.address.is_loopback() {
            return None;
        }
        if self.address.is_v4() {
            let host = u32::from_be(self.address.words[3]) & 0x00ff_ffff;
            return if self.port == AGENT_PORT as u32 { Some(host) } else { None };
        }
        let first = AGENT_PORT as u32;
        let is_agents = self.port >= first && self.port < first + AGENT_PORTS_V6 as u32;
        if is_agents { Some(self.port) } else { None }
    }

    /// True for whatever a `connect()` would reach the agent by.
    #[inline(always)]
    #[must_use]
    pub const fn is_agents(&self) -> bool {
        // Linux takes an unspecified address for loopback.
        let address = if !self.address.is_unspecified() {
            self.address
        } else if self.address.is_v4() {
            Address::LOOPBACK_V4
        } else {
            Address::LOOPBACK_V6
        };
        Self { address, port: self.port }.agents_place().is_some()
    }
}

/// Spreads values that differ in few bits (the finalizer of MurmurHash3).
#[inline(always)]
const fn mix(value: u32) -> u32 {
    let value = (value ^ (value >> 16)).wrapping_mul(0x85eb_ca6b);
    let value = (value ^ (value >> 13)).wrapping_mul(0xc2b2_ae35);
    value ^ (value >> 16)
}

/// Port as `bpf_sock_addr.user_port` holds it: the low 16 bits in network byte order.
#[inline(always)]
#[must_use]
pub const fn port_from_sock_addr(user_port: u32) -> u16 {
    u16::from_be(user_port as u16)
}

/// The inverse of [`port_from_sock_addr`].
#[inline(always)]
#[must_use]
pub const fn port_to_sock_addr(port: u16) -> u32 {
    port.to_be() as u32
}

#[cfg(feature = "user")]
mod user {
    use super::{Address, Endpoint};
    use core::net::{IpAddr, Ipv6Addr, SocketAddr};

    impl From<IpAddr> for Address {
        fn from(ip: IpAddr) -> Self {
            let octets = match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            let word = |i: usize| {
                u32::from_ne_bytes([octets[i], octets[i + 1], octets[i + 2], octets[i + 3]])
            };
            Self { words: [word(0), word(4), word(8), word(12)] }
        }
    }

    impl From<Address> for IpAddr {
        /// IPv4-mapped addresses come back as IPv4.
        fn from(address: Address) -> Self {
            let mut octets = [0; 16];
            for (bytes, word) in octets.chunks_exact_mut(4).zip(address.words) {
                bytes.copy_from_slice(&word.to_ne_bytes());
            }
            Ipv6Addr::from(octets).to_canonical()
        }
    }

    impl From<SocketAddr> for Endpoint {
        fn from(addr: SocketAddr) -> Self {
            Self { address: addr.ip().into(), port: addr.port().into() }
        }
    }

    impl From<Endpoint> for SocketAddr {
        fn from(endpoint: Endpoint) -> Self {
            Self::new(endpoint.address.into(), endpoint.port as u16)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{IpAddr, SocketAddr};
    use proptest::prelude::*;

    fn address(ip: IpAddr) -> Address {
        let octets = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(octets.chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().unwrap());
        }
        Address { words }
    }

    proptest! {
        #[test]
        fn predicates_agree_with_the_standard_library(ip: IpAddr) {
            let a = address(ip);
            let canonical = ip.to_canonical();
            prop_assert_eq!(a.is_loopback(), canonical.is_loopback());
            prop_assert_eq!(a.is_unspecified(), canonical.is_unspecified());
            prop_assert_eq!(a.is_v4(), canonical.is_ipv4());
            let link_local = matches!(canonical, IpAddr::V6(v6) if v6.is_unicast_link_local());
            prop_assert_eq!(a.is_link_local_v6(), link_local);
        }

        #[test]
        fn ports_round_trip_through_sock_addr_order(port: u16) {
            prop_assert_eq!(port_from_sock_addr(port_to_sock_addr(port)), port);
            prop_assert_eq!(&port_to_sock_addr(port).to_ne_bytes()[..2], &port.to_be_bytes()[..]);
        }

        #[test]
        fn what_is_turned_goes_to_a_place_of_the_agents(ip: IpAddr, port: u16) {
            let asked = Endpoint { address: address(ip), port: port.into() };
            let turned = asked.turned();
            prop_assert!(turned.agents_place().is_some());
            prop_assert!(turned.is_agents());
            prop_assert_eq!(turned.address.is_v4(), asked.address.is_v4());
            let host = u32::from_be(turned.address.words[3]) & 0x00ff_ffff;
            prop_assert!(!turned.address.is_v4() || (host != 0 && host != 0x00ff_ffff));
        }

        #[test]
        fn nothing_but_loopback_is_a_place_of_the_agents(ip: IpAddr, port: u16) {
            let endpoint = Endpoint { address: address(ip), port: port.into() };
            let place = endpoint.agents_place();
            prop_assert!(place.is_none() || endpoint.address.is_loopback());
        }

        #[cfg(feature = "user")]
        #[test]
        fn endpoints_round_trip_through_socket_addresses(ip: IpAddr, port: u16) {
            let addr = SocketAddr::new(ip, port);
            let back = SocketAddr::from(Endpoint::from(addr));
            prop_assert_eq!(back.ip(), ip.to_canonical());
            prop_assert_eq!(back.port(), port);
        }
    }

    /// A rough measure is enough: what it is for is that few neighbours share a place.
    #[test]
    fn neighbours_are_turned_to_places_that_differ() {
        let places = |addresses: &[&str]| {
            let ports = 8000..8064_u32;
            let turned = addresses.iter().flat_map(|ip| {
                let address = address(ip.parse().unwrap());
                ports.clone().map(move |port| Endpoint { address, port }.turned())
            });
            turned.collect::<std::collections::HashSet<_>>().len()
        };
        assert!(places(&["10.0.2.1", "10.0.2.2", "10.0.3.1", "10.1.2.1"]) >= 255);
        assert!(places(&["fd00::1", "fd00::2"]) >= 48);
    }

    #[test]
    fn every_way_to_dial_the_agent_is_known() {
        let at = |ip: &str, port| Endpoint { address: address(ip.parse().unwrap()), port };
        for ip in ["127.0.0.1", "127.200.3.4", "0.0.0.0", "::ffff:127.0.0.9", "::ffff:0.0.0.0"] {
            assert!(at(ip, 15001).is_agents(), "{ip}");
            assert!(!at(ip, 15002).is_agents(), "{ip}");
        }
        for ip in ["::1", "::"] {
            assert!(at(ip, 15001).is_agents() && at(ip, 15064).is_agents(), "{ip}");
            assert!(!at(ip, 15000).is_agents() && !at(ip, 15065).is_agents(), "{ip}");
        }
        assert!(!at("10.0.0.1", 15001).is_agents());
    }

    #[test]
    fn loopback_constants_are_what_they_say() {
        assert_eq!(address("127.0.0.1".parse().unwrap()), Address::LOOPBACK_V4);
        assert_eq!(address("::1".parse().unwrap()), Address::LOOPBACK_V6);
        assert!(address("127.255.0.9".parse().unwrap()).is_loopback());
        assert!(address("::ffff:0.0.0.0".parse().unwrap()).is_unspecified());
        let _ = SocketAddr::from(([0, 0, 0, 0], 0));
    }
}
