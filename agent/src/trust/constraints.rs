//! Name constraints: the names that an authority may vouch for (RFC 5280, 4.2.1.10; X509-SVID, 4.2).
//!
//! webpki refuses every chain below an authority that constrains URIs or directory names. An authority that is limited to
//! its trust domain constrains URIs, so all of its SVIDs would be refused. That is why constraints are read here, from the
//! certificates' own bytes. A constraint that cannot be read or compared permits nothing.

mod der;
mod directory;
mod name;

use x509_parser::asn1_rs::{Class, Tag};
use x509_parser::prelude::X509Certificate;

use der::{Unreadable, extension, next, optional, sequence};
use directory::{Directory, Likeness};
use name::Subtree;
pub use name::{Kind, Name};

/// Comparisons for one certificate. As many as webpki and Go allow.
const MOST_COMPARISONS: usize = 250_000;

const SUBJECT_ALTERNATIVE_NAME: &str = "2.5.29.17";
const NAME_CONSTRAINTS: &str = "2.5.29.30";

/// The names that an authority permits and excludes in certificates below it.
#[derive(Debug)]
pub struct NameConstraints<'c> {
    permitted: Vec<Name<'c>>,
    excluded: Vec<Name<'c>>,
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

#[cfg(test)]
mod tests;
