//! Sessions in use. They end when what they rest on is gone: a CA removed, a certificate revoked, a pin or
//! a rule withdrawn.
//!
//! A session keeps the certificates that its peer has shown. Whenever policy or trust change, every session is judged again
//! by the same judge as at the handshake. A session that does not pass is cut; one that passes goes on undisturbed.
//!
//! In the same way each session can be called to go to another process. One that stays says so, and is judged as before.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use serde::Deserialize;
use sheath_common::workload::{InboundMode, OutboundMode};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::facts::{Basis, JudgementKey, SessionFacts};
use super::interruption::{Interruption, Revoked};
use super::table::Table;
use crate::credentials::Identities;
use crate::peer::{Judged, PeerCertificates, UidHash};
use crate::policy::SharedPolicy;
use crate::sys::clock::sleep_until;

/// What becomes of a live session when its peer's certificate expires.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ExpiredPeer {
    #[default]
    Keep,
    Close,
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
    live: Table,
}

/// A state of policy and trust. It is taken before anything that a session is judged by is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revision(u64);

/// A live session, for as long as this lives.
#[derive(Debug)]
pub struct Live {
    sessions: Arc<Sessions>,
    number: u64,
    /// Is at its end once the session has been called.
    interruption: oneshot::Receiver<Interruption>,
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
            live: Table::default(),
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

    /// Takes up a session whose handshake has been judged good at `revision`, for as long as the workload stays. Nothing has been
    /// sent yet.
    ///
    /// # Errors
    /// Why it must end, if policy or trust have changed during the handshake.
    pub fn open(
        self: &Arc<Self>,
        facts: SessionFacts,
        revision: Revision,
    ) -> Result<Live, Revoked> {
        let facts = Arc::new(facts);
        let live = self.enter(facts.clone(), revision)?;
        if let Basis::Plain { destination, pod } = &facts.basis {
            self.policy.load().check_new_plain(*pod, *destination)?;
        }
        Ok(live)
    }

    fn enter(
        self: &Arc<Self>,
        facts: Arc<SessionFacts>,
        revision: Revision,
    ) -> Result<Live, Revoked> {
        let closes = self.closes_expired.load(Ordering::Relaxed);
        let expires = facts.certificates().filter(|_| closes).map(PeerCertificates::good_until);
        let stay = facts.stay.clone();
        let (sender, receiver) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.live.enter(number, facts.clone(), sender);
        let live = Live { sessions: self.clone(), number, interruption: receiver, expires, stay };
        // A change is counted first, and then all sessions are judged: either that judgement sees this one, or this
        // one sees the count.
        if self.revision() != revision {
            self.judge(&facts)?;
        }
        // A change of the directory is not counted: there are many. It is in force first, and then sessions with those addresses
        // are judged.
        let policy = self.policy.load();
        match &facts.basis {
            Basis::Outbound { target, destination, .. } => {
                policy.check_pod(target, *destination)?
            }
            Basis::Plain { destination, pod } => {
                policy.check_plain(facts.workload, *pod, *destination)?
            }
            Basis::Inbound { .. } | Basis::Permissive => {}
        }
        Ok(live)
    }

    /// Takes up a session that another process has had, if its peer would be let through now. Returns what was found out about
    /// the peer, where there is one that has proved who it is.
    ///
    /// # Errors
    /// Why it must end.
    pub fn take_up(
        self: &Arc<Self>,
        mut facts: SessionFacts,
    ) -> Result<(Live, Option<Judged>), Revoked> {
        let revision = self.revision();
        let judged = self.judge(&facts)?;
        if let (Some(certificates), Some(judged)) = (facts.certificates_mut(), &judged) {
            certificates.are_judged(judged);
        }
        Ok((self.enter(Arc::new(facts), revision)?, judged))
    }

    /// Has every session called that begins from now on, and returns the numbers of those that live. Sessions between flows end.
    pub fn begin_calls(&self) -> Vec<u64> {
        let live = self.live.begin_calls();
        // None of them is kept for a flow that begins later.
        self.revision.fetch_add(1, Ordering::AcqRel);
        self.changes.send_replace(());
        live
    }

    /// Calls a session to go to another process. Once it has gone, or says that it stays, the permit is dropped.
    pub fn call(&self, number: u64, permit: OwnedSemaphorePermit) {
        if let Some(way) = self.live.take_way(number) {
            // It may have ended by itself.
            let _ = way.send(Interruption::Called(Some(permit)));
        }
    }

