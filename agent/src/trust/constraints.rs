//! Name constraints: the names that an authority may vouch for (RFC 5280, 4.2.1.10; X509-SVID, 4.2).
//!
//! webpki refuses every chain below an authority that constrains URIs or directory names. An authority that is limited to
//! its trust domain constrains URIs, so all of its SVIDs would be refused. That is why constraints are read here, from the
//! certificates' own bytes. A constraint that cannot be read or compared permits nothing.

mod der;
mod directory;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use x509_parser::asn1_rs::{Any, Class, Tag};
use x509_parser::prelude::X509Certificate;

use der::{Unreadable, extension, next, optional, sequence};
use directory::{Directory, Likeness};

/// Comparisons for one certificate. As many as webpki and Go allow.
const MOST_COMPARISONS: usize = 250_000;

const SUBJECT_ALTERNATIVE_NAME: &str = "2.5.29.17";
const NAME_CONSTRAINTS: &str = "2.5.29.30";

/// What an authority says of the names of certificates below it.
#[derive(Debug)]
pub struct NameConstraints<'c> {
    permitted: Vec<Name<'c>>,
    excluded: Vec<Name<'c>>,
}

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

/// Why an authority does not vouch for a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("its name constraints cannot be read")]
    Unreadable,
    #[error("the names of the certificate cannot be compared with its name constraints")]
    UnreadableName,
    #[error("its name constraints permit only {permitted}, and the certificate has {name}")]
    NotPermitted { name: String, permitted: String },
    #[error("its name constraints exclude {excluded}, and the certificate has {name}")]
    Excluded { name: String, excluded: String },
    #[error("it has name constraints for URIs, and {0} has no host that is a domain name")]
    NoHost(String),
    #[error(
        "it has name constraints of the kind {0}, which is not supported, and the certificate has such a name"
    )]
    Unsupported(Kind),
    #[error("its name constraints and the names of the certificate are more than can be compared")]
    TooMany,
}

impl<'c> NameConstraints<'c> {
    /// Those of an authority; `None` if it has none.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn of(authority: &X509Certificate<'c>) -> Result<Option<Self>, Violation> {
        let value = extension(authority, NAME_CONSTRAINTS).map_err(|_| Violation::Unreadable)?;
        value.map(Self::read).transpose().map_err(|Unreadable| Violation::Unreadable)
    }

    fn read(value: &'c [u8]) -> Result<Self, Unreadable> {
        let mut rest = sequence(value)?;
        let mut constraints = Self { permitted: Vec::new(), excluded: Vec::new() };
        // Each once, in this order (RFC 5280, 4.2.1.10).
        for (tag, subtrees) in [(0, &mut constraints.permitted), (1, &mut constraints.excluded)] {
            let Some((read, after)) = optional(rest, tag)? else {
                continue;
            };
            rest = after;
            let mut trees = read;
            while !trees.is_empty() {
                let (tree, after) = next(trees)?;
                trees = after;
                if tree.tag() != Tag::Sequence || tree.class() != Class::Universal {
                    return Err(Unreadable);
                }
                // No minimum, and no maximum: neither is used with any kind of name.
                let (base, []) = next(tree.data)? else {
                    return Err(Unreadable);
                };
                let base = Name::read(&base)?;
                base.as_subtree()?;
                subtrees.push(base);
            }
        }
        if rest.is_empty() { Ok(constraints) } else { Err(Unreadable) }
    }

    /// True if there is anything that webpki refuses to look at.
    pub fn are_beyond_webpki(&self) -> bool {
        let is_beyond = |name: &Name<'_>| matches!(name.kind(), Kind::Uri | Kind::DirectoryName);
        self.permitted.iter().chain(&self.excluded).any(is_beyond)
    }

    /// # Errors
    /// For the first name that is not permitted, or excluded.
    pub fn check(&self, names: &[Name<'_>]) -> Result<(), Violation> {
        if names.len() * (self.permitted.len() + self.excluded.len()) > MOST_COMPARISONS {
            return Err(Violation::TooMany);
        }
        names.iter().try_for_each(|name| self.check_one(name))
    }

    fn check_one(&self, name: &Name<'_>) -> Result<(), Violation> {
        let kind = name.kind();
        let of_kind = |subtree: &&Name<'_>| subtree.kind() == kind;
        let permitted: Vec<_> = self.permitted.iter().filter(of_kind).collect();
        let excluded: Vec<_> = self.excluded.iter().filter(of_kind).collect();
        if permitted.is_empty() && excluded.is_empty() {
            return Ok(());
        }
        for subtree in excluded {
            if name.likeness(subtree, Subtree::Excluded)? != Likeness::Outside {
                let (name, excluded) = (name.to_string(), subtree.to_string());
                return Err(Violation::Excluded { name, excluded });
            }
        }
        let mut is_permitted = permitted.is_empty();
        for subtree in &permitted {
            is_permitted |= name.likeness(subtree, Subtree::Permitted)? == Likeness::Within;
        }
        if is_permitted {
            return Ok(());
        }
        let few = permitted.iter().take(4).map(ToString::to_string);
        let permitted = few.collect::<Vec<_>>().join(", ");
        Err(Violation::NotPermitted { name: name.to_string(), permitted })
    }
}

/// The names of a certificate that constraints apply to: its alternative names and its subject, if that counts and is
/// not empty.
///
/// # Errors
/// If they cannot be read as what they should be.
pub fn names_of<'c>(
    certificate: &X509Certificate<'c>,
    subject_counts: bool,
) -> Result<Vec<Name<'c>>, Violation> {
    read_names(certificate, subject_counts).map_err(|Unreadable| Violation::UnreadableName)
}

fn read_names<'c>(
    certificate: &X509Certificate<'c>,
    subject_counts: bool,
) -> Result<Vec<Name<'c>>, Unreadable> {
    let mut names = Vec::new();
    if let Some(value) = extension(certificate, SUBJECT_ALTERNATIVE_NAME)? {
        let mut rest = sequence(value)?;
        while !rest.is_empty() {
            let (name, after) = next(rest)?;
            names.push(Name::read(&name)?);
            rest = after;
        }
    }
    if !subject_counts {
        return Ok(names);
    }
    // Not by its method, which ties it to the parsed certificate.
    let subject = Directory::read(certificate.tbs_certificate.subject.as_raw())?;
    // A constraint on mail addresses is one on those in the subject, too.
    if subject.has_mail_address() {
        names.push(Name::Other(Kind::Rfc822Name));
    }
    if !subject.is_empty() {
        names.push(Name::Directory(subject));
    }
    Ok(names)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Subtree {
    Permitted,
    Excluded,
}

impl<'c> Name<'c> {
    fn read(name: &Any<'c>) -> Result<Self, Unreadable> {
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

    fn kind(&self) -> Kind {
        match self {
            Self::Dns(_) => Kind::DnsName,
            Self::Uri(_) => Kind::Uri,
            Self::Ip(_) => Kind::IpAddress,
            Self::Directory(_) => Kind::DirectoryName,
            Self::Other(kind) => *kind,
        }
    }

    /// Whether it is what the root of a subtree has to be.
    fn as_subtree(&self) -> Result<(), Unreadable> {
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
    fn likeness(&self, base: &Self, subtree: Subtree) -> Result<Likeness, Violation> {
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

#[cfg(test)]
mod tests;
