//! Names in certificates (`GeneralName`; RFC 5280, 4.2.1.6), and whether one is in a subtree of names.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use x509_parser::asn1_rs::{Any, Class};

use super::Violation;
use super::der::Unreadable;
use super::directory::{Directory, Likeness};

/// A name in a certificate, or the root of a subtree of names.
#[derive(Clone, Debug)]
pub enum Name<'c> {
    Dns(&'c str),
    Uri(&'c str),
    Ip(&'c [u8]),
    Directory(Directory<'c>),
    /// Of another kind, which is not compared.
    Other(Kind),
}

/// The kinds of names (`GeneralName`; RFC 5280, 4.2.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    OtherName,
    Rfc822Name,
    DnsName,
    X400Address,
    DirectoryName,
    EdiPartyName,
    Uri,
    IpAddress,
    RegisteredId,
}

/// Which kind of constraint a subtree is part of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Subtree {
    Permitted,
    Excluded,
}

impl<'c> Name<'c> {
    /// Reads a `GeneralName`.
    ///
    /// # Errors
    /// If it is of no kind that RFC 5280 knows, or is encoded as its kind may not be.
    pub fn read(name: &Any<'c>) -> Result<Self, Unreadable> {
        let kind = match (name.class(), name.tag().0) {
            (Class::ContextSpecific, 0) => Kind::OtherName,
            (Class::ContextSpecific, 1) => Kind::Rfc822Name,
            (Class::ContextSpecific, 2) => Kind::DnsName,
            (Class::ContextSpecific, 3) => Kind::X400Address,
            (Class::ContextSpecific, 4) => Kind::DirectoryName,
            (Class::ContextSpecific, 5) => Kind::EdiPartyName,
            (Class::ContextSpecific, 6) => Kind::Uri,
            (Class::ContextSpecific, 7) => Kind::IpAddress,
            (Class::ContextSpecific, 8) => Kind::RegisteredId,
            _ => return Err(Unreadable),
        };
        // A CHOICE and what contains others are constructed, strings are not.
        let is_constructed = matches!(
            kind,
            Kind::OtherName | Kind::X400Address | Kind::DirectoryName | Kind::EdiPartyName
        );
        if name.header.constructed() != is_constructed {
            return Err(Unreadable);
        }
        let text = || match std::str::from_utf8(name.data) {
            Ok(text) if text.is_ascii() => Ok(text),
            _ => Err(Unreadable),
        };
        Ok(match kind {
            Kind::DnsName => Self::Dns(text()?),
            Kind::Uri => Self::Uri(text()?),
            Kind::IpAddress => Self::Ip(name.data),
            Kind::DirectoryName => Self::Directory(Directory::read(name.data)?),
            kind => Self::Other(kind),
        })
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Dns(_) => Kind::DnsName,
            Self::Uri(_) => Kind::Uri,
            Self::Ip(_) => Kind::IpAddress,
            Self::Directory(_) => Kind::DirectoryName,
            Self::Other(kind) => *kind,
        }
    }

    /// Checks that it can be the root of a subtree.
    ///
    /// # Errors
    /// If it is no domain where one is needed, or no address with a mask.
    pub fn as_subtree(&self) -> Result<(), Unreadable> {
        let is_one = match self {
            Self::Dns(base) => base.is_empty() || is_domain(base.strip_prefix('.').unwrap_or(base)),
            Self::Uri(base) => is_domain(base.strip_prefix('.').unwrap_or(base)),
            Self::Ip(base) => {
                let (_, mask) = base.split_at(base.len() / 2);
                let bits =
                    mask.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
                [8, 32].contains(&base.len()) && bits.is_sorted_by(|one, next| one >= next)
            }
            Self::Directory(_) | Self::Other(_) => true,
        };
        if is_one { Ok(()) } else { Err(Unreadable) }
    }

    /// Whether it is in a subtree of its own kind.
    ///
    /// # Errors
    /// If the two cannot be compared.
    pub fn likeness(&self, base: &Self, subtree: Subtree) -> Result<Likeness, Violation> {
        let is_within = match (self, base) {
            (Self::Dns(name), Self::Dns(base)) => {
                let plain = name.strip_prefix("*.").unwrap_or(name);
                if !is_domain(plain) {
                    return Err(Violation::UnreadableName);
                }
                is_below(name, base) || subtree == Subtree::Excluded && may_become(name, base)
            }
            (Self::Uri(uri), Self::Uri(base)) => {
                let host = host(uri).ok_or_else(|| Violation::NoHost(self.to_string()))?;
                // A domain means what is in it, and no domain the host alone.
                if base.starts_with('.') {
                    is_below(host, base)
                } else {
                    host.eq_ignore_ascii_case(base)
                }
            }
            (Self::Ip(address), Self::Ip(base)) => {
                if ![4, 16].contains(&address.len()) {
                    return Err(Violation::UnreadableName);
                }
                let (network, mask) = base.split_at(base.len() / 2);
                let bytes = address.iter().zip(network).zip(mask);
                address.len() == network.len()
                    && bytes.into_iter().all(|((own, its), mask)| own & mask == its & mask)
            }
            (Self::Directory(name), Self::Directory(base)) => return Ok(name.likeness(base)),
            (Self::Other(kind), _) | (_, Self::Other(kind)) => {
                return Err(Violation::Unsupported(*kind));
            }
            _ => return Err(Violation::UnreadableName),
        };
        Ok(if is_within { Likeness::Within } else { Likeness::Outside })
    }
}

