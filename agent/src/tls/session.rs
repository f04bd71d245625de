//! A finished handshake, and what it has shown.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::CommonState;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::chains::{self, Chain};
use super::stream::RecordStream;
use super::{ALPN_BYTES, ALPN_FLOWS, TlsError};
use crate::sys::tcp::Tcp;
use crate::trust::{Judge, Judged, PeerChain, PeerId, Role, Validity};
use crate::x509::Fingerprint;

/// A session with a peer that is who it should be.
#[derive(Debug)]
pub struct Session {
    pub stream: Stream,
    pub proof: Proof,
}

/// What a session's handshake has proved and agreed on.
#[derive(Debug)]
pub struct Proof {
    pub peer: PeerId,
    pub certificates: PeerCertificates,
    /// Both sides have shown certificates.
    pub is_mutual: bool,
    pub content: Content,
    pub negotiated: Negotiated,
}

/// What moves the bytes of a session.
#[derive(Debug)]
pub enum Stream {
    /// TLS 1.3: records of our own.
    Records(Box<RecordStream>),
    /// Where an older version may have been agreed on.
    Library(Box<TlsStream<Tcp<Arc<TcpStream>>>>),
}

impl Stream {
    #[must_use]
    pub fn tcp(&self) -> &Arc<TcpStream> {
        match self {
            Self::Records(stream) => stream.tcp(),
            Self::Library(stream) => &stream.get_ref().0.0,
        }
    }
}

/// What the bytes of a session mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Flow after flow, framed: [`ALPN_FLOWS`].
    Flows,
    /// One flow, between agents: [`ALPN_BYTES`].
    Bytes,
    /// One flow, with a peer that is no agent, or does not say so.
    Foreign,
}

impl Content {
    /// The peer says that it is an agent.
    #[must_use]
    pub fn is_of_agent(self) -> bool {
        self != Self::Foreign
    }
}

/// What a finished handshake has agreed on and shown.
#[derive(Debug)]
pub(super) struct Facts {
    chain: Vec<CertificateDer<'static>>,
    content: Content,
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
        let content = match state.alpn_protocol() {
            Some(ALPN_FLOWS) => Content::Flows,
            Some(ALPN_BYTES) => Content::Bytes,
            _ => Content::Foreign,
        };
        let chain = state.peer_certificates().unwrap_or_default().to_vec();
        Self { chain, content, negotiated }
    }
}

/// What the peer has shown, kept so that it can be judged again when trust changes.
#[derive(Clone, Debug)]
pub struct PeerCertificates {
    chain: Chain,
    fingerprint: Fingerprint,
    role: Role,
    /// When it was judged first.
    shown: UnixTime,
    /// When what it was believed by is good: its certificates and the authority's.
    validity: Validity,
    /// When the CRLs say what has to be known of them.
    unrevoked: Validity,
}

/// Parameters of a session, by the names that rustls has for them. Empty before the handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Negotiated {
    pub version: &'static str,
    pub suite: &'static str,
    pub group: &'static str,
}

impl Session {
    pub(super) fn new(
        stream: Stream,
        facts: Facts,
        peer: Option<Judged>,
        role: Role,
        is_mutual: bool,
    ) -> Result<Self, TlsError> {
        let peer = peer.ok_or(TlsError::Anonymous)?;
        let Facts { chain, content, negotiated } = facts;
        let certificates = PeerCertificates::new(chain, role, &peer);
        let proof = Proof { peer: peer.id, certificates, is_mutual, content, negotiated };
        Ok(Self { stream, proof })
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
    fn new(chain: Vec<CertificateDer<'static>>, role: Role, judged: &Judged) -> Self {
        let (fingerprint, chain) = chains::shared(chain);
        let Judged { validity, unrevoked, .. } = *judged;
        Self { fingerprint, chain, role, shown: UnixTime::now(), validity, unrevoked }
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
        let judged = judge.judge(chain, self.role, self.shown);
        judged.map(|peer| peer.id).map_err(|refusal| refusal.to_string())
    }

    /// When the first of the certificates expires that the peer was believed by, the authority's among them.
    #[must_use]
    pub fn good_until(&self) -> SystemTime {
        end(self.validity)
    }

    /// Until when the peer would be believed again if it showed the same: what a flow may rest on that has no handshake of
    /// its own.
    #[must_use]
    pub fn believed_until(&self) -> SystemTime {
        end(self.validity.and(self.unrevoked))
    }
}

/// What is too far away to be told is now.
fn end(validity: Validity) -> SystemTime {
    let end = Duration::from_secs(validity.end().as_secs());
    SystemTime::UNIX_EPOCH.checked_add(end).unwrap_or(SystemTime::UNIX_EPOCH)
}
