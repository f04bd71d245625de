//! TLS with peers that have no agent.

use super::{CertificateSource, CrlFiles, Origin, PinSource};
use crate::peer::{Names, Profile};
use crate::spiffe::SpiffeId;
use crate::x509::KeyPairFiles;

/// A certificate that entries refer to by name.
#[derive(Clone, Debug)]
pub struct TlsContext {
    pub origin: Origin,
    pub name: String,
    pub files: KeyPairFiles,
}

/// TLS with a peer that has no agent.
#[derive(Clone, Debug)]
pub struct StandardTls {
    pub certificate: CertificateChoice,
    /// `None`: pins alone.
    pub trust: Option<TrustChoice>,
    pub pins: Vec<PinSource>,
    pub profile: Profile,
}

/// TLS with clients that have no agent.
#[derive(Clone, Debug)]
pub struct InboundTls {
    /// Ports in permissive mode on which the agent terminates all TLS.
    pub ports: Vec<u16>,
    pub tls: StandardTls,
}

/// The certificate that the agent presents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateChoice {
    /// The workload's own.
    Svid,
    /// None: one-way TLS.
    Nothing,
    /// That of the [`TlsContext`] of this name.
    Context(String),
}

/// Who vouches for a peer, and who the peer must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustChoice {
    /// A chain to one of the authorities, with one of the names.
    Authorities { from: CertificateSource, crl: Option<CrlFiles>, names: Names },
    /// An X.509-SVID with one of these IDs, which are of one trust domain.
    Spiffe(Vec<SpiffeId>),
}
