//! Sessions in use. They end when what they rest on is gone: a CA removed, a certificate revoked, a pin or
//! a rule withdrawn.
//!
//! A session keeps the certificates that its peer has shown. Whenever policy or trust change, every session is judged again
//! by the same judge as at the handshake. A session that does not pass is cut; one that passes goes on undisturbed.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::Deserialize;
use sheath_common::workload::{InboundMode, OutboundMode, WorkloadId};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::credentials::Identities;
use crate::origin::Origin;
use crate::peer::{PeerCertificates, Refusal, Target, UidHash};
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
    /// Cancelled when the workload has left the namespace that the session is used from.
    pub stay: CancellationToken,
}

/// What a session rests on.
#[derive(Clone, Debug)]
pub enum Basis {
    /// The server is the one that is expected there.
    Outbound { target: Target, destination: SocketAddr, certificates: PeerCertificates },
    /// The client is one that may call, as an agent or without one.
    Inbound { as_agent: bool, certificates: PeerCertificates },
    /// An endpoint of a Service that nobody protects, called by a workload that prefers protection.
    Plain,
    /// The port is permissive: it lets through what is not for the agent.
    Permissive,
}

/// Two sessions with equal keys get the same judgement, unless policy or trust change in between.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum JudgementKey {
    Outbound {
        workload: WorkloadId,
        destination: SocketAddr,
        external: Option<String>,
        pod: Option<UidHash>,
        chain: Fingerprint,
    },
    Inbound {
        workload: WorkloadId,
        as_agent: bool,
        chain: Fingerprint,
    },
    Plain {
        workload: WorkloadId,
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
                pod: target.pod(),
                chain: certificates.fingerprint(),
            },
            Basis::Inbound { as_agent, certificates } => JudgementKey::Inbound {
                workload,
                as_agent: *as_agent,
                chain: certificates.fingerprint(),
            },
            Basis::Plain => JudgementKey::Plain { workload },
            Basis::Permissive => JudgementKey::Permissive { workload },
        }
    }

    fn certificates(&self) -> Option<&PeerCertificates> {
        match &self.basis {
            Basis::Outbound { certificates, .. } | Basis::Inbound { certificates, .. } => {
                Some(certificates)
            }
            Basis::Plain | Basis::Permissive => None,
        }
    }
}

/// Why a session must end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Revoked {
    /// The port was permissive when the session began.
    #[error("the port is strict now")]
    Strict,
    /// It went to an endpoint without protection, which was only preferred when the session began.
    #[error("the workload requires protection now")]
    Required,
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("the workload has no identity any more")]
    NoIdentity,
    /// The peer would be refused now.
    #[error(transparent)]
    Peer(#[from] Refusal),
    #[error("the workload has gone")]
    WorkloadGone,
    #[error("the peer's certificate has expired, or its authority's")]
    Expired,
    /// Nobody is left to judge it.
    #[error("the agent no longer judges the session")]
    Unwatched,
}

impl Revoked {
    /// The rule that ends the session, if a rule does.
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
    /// What sessions are judged by, with `identities`.
    policy: SharedPolicy,
    identities: Arc<Identities>,
    /// [`ExpiredPeer::Close`], for sessions from now on.
    closes_expired: AtomicBool,
    /// Counts changes of what sessions are judged by.
    revision: AtomicU64,
    /// Notifies of them.
    changes: watch::Sender<()>,
    /// Key of the next session.
    next: AtomicU64,
    /// The sessions in use.
    live: Mutex<HashMap<u64, Entry>>,
}

#[derive(Debug)]
struct Entry {
    facts: Arc<SessionFacts>,
    cut: oneshot::Sender<Revoked>,
}

/// A state of policy and trust. It is taken before anything that a session is judged by is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revision(u64);

/// A live session, for as long as this lives.
#[derive(Debug)]
pub struct Live {
    sessions: Arc<Sessions>,
    number: u64,
    cut: oneshot::Receiver<Revoked>,
    /// When the session ends because the peer's certificates expire, if it does.
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

    /// Sets what happens to sessions that are opened from now on.
    pub fn set_expired_peer(&self, expired_peer: ExpiredPeer) {
        self.closes_expired.store(expired_peer == ExpiredPeer::Close, Ordering::Relaxed);
    }

    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Acquire))
    }

    /// Waits until policy or trust have changed since `revision`.
    pub async fn changed_since(&self, revision: Revision) {
        let mut changes = self.changes.subscribe();
        // The sender lives as long as this.
        while self.revision() == revision && changes.changed().await.is_ok() {}
    }

    /// Takes up a session whose handshake has been judged good at `revision`, for as long as the workload stays.
    ///
    /// # Errors
    /// Why it must end, if policy or trust have changed during the handshake.
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
        // A change is counted first, and then all sessions are judged: either that judgement sees this one, or this
        // one sees the count.
        if self.revision() != revision {
            self.judge(&facts)?;
        }
        // A change of the directory is not counted: there are many. It is in force first, and then sessions with those addresses
        // are judged.
        if let Basis::Outbound { target, destination, .. } = &facts.basis {
            self.policy.load().check_pod(target, *destination)?;
        }
        Ok(live)
    }

    /// Judges live sessions again, those `concerned`. To be called after what they are judged by has changed.
    pub fn review(&self, concerned: impl Fn(&SessionFacts) -> bool) {
        self.revision.fetch_add(1, Ordering::AcqRel);
        self.changes.send_replace(());
        // The lock is not held while judging: new sessions do not wait for that.
        self.judge_those(concerned);
    }

    /// Judges live sessions with peers at these addresses again, and no others. To be called after the directory has changed
    /// there.
    pub fn review_at(&self, addresses: &HashSet<IpAddr>) {
        self.judge_those(|facts| match &facts.basis {
            Basis::Outbound { destination, .. } => {
                addresses.contains(&destination.ip().to_canonical())
            }
            Basis::Inbound { .. } | Basis::Plain | Basis::Permissive => false,
        });
    }

    /// True if a pod that the directory has named at a destination may still be there.
    #[must_use]
    pub fn may_lead_to(&self, pod: UidHash, destination: SocketAddr) -> bool {
        self.policy.load().may_still_be(pod, destination)
    }

    fn judge_those(&self, concerned: impl Fn(&SessionFacts) -> bool) {
        let all: Vec<_> = self
            .lock()
            .iter()
            .filter(|(_, entry)| concerned(&entry.facts))
            .map(|(number, entry)| (*number, entry.facts.clone()))
            .collect();
        // Many sessions have the same peer: each judgement is made once.
        let mut judgements: HashMap<JudgementKey, Result<(), Revoked>> = HashMap::new();
        for (number, facts) in all {
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
            Basis::Plain => {
                let mode = policy.workload(facts.workload).map(|config| config.outbound.mode);
                return match mode {
                    Some(OutboundMode::Require) => Err(Revoked::Required),
                    _ => Ok(()),
                };
            }
            Basis::Permissive => {
                return match policy.inbound_mode(facts.workload) {
                    // A workload that is gone has no mode.
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
