//! Who somebody is, as a certificate proves it.

use std::fmt;
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

impl From<SpiffeId> for PeerId {
    fn from(id: SpiffeId) -> Self {
        Self::Spiffe(id)
    }
}
