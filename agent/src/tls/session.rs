//! A finished handshake, and what it has shown.

use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::{ALPN, TlsError};
use crate::trust::{Judge, PeerChain, PeerId, Role};
use crate::x509::{CertificateFacts, Fingerprint};

/// A session with a peer that is who it should be.
#[derive(Debug)]
pub struct Session {
    pub stream: TlsStream<TcpStream>,
    pub peer: PeerId,
    pub certificates: PeerCertificates,
    /// Both sides have shown certificates.
    pub is_mutual: bool,
    /// The peer speaks the protocol of agents.
    pub with_agent: bool,
    pub negotiated: Negotiated,
}

/// What the peer has shown, kept so that it can be judged again when trust changes.
#[derive(Clone, Debug)]
pub struct PeerCertificates {
    chain: Arc<[CertificateDer<'static>]>,
    fingerprint: Fingerprint,
    role: Role,
    /// When it was judged first.
    shown: UnixTime,
}

/// Parameters of a session, by the names that rustls has for them. Empty before the handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Negotiated {
    pub version: &'static str,
    pub suite: &'static str,
    pub group: String,
}

impl Session {
    pub(super) fn new(
        stream: TlsStream<TcpStream>,
        judge: &Judge,
        role: Role,
        is_mutual: bool,
    ) -> Result<Self, TlsError> {
        let (_, connection) = stream.get_ref();
        let chain = connection.peer_certificates().ok_or(TlsError::Anonymous)?;
        let certificates = PeerCertificates::new(chain, role);
        let peer = certificates.chain().ok_or(TlsError::Anonymous).and_then(|peer| {
            judge.identify(peer, role, certificates.shown).map_err(|error| (&error).into())
        })?;
        let negotiated = Negotiated {
            version: connection.protocol_version().and_then(|v| v.as_str()).map_or("", version),
            suite: connection
                .negotiated_cipher_suite()
                .and_then(|suite| suite.suite().as_str())
                .unwrap_or_default(),
            group: connection
                .negotiated_key_exchange_group()
                .map_or_else(String::new, |group| format!("{:?}", group.name())),
        };
        let with_agent = connection.alpn_protocol() == Some(ALPN);
        Ok(Self { stream, peer, certificates, is_mutual, with_agent, negotiated })
    }
}

/// `TLSv1_3` as people write it.
fn version(name: &'static str) -> &'static str {
    match name {
        "TLSv1_3" => "TLSv1.3",
        "TLSv1_2" => "TLSv1.2",
        other => other,
    }
}

impl PeerCertificates {
    fn new(chain: &[CertificateDer<'static>], role: Role) -> Self {
        let whole: Vec<u8> = chain.iter().flat_map(|der| der.iter().copied()).collect();
        Self {
            fingerprint: Fingerprint::of(&whole),
            chain: chain.into(),
            role,
            shown: UnixTime::now(),
        }
    }

    /// SHA-256 of the whole chain.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    fn chain(&self) -> Option<PeerChain<'_>> {
        let (leaf, intermediates) = self.chain.split_first()?;
        Some(PeerChain { leaf, intermediates })
    }

    /// Judges the peer again, by what is believed now. That its certificate has expired meanwhile does not
    /// count: a session outlives it, unless it is told not to.
    pub fn judge_again(&self, judge: &Judge) -> Result<PeerId, String> {
        let chain = self.chain().ok_or_else(|| TlsError::Anonymous.to_string())?;
        judge.judge(chain, self.role, self.shown).map_err(|refusal| refusal.to_string())
    }

    /// When the peer's leaf certificate expires.
    #[must_use]
    pub fn not_after(&self) -> Option<SystemTime> {
        Some(CertificateFacts::of(self.chain.first()?).ok()?.not_after)
    }
}
