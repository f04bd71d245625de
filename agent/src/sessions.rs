//! Live sessions, and their end when what made them good is gone: a CA removed, a certificate revoked, a pin or
//! a rule withdrawn.
//!
//! A session keeps what its peer has shown. Whenever policy or trust change, everything is judged again by the
//! same judge as at the handshake; who does not pass is cut off. Who still passes notices nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use sheath_common::workload::WorkloadId;
use tokio::sync::oneshot;

use crate::config::ExpiredPeer;
use crate::identity::Identities;
use crate::policy::SharedPolicy;
use crate::tls::{PeerCertificates, Target};

/// A session as policy sees it.
#[derive(Clone, Debug)]
pub struct SessionFacts {
    pub workload: WorkloadId,
    pub side: Side,
    pub certificates: PeerCertificates,
}

/// Which rules apply.
#[derive(Clone, Debug)]
pub enum Side {
    Outbound { target: Target, destination: SocketAddr },
    Inbound,
}

/// All live sessions of the agent.
#[derive(Debug)]
pub struct Sessions {
    policy: SharedPolicy,
    identities: Arc<Identities>,
    /// Counts changes of what sessions are judged by.
    revision: AtomicU64,
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
    /// When the session ends with its peer's certificate, if it does.
    expires: Option<SystemTime>,
}

impl Sessions {
    #[must_use]
    pub fn new(policy: SharedPolicy, identities: Arc<Identities>) -> Self {
        Self {
            policy,
            identities,
            revision: AtomicU64::default(),
            next: AtomicU64::default(),
            live: Mutex::default(),
        }
    }

    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Acquire))
    }

    /// Takes up a session whose handshake has been judged good at `revision`.
    ///
    /// # Errors
    /// Why it is not good any more, if things have changed during the handshake.
    pub fn open(self: &Arc<Self>, facts: SessionFacts, revision: Revision) -> Result<Live, String> {
        let expires = match self.policy.load().expired_peer() {
            ExpiredPeer::Keep => None,
            ExpiredPeer::Close => facts.certificates.not_after(),
        };
        let facts = Arc::new(facts);
        let (sender, receiver) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, Entry { facts: facts.clone(), cut: sender });
        let live = Live { sessions: self.clone(), number, cut: receiver, expires };
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
        // The lock is not held while judging: new sessions do not wait for that.
        let all: Vec<_> =
            self.lock().iter().map(|(number, entry)| (*number, entry.facts.clone())).collect();
        for (number, facts) in all.into_iter().filter(|(_, facts)| concerned(facts)) {
            if let Err(reason) = self.judge(&facts)
                && let Some(entry) = self.lock().remove(&number)
            {
                // It may have ended by itself.
                let _ = entry.cut.send(reason);
            }
        }
    }

    fn judge(&self, facts: &SessionFacts) -> Result<(), String> {
        let policy = self.policy.load();
        let credentials = self.identities.held(facts.workload).and_then(|held| {
            // An expired certificate of our own stays good for sessions that have begun with it.
            held.credentials.clone()
        });
        let credentials = credentials.ok_or("the workload has no identity any more")?;
        let expectation = match &facts.side {
            Side::Outbound { target, destination } => policy.expectation_of(target, *destination),
            Side::Inbound => {
                policy.inbound(facts.workload).map(|inbound| match &inbound.standard {
                    Some(standard) => inbound.callers.or(&standard.callers),
                    None => inbound.callers.clone(),
                })
            }
        };
        let expectation = expectation.map_err(|error| error.to_string())?;
        let judge = credentials.contexts.judge(expectation);
        facts.certificates.judge_again(&judge).map(|_| ())
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
                Some(expires) => {
                    let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
                    tokio::time::sleep(left).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            reason = &mut self.cut => {
                reason.unwrap_or_else(|_| "the session is not good any more".to_owned())
            }
            () = expiry => "the peer's certificate has expired".to_owned(),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.number);
    }
}