    /// Sessions that begin from now on are not called.
    pub fn end_calls(&self) {
        self.live.end_calls();
    }

    /// Judges live sessions again, those `concerned`. To be called after what they are judged by has changed.
    pub fn review(&self, concerned: impl Fn(&SessionFacts) -> bool) {
        self.revision.fetch_add(1, Ordering::AcqRel);
        self.changes.send_replace(());
        // Nothing is locked while judging: new sessions do not wait for that.
        self.judge_those(self.live.select(concerned));
    }

    /// Judges live sessions that go to these addresses again, and no others. To be called after the directory has changed
    /// there.
    pub fn review_at(&self, addresses: &HashSet<IpAddr>) {
        self.judge_those(self.live.at(addresses));
    }

    /// True if a pod that the directory has named at a destination may still be there.
    #[must_use]
    pub fn may_lead_to(&self, pod: UidHash, destination: SocketAddr) -> bool {
        self.policy.load().may_still_be(pod, destination)
    }

    fn judge_those(&self, all: Vec<(u64, Arc<SessionFacts>)>) {
        // Many sessions have the same peer: each judgement is made once.
        let mut judgements: HashMap<JudgementKey, Result<(), Revoked>> = HashMap::new();
        for (number, facts) in all {
            let judgement = judgements
                .entry(facts.judgement_key())
                .or_insert_with(|| self.judge(&facts).map(drop));
            if let Err(reason) = judgement.clone() {
                // One that is called is judged when it says that it stays.
                if let Some(way) = self.live.take_way(number) {
                    // It may have ended by itself.
                    let _ = way.send(Interruption::Revoked(reason));
                }
            }
        }
    }

    /// What is found out about the peer, if it has shown certificates.
    fn judge(&self, facts: &SessionFacts) -> Result<Option<Judged>, Revoked> {
        let policy = self.policy.load();
        let expectation = match &facts.basis {
            Basis::Plain { destination, pod } => {
                let mode = policy.workload(facts.workload).map(|config| config.outbound.mode);
                if mode == Some(OutboundMode::Require) {
                    return Err(Revoked::Required);
                }
                policy.check_plain(facts.workload, *pod, *destination)?;
                return Ok(None);
            }
            Basis::Permissive => {
                return match policy.inbound_mode(facts.workload) {
                    // A workload that is gone has no mode.
                    Ok(InboundMode::Strict) => Err(Revoked::Strict),
                    _ => Ok(None),
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
        let judged = facts.certificates().map(|certificates| certificates.judge_again(&judge));
        Ok(judged.transpose()?)
    }
}

impl Live {
    /// What the session rests on.
    #[must_use]
    pub fn facts(&self) -> Option<Arc<SessionFacts>> {
        self.sessions.live.facts(self.number)
    }

    /// Waits until the session must end, or is called.
    pub async fn interrupted(&mut self) -> Interruption {
        if self.interruption.is_terminated() {
            // While something else was waited for.
            return Interruption::Called(None);
        }
        let expiry = async {
            match self.expires {
                Some(expires) => sleep_until(expires).await,
                None => std::future::pending().await,
            }
        };
        let revoked = tokio::select! {
            interruption = &mut self.interruption => match interruption {
                Ok(interruption) => return interruption,
                Err(_) => Revoked::Unwatched,
            },
            () = self.stay.cancelled() => Revoked::WorkloadGone,
            () = expiry => Revoked::Expired,
        };
        Interruption::Revoked(revoked)
    }

    /// Waits until the session must end, and says why. That it is called is left for [`Self::interrupted`].
    pub async fn revoked(&mut self) -> Revoked {
        match self.interrupted().await {
            Interruption::Revoked(revoked) => revoked,
            Interruption::Called(permit) => {
                drop(permit);
                std::future::pending().await
            }
        }
    }

    /// The session was called, and stays. It is not called again by the same call. If it must end by now, [`Self::interrupted`]
    /// says so.
    pub fn stays(&mut self) {
        let (sender, receiver) = oneshot::channel();
        self.interruption = receiver;
        let sessions = &self.sessions;
        let Some(facts) = sessions.live.stays(self.number, sender) else {
            return;
        };
        // What has changed since the call, nobody has told it.
        if let Err(revoked) = sessions.judge(&facts)
            && let Some(way) = sessions.live.take_way(self.number)
        {
            let _ = way.send(Interruption::Revoked(revoked));
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.sessions.live.remove(self.number);
    }
}
