//! Destinations: `10.0.2.0/24`, `10.0.3.7/32:8080`, `fd00::/64`, `[fd00::/64]:8443`. A bare address is a prefix of full
//! length.

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// An address prefix, and a port or all ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    pub prefix: IpNet,
    pub port: Option<u16>,
}

/// Why a text is not a destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    #[error(
        "`{0}` is no destination; write `10.0.2.0/24`, `10.0.2.7:8080`, `fd00::/64` or `[fd00::/64]:8443`"
    )]
    Malformed(String),
    /// Ignoring the host bits would silently widen the destination.
    #[error("`{text}` has host bits set; did you mean `{network}`, or `{host}` alone?")]
    HostBits { text: String, network: Destination, host: Destination },
    #[error("`{0}`: a port is a number from 1 to 65535")]
    Port(String),
}

impl TryFrom<String> for Destination {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).map_err(|error| error.to_string())
    }
}

fn parse(text: &str) -> Result<Destination, DestinationError> {
    let malformed = || DestinationError::Malformed(text.to_owned());
    let (prefix, port) = split(text).ok_or_else(malformed)?;
    let prefix = parse_prefix(prefix).ok_or_else(malformed)?;
    let port = match port.map(str::parse) {
        None => None,
        Some(Ok(0) | Err(_)) => return Err(DestinationError::Port(text.to_owned())),
        Some(Ok(port)) => Some(port),
    };
    if prefix.addr() != prefix.network() {
        let host = Destination { prefix: IpNet::from(prefix.addr()), port };
        let network = Destination { prefix: prefix.trunc(), port };
        return Err(DestinationError::HostBits { text: text.to_owned(), network, host });
    }
    Ok(Destination { prefix, port })
}

/// Into a prefix and a port.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (prefix, rest) = rest.split_once(']')?;
        return match rest {
            "" => Some((prefix, None)),
            _ => Some((prefix, Some(rest.strip_prefix(':')?))),
        };
    }
    // More than one are those of an IPv6 address.
    if text.matches(':').count() == 1 {
        let (prefix, port) = text.split_once(':')?;
        return Some((prefix, Some(port)));
    }
    Some((text, None))
}

fn parse_prefix(text: &str) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(prefix) => Some(prefix),
        Err(_) => text.parse::<IpAddr>().ok().map(IpNet::from),
    }
}

impl Destination {
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, DestinationError> {
        parse(text)
    }

    /// True for a single address.
    #[must_use]
    pub fn is_address(&self) -> bool {
        self.prefix.prefix_len() == self.prefix.max_prefix_len()
    }

    /// Why connections to this destination are never protected, if they are not: traffic within the machine is left alone,
    /// and a link-local address cannot be dialled on behalf of another process.
    #[must_use]
    pub fn never_protected(&self) -> Option<&'static str> {
        let lies_in = |all: &IpNet| all.contains(&canonical(self.prefix));
        let known =
            NEVER.iter().filter_map(|(text, why)| Some((text.parse::<IpNet>().ok()?, *why)));
        known.into_iter().find(|(all, _)| lies_in(all)).map(|(_, why)| why)
    }
}

const LOOPBACK: &str = "is loopback, which never leaves the machine and is never protected";
const UNSPECIFIED: &str = "is no address of anybody's: connections to it stay on the machine";
const MULTICAST: &str = "is multicast, which TCP does not know";
const LINK_LOCAL: &str = "is link-local, which means something on one interface only";

/// Addresses that no peer can have.
const NEVER: [(&str, &str); 8] = [
    ("127.0.0.0/8", LOOPBACK),
    ("::1/128", LOOPBACK),
    ("0.0.0.0/32", UNSPECIFIED),
    ("::/128", UNSPECIFIED),
    ("224.0.0.0/4", MULTICAST),
    ("255.255.255.255/32", MULTICAST),
    ("ff00::/8", MULTICAST),
    ("fe80::/10", LINK_LOCAL),
];