/// A name of labels that are neither empty nor a wildcard.
fn is_domain(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    name.len() <= 253
        && name.split('.').all(|label| !label.is_empty() && label.bytes().all(is_allowed))
}

/// True for a domain and what is below it; with a leading dot, for the latter alone; without anything, for all.
fn is_below(name: &str, base: &str) -> bool {
    let (name, base) = (name.to_ascii_lowercase(), base.to_ascii_lowercase());
    let in_front = name.strip_suffix(&base);
    in_front.is_some_and(|front| match base.starts_with('.') {
        true => !front.is_empty(),
        false => base.is_empty() || front.is_empty() || front.ends_with('.'),
    })
}

/// Whether a wildcard stands for a name in this subtree, among others.
fn may_become(name: &str, base: &str) -> bool {
    let base = base.strip_prefix('.').unwrap_or(base);
    match (name.strip_prefix("*."), base.split_once('.')) {
        (Some(name), Some((_, parent))) => name.eq_ignore_ascii_case(parent),
        _ => false,
    }
}

/// The host of a URI (RFC 3986, 3.2), if it is a domain name. Addresses are none, nor is anything that is encoded.
fn host(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_once(':')?;
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(is_allowed) {
        return None;
    }
    let rest = rest.strip_prefix("//")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.split_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) => return None,
        None => host,
    };
    // Many programs read `10.1` as an address.
    let last = host.rsplit('.').next()?;
    let is_address = host.parse::<Ipv4Addr>().is_ok() || last.bytes().all(|b| b.is_ascii_digit());
    (is_domain(host) && !is_address).then_some(host)
}

impl fmt::Display for Name<'_> {
    /// Shortened: the names come from strangers, and people read them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 128;
        let text = match self {
            Self::Dns(name) | Self::Uri(name) => (*name).to_owned(),
            Self::Ip(bytes) => match bytes.len() {
                // With a mask.
                8 | 32 => {
                    let (network, mask) = bytes.split_at(bytes.len() / 2);
                    format!("{}/{}", address(network), address(mask))
                }
                _ => address(bytes),
            },
            Self::Directory(name) => name.to_string(),
            Self::Other(kind) => return write!(f, "a name of the kind {kind}"),
        };
        let short: String = text.chars().take(LONGEST).collect();
        let more = if short.len() < text.len() { "…" } else { "" };
        write!(f, "the {} `{}{more}`", self.kind(), short.escape_debug())
    }
}

fn address(bytes: &[u8]) -> String {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        Ipv4Addr::from(bytes).to_string()
    } else if let Ok(bytes) = <[u8; 16]>::try_from(bytes) {
        Ipv6Addr::from(bytes).to_string()
    } else {
        format!("of {} bytes", bytes.len())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherName => "otherName",
            Self::Rfc822Name => "rfc822Name",
            Self::DnsName => "dNSName",
            Self::X400Address => "x400Address",
            Self::DirectoryName => "directoryName",
            Self::EdiPartyName => "ediPartyName",
            Self::Uri => "URI",
            Self::IpAddress => "iPAddress",
            Self::RegisteredId => "registeredID",
        })
    }
}
