//! Destinations as the configuration writes them: `10.0.2.0/24`, `10.0.3.7/32:8080`, `fd00::/64`,
//! `[fd00::/64]:8443`. A bare address stands for itself alone.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// An address prefix, and a port if only one is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    pub prefix: IpNet,
    pub port: Option<u16>,
}

impl TryFrom<String> for Destination {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse(&text).ok_or_else(|| {
            format!(
                "`{text}` is no destination; write `10.0.2.0/24`, `10.0.2.7:8080`, `fd00::/64` or `[fd00::/64]:8443`"
            )
        })
    }
}

fn parse(text: &str) -> Option<Destination> {
    let (prefix, port) = if let Some(rest) = text.strip_prefix('[') {
        let (prefix, rest) = rest.split_once(']')?;
        let port = match rest {
            "" => None,
            _ => Some(rest.strip_prefix(':')?),
        };
        (prefix, port)
    } else if text.matches(':').count() == 1 {
        let (prefix, port) = text.split_once(':')?;
        (prefix, Some(port))
    } else {
        (text, None)
    };
    let port = match port {
        Some(port) => Some(port.parse().ok().filter(|port| *port != 0)?),
        None => None,
    };
    Some(Destination { prefix: parse_prefix(prefix)?, port })
}

fn parse_prefix(text: &str) -> Option<IpNet> {
    let prefix = match text.parse::<IpNet>() {
        Ok(prefix) => prefix,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    // Host bits that are set would silently widen what the writer had in mind.
    (prefix.addr() == prefix.network()).then_some(prefix)
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
