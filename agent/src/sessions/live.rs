//! Sessions in use, and their end when what made them good is gone: a CA removed, a certificate revoked, a pin or
//! a rule withdrawn.
//!
//! A session keeps what its peer has shown. Whenever policy or trust change, everything is judged again by the
//! same judge as at the handshake; who does not pass is cut off. Who still passes notices nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::Deserialize;
use sheath_common::workload::{InboundMode, WorkloadId};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::credentials::Identities;
use crate::origin::Origin;
use crate::peer::{PeerCertificates, Refusal, Target};
use crate::policy::{PolicyError, SharedPolicy};
use crate::sys::clock::sleep_until;
use crate::x509::Fingerprint;

/// What becomes of a live session when its peer's certificate expires.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ExpiredPeer {
    #[default]
    Keep,
    Close,
}

/// A session as policy sees it.
#[derive(Clone, Debug)]
pub struct SessionFacts {
    pub workload: WorkloadId,
    pub basis: Basis,
    /// Cancelled when the workload has gone from the place that the session is used from.
    pub stay: CancellationToken,
}

/// What makes a session good.
#[derive(Clone, Debug)]
pub enum Basis {
    /// The other end is who must answer there.
    Outbound { target: Target, destination: SocketAddr, certificates: PeerCertificates },
    /// The client is one that may call, in the way in which it has called.
    Inbound { as_agent: bool, certificates: PeerCertificates },
    /// The port lets through what is not for us.
    Permissive,
}

/// Two sessions with equal keys get the same judgement, unless policy or trust change in between.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum JudgementKey {
    Outbound {
        workload: WorkloadId,
        destination: SocketAddr,
        external: Option<String>,
        chain: Fingerprint,
    },
    Inbound {
        workload: WorkloadId,
        as_agent: bool,
        chain: Fingerprint,
    },
    Permissive {
        workload: WorkloadId,
    },
}

impl SessionFacts {
    fn judgement_key(&self) -> JudgementKey {
        let workload = self.workload;
        match &self.basis {
            Basis::Outbound { target, destination, certificates } => JudgementKey::Outbound {
                workload,
                destination: *destination,
                external: target.external_name().map(str::to_owned),
                chain: certificates.fingerprint(),
            },
            Basis::Inbound { as_agent, certificates } => JudgementKey::Inbound {
                workload,
                as_agent: *as_agent,
                chain: certificates.fingerprint(),
            },
            Basis::Permissive => JudgementKey::Permissive { workload },
        }
    }

    fn certificates(&self) -> Option<&PeerCertificates> {
        match &self.basis {
            Basis::Outbound { certificates, .. } | Basis::Inbound { certificates, .. } => {
                Some(certificates)
            }
            Basis::Permissive => None,
        }
    }
}

/// Why a session that was good is not any more.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Revoked {
    /// What is not for the agent does not pass any more.
    #[error("the port is strict now")]
    Strict,
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("the workload has no identity any more")]
    NoIdentity,
    /// The peer would not be believed now.
    #[error(transparent)]
    Peer(#[from] Refusal),
    #[error("the workload has gone")]
    WorkloadGone,
    #[error("the peer's certificate has expired, or its authority's")]
    Expired,
    /// Nobody is left to judge it.
    #[error("the agent does not watch the session any more")]
    Unwatched,
}

impl Revoked {
    /// The rule by which the session ends, if it is for the sake of one.
    #[must_use]
    pub fn rule(&self) -> Option<&Origin> {
        match self {
            Self::Policy(error) => error.rule(),
            Self::Peer(refusal) => refusal.rule.as_ref(),
            _ => None,
        }
    }
}

/// All live sessions of the agent.
#[derive(Debug)]
pub struct Sessions {
    policy: SharedPolicy,
    identities: Arc<Identities>,
    /// [`ExpiredPeer::Close`], for sessions from now on.
    closes_expired: AtomicBool,
    /// Counts changes of what sessions are judged by.
    revision: AtomicU64,
    /// Tells of them.
    changes: watch::Sender<()>,
    next: AtomicU64,
    live: Mutex<HashMap<u64, Entry>>,
}

#[derive(Debug)]
struct Entry {
    facts: Arc<SessionFacts>,
    cut: oneshot::Sender<Revoked>,
}

/// What a session was judged by. Taken before anything that it is judged by is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revision(u64);

/// A live session, for as long as this lives.
#[derive(Debug)]
pub struct Live {
    sessions: Arc<Sessions>,
    number: u64,
    cut: oneshot::Receiver<Revoked>,
    /// When the session ends with the certificates that its peer was believed by, if it does.
    expires: Option<SystemTime>,
    /// Cancelled when the workload has gone.
    stay: CancellationToken,
}

