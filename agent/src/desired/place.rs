//! The place of an external peer: a [`Destination`], or a DNS name with or without a port, like
//! `billing.example.com:8443`.

use std::fmt;

use rustls_pki_types::DnsName;

use super::Destination;
use super::destination::DestinationError;

/// Addresses, or a DNS name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    At(Destination),
    Named { name: DnsName<'static>, port: Option<u16> },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(destination) => destination.fmt(f),
            Self::Named { name, port: None } => f.write_str(name.as_ref()),
            Self::Named { name, port: Some(port) } => write!(f, "{}:{port}", name.as_ref()),
        }
    }
}

impl Place {
    /// The destination, unless the place is a DNS name.
    #[must_use]
    pub fn destination(&self) -> Option<&Destination> {
        match self {
            Self::At(destination) => Some(destination),
            Self::Named { .. } => None,
        }
    }

    /// True for names that resolve to nothing but loopback (RFC 6761, 6.3).
    #[must_use]
    pub fn is_this_host(&self) -> bool {
        match self {
            Self::At(_) => false,
            Self::Named { name, .. } => {
                name.as_ref() == "localhost" || name.as_ref().ends_with(".localhost")
            }
        }
    }
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let reason = match Destination::parse(&text) {
            Ok(destination) => return Ok(Self::At(destination)),
            Err(reason) => reason,
        };
        parse_named(&text).ok_or_else(|| {
            // Clearly meant to be a destination.
            if !matches!(reason, DestinationError::Malformed(_)) {
                return reason.to_string();
            }
            format!(
                "`{text}` is neither a destination (`10.0.2.0/24`, `[fd00::/64]:8443`) nor a DNS name (`billing.example.com:8443`)"
            )
        })
    }
}

fn parse_named(text: &str) -> Option<Place> {
    let (name, port) = match text.split_once(':') {
        None => (text, None),
        Some((name, port)) => (name, Some(port.parse().ok().filter(|port| *port != 0)?)),
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    // A name whose last label is a number is meant to be an address (RFC 1123, 2.1).
    let last = name.rsplit('.').next()?;
    if last.is_empty() || last.bytes().all(|byte| byte.is_ascii_digit()) || name.contains('*') {
        return None;
    }
    Some(Place::Named { name: DnsName::try_from(name).ok()?, port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(text: &str) -> Option<(String, Option<u16>)> {
        match Place::try_from(text.to_owned()) {
            Ok(Place::Named { name, port }) => Some((name.as_ref().to_owned(), port)),
            _ => None,
        }
    }

    #[test]
    fn names_and_addresses_are_told_apart() {
        assert_eq!(
            named("Billing.Example.com:8443"),
            Some(("billing.example.com".to_owned(), Some(8443)))
        );
        assert_eq!(named("billing.example.com."), Some(("billing.example.com".to_owned(), None)));
        for address in ["10.0.0.0/8", "10.0.0.1:443", "[fd00::1]:443"] {
            assert!(matches!(Place::try_from(address.to_owned()), Ok(Place::At(_))), "{address}");
        }
    }

    #[test]
    fn mistyped_addresses_are_no_names() {
        for text in [
            "10.0.0.300",
            "10.0.0.1/24",
            "10.0.0.1:0",
            "",
            ":443",
            "a b",
            "x:99999",
            "*.example.com",
            "-x.org",
        ] {
            assert!(Place::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,60}") {
            let _ = Place::try_from(text);
        }
    }
}
