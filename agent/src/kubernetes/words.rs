//! Names and addresses in objects of the API, taken only if they can be what they are said to be.

use std::net::IpAddr;
use std::sync::Arc;

/// The longest name of an object (RFC 1123 subdomain), and the longest value of a label.
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// True for what can be the name of an object: lower case letters, digits, `-`, and `.` behind
/// something. It can stand in the path of a request, and in a selector.
#[must_use]
pub fn is_object_name(text: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-.".contains(&c);
    let fits = !text.is_empty() && text.len() <= LONGEST_NAME;
    fits && text.bytes().all(allowed) && !text.starts_with('.') && !text.contains("..")
}

/// The name of an object, if it can be one.
#[must_use]
pub fn object_name(text: &str) -> Option<Arc<str>> {
    is_object_name(text).then(|| text.into())
}

/// The name of a port, which may be empty, or of a zone.
#[must_use]
pub fn label_value(text: &str) -> Option<Arc<str>> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"-._".contains(&c);
    (text.len() <= LONGEST_LABEL && text.bytes().all(allowed)).then(|| text.into())
}

/// An address that belongs to one place in the cluster. Such as mean the reader itself, or whoever listens, do not; nor does one
/// that is written in two ways (`ValidateNonSpecialIP` in `pkg/apis/core/validation` of Kubernetes refuses them as well).
#[must_use]
pub fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().filter(|address| is_of_one_place(*address))
}

/// The same, of an address.
#[must_use]
pub fn is_of_one_place(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let is_special = address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || is_link_local
        || address.to_canonical() != address;
    !is_special
}

/// A port that something can listen on.
#[must_use]
pub fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_one_place() {
        for good in ["10.96.0.1", "fd00::1", "203.0.113.9"] {
            assert!(address(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "10.0.0",
            "010.0.0.1",
            "0.0.0.0",
            "::",
            "127.0.0.1",
            "::1",
            "169.254.169.254",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "fe80::1%eth0",
            "example.org",
        ] {
            assert_eq!(address(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_have_the_characters_of_names() {
        assert!(object_name("web-1.shop").is_some());
        for bad in ["", "Web", "a/b", "a b", "a\u{1}", ".", "..", "../a", "a..b", &"a".repeat(254)]
        {
            assert_eq!(object_name(bad), None, "{bad}");
        }
        assert!(label_value("").is_some() && label_value("Zone_1.a").is_some());
        for bad in ["a/b", "a\n", &"a".repeat(64)] {
            assert_eq!(label_value(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_port_can_be_listened_on() {
        assert_eq!([port(1), port(65535)], [Some(1), Some(65535)]);
        assert_eq!([port(0), port(-1), port(65536)], [None; 3]);
    }
}
