//! How TLS with peers is meant to be that have no agent.

use super::{CertificateSource, CrlFiles, Origin, PinSource};
use crate::spiffe::SpiffeId;
use crate::tls::Profile;
use crate::trust::Names;
use crate::x509::KeyPairFiles;

/// A certificate with a name.
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

/// The same for clients.
#[derive(Clone, Debug)]
pub struct InboundTls {
    /// Ports of permissive mode on which every TLS client is meant for us.
    pub ports: Vec<u16>,
    pub tls: StandardTls,
}

/// The certificate that our side shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateChoice {
    /// The workload's own.
    Svid,
    /// None: one-way TLS.
    Nothing,
    /// That of the [`TlsContext`] of this name.
    Context(String),
}

/// By whose word a peer is believed, and who it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustChoice {
    /// Some authorities vouch for one of the names.
    Authorities { from: CertificateSource, crl: Option<CrlFiles>, names: Names },
    /// X.509-SVIDs of one trust domain.
    Spiffe(Vec<SpiffeId>),
}
