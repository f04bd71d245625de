//! A finished handshake, and what it has shown.

use std::sync::LazyLock;

use rustls::CommonState;
use rustls_pki_types::CertificateDer;

use super::TlsError;
use super::handshake_context::Outcome;
use crate::flow::{Negotiated, PeerId};
use crate::origin::Origin;
use crate::peer::{Judged, PeerCertificates, crypto_provider};
use crate::trust::Trust;
use crate::wire::Session;

/// A session with a peer that is who it should be.
#[derive(Debug)]
pub struct Established {
    pub session: Box<dyn Session>,
    pub proof: Proof,
}

/// What a session's handshake has proved and agreed on.
#[derive(Debug)]
pub struct Proof {
    /// Who the peer is.
    pub peer: PeerId,
    /// The rule that allows it.
    pub rule: Origin,
    /// Its certificates, to judge it again.
    pub certificates: PeerCertificates,
    /// Both sides have shown certificates.
    pub is_mutual: bool,
    /// Version, cipher suite and group.
    pub negotiated: Negotiated,
}

/// What a finished handshake has agreed on and shown.
#[derive(Debug)]
pub(super) struct Facts {
    chain: Vec<CertificateDer<'static>>,
    negotiated: Negotiated,
}

impl Facts {
    pub fn of(state: &CommonState) -> Self {
        let negotiated = Negotiated {
            version: state.protocol_version().and_then(|v| v.as_str()).map_or("", version),
            suite: state
                .negotiated_cipher_suite()
                .and_then(|suite| suite.suite().as_str())
                .unwrap_or_default(),
            group: state
                .negotiated_key_exchange_group()
                .and_then(|group| group.name().as_str())
                .unwrap_or_default(),
        };
        let chain = state.peer_certificates().unwrap_or_default().to_vec();
        Self { chain, negotiated }
    }
}

impl Established {
    /// The result of a handshake. `trust` is the trust by which the peer was judged.
    pub(super) fn new(
        session: Box<dyn Session>,
        facts: Facts,
        outcome: Outcome,
        trust: &Trust,
    ) -> Result<Self, TlsError> {
        let Outcome { peer, role, is_mutual } = outcome;
        let judged = peer.ok_or(TlsError::Anonymous)?;
        let Facts { chain, negotiated } = facts;
        let certificates = PeerCertificates::new(chain, role, &judged, trust.verified());
        let Judged { peer, rule, .. } = judged;
        let proof = Proof { peer, rule, certificates, is_mutual, negotiated };
        Ok(Self { session, proof })
    }
}

/// The same names in the memory of this process: version, suite and group. One that is not known is left empty.
#[must_use]
pub fn negotiated([version, suite, group]: [&str; 3]) -> Negotiated {
    static KNOWN: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
        let provider = crypto_provider();
        let suites = provider.cipher_suites.iter().filter_map(|suite| suite.suite().as_str());
        let groups = provider.kx_groups.iter().filter_map(|group| group.name().as_str());
        ["TLSv1.3", "TLSv1.2"].into_iter().chain(suites).chain(groups).collect()
    });
    let known = |name: &str| KNOWN.iter().copied().find(|known| *known == name).unwrap_or_default();
    Negotiated { version: known(version), suite: known(suite), group: known(group) }
}

/// `TLSv1_3` as people write it.
fn version(name: &'static str) -> &'static str {
    match name {
        "TLSv1_3" => "TLSv1.3",
        "TLSv1_2" => "TLSv1.2",
        other => other,
    }
}