/// The IPv4 form of an IPv4-mapped IPv6 prefix (RFC 4291, 2.5.5.2).
fn canonical(prefix: IpNet) -> IpNet {
    let mapped = |prefix: &ipnet::Ipv6Net| {
        let address = prefix.addr().to_ipv4_mapped()?;
        Ipv4Net::new(address, prefix.prefix_len().checked_sub(96)?).ok()
    };
    match prefix {
        IpNet::V6(six) => mapped(&six).map_or(prefix, IpNet::V4),
        IpNet::V4(_) => prefix,
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.prefix, self.port) {
            (prefix, None) => write!(f, "{prefix}"),
            (IpNet::V4(prefix), Some(port)) => write!(f, "{prefix}:{port}"),
            (IpNet::V6(prefix), Some(port)) => write!(f, "[{prefix}]:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_all_documented_forms() {
        for (text, prefix, port) in [
            ("10.0.2.0/24", "10.0.2.0/24", None),
            ("10.0.3.7", "10.0.3.7/32", None),
            ("10.0.3.7:80", "10.0.3.7/32", Some(80)),
            ("169.254.169.254/32:80", "169.254.169.254/32", Some(80)),
            ("fd00::/64", "fd00::/64", None),
            ("fd00::1", "fd00::1/128", None),
            ("[fd00::/64]:8443", "fd00::/64", Some(8443)),
            ("[fd00::1]", "fd00::1/128", None),
        ] {
            let prefix = prefix.parse().unwrap();
            assert_eq!(
                Destination::try_from(text.to_owned()),
                Ok(Destination { prefix, port }),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_what_is_ambiguous_or_wrong() {
        for text in [
            "",
            "10.0.2.1/24",
            "10.0.0.0/33",
            "10.0.2.0/24:0",
            "10.0.2.0/24:99999",
            "web.example.org",
            "[fd00::1",
            "[fd00::1]8080",
            "fd00::1/64",
            ":80",
        ] {
            assert!(Destination::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_meant_is_said_where_host_bits_are_set() {
        for (text, expected) in [
            (
                "10.77.1.9/24:7443",
                "did you mean `10.77.1.0/24:7443`, or `10.77.1.9/32:7443` alone?",
            ),
            ("fd00::1/64", "did you mean `fd00::/64`, or `fd00::1/128` alone?"),
            ("10.0.0.0/8:0", "a port is a number from 1 to 65535"),
            ("10.0.0.0/8:x", "a port is a number from 1 to 65535"),
            ("web", "is no destination"),
        ] {
            let error = Destination::try_from(text.to_owned()).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn addresses_at_which_no_peer_can_be_are_known() {
        let why = |text: &str| Destination::try_from(text.to_owned()).unwrap().never_protected();
        for text in [
            "127.0.0.1:80",
            "127.0.0.0/8",
            "127.1.2.0/24",
            "[::1]:80",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "::",
            "224.0.0.0/4",
            "ff02::1",
            "fe80::/10",
            "[fe80::1]:443",
            "255.255.255.255",
        ] {
            assert!(why(text).is_some(), "{text}");
        }
        // What is wider holds others as well.
        for text in [
            "0.0.0.0/0",
            "::/0",
            "126.0.0.0/7",
            "10.0.0.0/8",
            "169.254.0.0/16",
            "fd00::/8",
            "::ffff:10.0.0.1",
            "240.0.0.0/4",
        ] {
            assert_eq!(why(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_can_be_read(ip: IpAddr, len in 0..=128_u8, port: Option<u16>) {
            let len = if ip.is_ipv4() { len.min(32) } else { len };
            let prefix = IpNet::new(ip, len).unwrap().trunc();
            let destination = Destination { prefix, port: port.filter(|p| *p != 0) };
            prop_assert_eq!(Destination::try_from(destination.to_string()), Ok(destination));
        }

        #[test]
        fn never_panics(text in ".{0,60}") {
            let _ = Destination::try_from(text);
        }
    }
}
