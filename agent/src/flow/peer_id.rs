//! Who somebody is, as a certificate proves it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::spiffe::SpiffeId;
use crate::x509::Fingerprint;

/// An identity that was proved, in the form in which it was expected. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PeerId {
    Spiffe(SpiffeId),
    /// The certificate itself, known by its pin.
    Pinned(Fingerprint),
    /// A URI name of the certificate.
    Uri(Arc<str>),
    /// A DNS name that the certificate is valid for.
    Dns(Arc<str>),
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spiffe(id) => id.fmt(f),
            Self::Pinned(fingerprint) => write!(f, "pin:sha256:{fingerprint}"),
            Self::Uri(uri) => write!(f, "uri:{uri}"),
            Self::Dns(name) => write!(f, "dns:{name}"),
        }
    }
}

/// A text that is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no identity")]
pub struct NoPeerId;

impl FromStr for PeerId {
    type Err = NoPeerId;

    /// From what is displayed.
    fn from_str(text: &str) -> Result<Self, NoPeerId> {
        if let Some(fingerprint) = text.strip_prefix("pin:sha256:") {
            return Fingerprint::parse(fingerprint).map(Self::Pinned).ok_or(NoPeerId);
        }
        if let Some(uri) = text.strip_prefix("uri:") {
            return Ok(Self::Uri(uri.into()));
        }
        if let Some(name) = text.strip_prefix("dns:") {
            return Ok(Self::Dns(name.into()));
        }
        text.parse().map(Self::Spiffe).map_err(|_| NoPeerId)
    }
}

impl From<SpiffeId> for PeerId {
    fn from(id: SpiffeId) -> Self {
        Self::Spiffe(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_displayed_is_read() {
        let spiffe: SpiffeId = "spiffe://example.org/web".parse().unwrap();
        for id in [
            PeerId::from(spiffe),
            PeerId::Pinned(Fingerprint::of(b"certificate")),
            PeerId::Uri("spiffe://example.org/web".into()),
            PeerId::Uri("dns:a".into()),
            PeerId::Dns("billing.example.com".into()),
        ] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for text in ["", "web", "pin:sha256:ab", "spiffe://example.org"] {
            assert_eq!(text.parse::<PeerId>(), Err(NoPeerId), "{text}");
        }
    }
}