impl Sessions {
    #[must_use]
    pub fn new(policy: SharedPolicy, identities: Arc<Identities>) -> Self {
        Self {
            policy,
            identities,
            closes_expired: AtomicBool::default(),
            revision: AtomicU64::default(),
            changes: watch::Sender::new(()),
            next: AtomicU64::default(),
            live: Mutex::default(),
        }
    }

    /// What becomes of sessions that are opened from now on.
    pub fn set_expired_peer(&self, expired_peer: ExpiredPeer) {
        self.closes_expired.store(expired_peer == ExpiredPeer::Close, Ordering::Relaxed);
    }

    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Acquire))
    }

    /// Waits until what sessions are judged by is no longer what it was.
    pub async fn changed_since(&self, revision: Revision) {
        let mut changes = self.changes.subscribe();
        // The sender lives as long as this.
        while self.revision() == revision && changes.changed().await.is_ok() {}
    }

    /// Takes up a session whose handshake has been judged good at `revision`, for as long as the workload stays.
    ///
    /// # Errors
    /// Why it is not good any more, if things have changed during the handshake.
    pub fn open(
        self: &Arc<Self>,
        facts: SessionFacts,
        revision: Revision,
    ) -> Result<Live, Revoked> {
        let closes = self.closes_expired.load(Ordering::Relaxed);
        let expires = facts.certificates().filter(|_| closes).map(PeerCertificates::good_until);
        let (facts, stay) = (Arc::new(facts.clone()), facts.stay);
        let (sender, receiver) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, Entry { facts: facts.clone(), cut: sender });
        let live = Live { sessions: self.clone(), number, cut: receiver, expires, stay };
        // Whoever changes things counts first and looks at all sessions then: either it sees this one, or this
        // one sees the count.
        if self.revision() != revision {
            self.judge(&facts)?;
        }
        Ok(live)
    }

    /// Judges live sessions again, those `concerned`. To be called after what they are judged by has changed.
    pub fn review(&self, concerned: impl Fn(&SessionFacts) -> bool) {
        self.revision.fetch_add(1, Ordering::AcqRel);
        self.changes.send_replace(());
        // The lock is not held while judging: new sessions do not wait for that.
        let all: Vec<_> =
            self.lock().iter().map(|(number, entry)| (*number, entry.facts.clone())).collect();
        // Many sessions have the same peer: each judgement is made once.
        let mut judgements: HashMap<JudgementKey, Result<(), Revoked>> = HashMap::new();
        for (number, facts) in all.into_iter().filter(|(_, facts)| concerned(facts)) {
            let judgement =
                judgements.entry(facts.judgement_key()).or_insert_with(|| self.judge(&facts));
            if let Err(reason) = judgement.clone()
                && let Some(entry) = self.lock().remove(&number)
            {
                // It may have ended by itself.
                let _ = entry.cut.send(reason);
            }
        }
    }

    fn judge(&self, facts: &SessionFacts) -> Result<(), Revoked> {
        let policy = self.policy.load();
        let expectation = match &facts.basis {
            Basis::Permissive => {
                return match policy.inbound_mode(facts.workload) {
                    // Of a workload that is none any more nothing is asked.
                    Ok(InboundMode::Strict) => Err(Revoked::Strict),
                    _ => Ok(()),
                };
            }
            Basis::Outbound { target, destination, .. } => {
                policy.expectation_of(target, *destination)
            }
            Basis::Inbound { as_agent, .. } => {
                policy.inbound(facts.workload).map(|inbound| inbound.expectation(*as_agent))
            }
        };
        let expectation = expectation?;
        // An expired certificate of our own stays good for sessions that have begun with it.
        let held = self.identities.held(facts.workload);
        let credentials = held.and_then(|held| held.credentials.clone());
        let credentials = credentials.ok_or(Revoked::NoIdentity)?;
        let judge = credentials.tls.judge(expectation);
        match facts.certificates() {
            Some(certificates) => Ok(certificates.judge_again(&judge).map(|_| ())?),
            None => Ok(()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Entry>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// Waits until the session must end, and says why.
    pub async fn revoked(&mut self) -> Revoked {
        let expiry = async {
            match self.expires {
                Some(expires) => sleep_until(expires).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            reason = &mut self.cut => reason.unwrap_or(Revoked::Unwatched),
            () = self.stay.cancelled() => Revoked::WorkloadGone,
            () = expiry => Revoked::Expired,
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.number);
    }
}
