//! Sessions in use, and their end when what made them good is gone: a CA removed, a certificate revoked, a pin or
//! a rule withdrawn.
//!
//! A session keeps what its peer has shown. Whenever policy or trust change, everything is judged again by the
//! same judge as at the handshake; who does not pass is cut off. Who still passes notices nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use sheath_common::workload::{InboundMode, WorkloadId};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::config::ExpiredPeer;
use crate::identity::Identities;
use crate::policy::SharedPolicy;
use crate::sys::clock::sleep_until;
use crate::tls::{PeerCertificates, Target};
use crate::x509::Fingerprint;

/// A session as policy sees it.
#[derive(Clone, Debug)]
pub struct SessionFacts {
    pub workload: WorkloadId,
    pub basis: Basis,
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

/// What tells one judgement from another, the state of policy and trust apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Question {
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
    fn question(&self) -> Question {
        let workload = self.workload;
        match &self.basis {
            Basis::Outbound { target, destination, certificates } => Question::Outbound {
                workload,
                destination: *destination,
                external: target.external_name().map(str::to_owned),
                chain: certificates.fingerprint(),
            },
            Basis::Inbound { as_agent, certificates } => Question::Inbound {
                workload,
                as_agent: *as_agent,
                chain: certificates.fingerprint(),
            },
            Basis::Permissive => Question::Permissive { workload },
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

/// All live sessions of the agent.
#[derive(Debug)]
pub struct Sessions {
    policy: SharedPolicy,
    identities: Arc<Identities>,
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
    cut: oneshot::Sender<String>,
}

/// What a session was judged by. Taken before anything that it is judged by is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revision(u64);

/// A live session, for as long as this lives.
#[derive(Debug)]
pub struct Live {
    sessions: Arc<Sessions>,
    number: u64,
    cut: oneshot::Receiver<String>,
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
            revision: AtomicU64::default(),
            changes: watch::Sender::new(()),
            next: AtomicU64::default(),
            live: Mutex::default(),
        }
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
        stay: CancellationToken,
    ) -> Result<Live, String> {
        let expires = match self.policy.load().expired_peer() {
            ExpiredPeer::Keep => None,
            ExpiredPeer::Close => facts.certificates().map(PeerCertificates::good_until),
        };
        let facts = Arc::new(facts);
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
        // Many sessions have the same peer: each question is answered once.
        let mut answers: HashMap<Question, Result<(), String>> = HashMap::new();
        for (number, facts) in all.into_iter().filter(|(_, facts)| concerned(facts)) {
            let answer = answers.entry(facts.question()).or_insert_with(|| self.judge(&facts));
            if let Err(reason) = answer.clone()
                && let Some(entry) = self.lock().remove(&number)
            {
                // It may have ended by itself.
                let _ = entry.cut.send(reason);
            }
        }
    }

    fn judge(&self, facts: &SessionFacts) -> Result<(), String> {
        let policy = self.policy.load();
        let expectation = match &facts.basis {
            Basis::Permissive => {
                return match policy.inbound_mode(facts.workload) {
                    // Of a workload that is none any more nothing is asked.
                    Ok(InboundMode::Strict) => Err("the port is strict now".to_owned()),
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
        let expectation = expectation.map_err(|error| error.to_string())?;
        // An expired certificate of our own stays good for sessions that have begun with it.
        let held = self.identities.held(facts.workload);
        let credentials = held.and_then(|held| held.credentials.clone());
        let credentials = credentials.ok_or("the workload has no identity any more")?;
        let judge = credentials.contexts.judge(expectation);
        facts.certificates().map_or(Ok(()), |shown| shown.judge_again(&judge).map(|_| ()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Entry>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// Waits until the session must end, and says why.
    pub async fn cut(&mut self) -> String {
        let expiry = async {
            match self.expires {
                Some(expires) => sleep_until(expires).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            reason = &mut self.cut => {
                reason.unwrap_or_else(|_| "the session is not good any more".to_owned())
            }
            () = self.stay.cancelled() => "the workload has gone".to_owned(),
            () = expiry => "the peer's certificate has expired, or its authority's".to_owned(),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.number);
    }
}
