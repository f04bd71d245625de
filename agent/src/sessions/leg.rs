//! An open session of an agent, with what it rests on: the wire leg of one flow after the other.

use std::future::poll_fn;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;

use super::{Basis, Revision};
use crate::tls::{Established, Proof};
use crate::wire::{Endpoints, GoAway, NotAccepted, Session};

/// How long a peer may take to answer on a session that has been idle. It may be there no more, without anybody having
/// said so; then the flow goes on with another session.
const ANSWER: Duration = Duration::from_millis(200);

/// A session whose peer is proved and approved.
#[derive(Debug)]
pub struct WireLeg {
    pub session: Box<dyn Session>,
    pub standing: Box<Standing>,
}

/// What a session rests on, and for how long. It outlives each of the session's flows.
#[derive(Debug)]
pub struct Standing {
    pub proof: Proof,
    /// The peer says that it is an agent.
    pub is_with_agent: bool,
    pub terms: Terms,
}

/// What a session is good for.
#[derive(Debug)]
pub struct Terms {
    /// What the peer was judged by.
    pub revision: Revision,
    pub opened: Instant,
    /// When the first of the certificates that it rests on expires, those of the trust bundle among them.
    pub good_until: SystemTime,
    /// Cancelled when the workload has gone from the place it is used from.
    pub place: CancellationToken,
}

/// Why an idle session does not carry a flow.
#[derive(Debug)]
pub enum NotReopened {
    NotAccepted(NotAccepted),
    /// No answer has come in time. Others that have been idle may lead as little to anybody.
    Silent,
}

impl Standing {
    /// What makes a flow from the peer good.
    #[must_use]
    pub fn inbound(&self) -> Basis {
        let certificates = self.proof.certificates.clone();
        Basis::Inbound { as_agent: self.is_with_agent, certificates }
    }
}

impl WireLeg {
    /// Without a handshake of its own, a flow rests on nothing that a new handshake would not be believed by.
    #[must_use]
    pub fn new(established: Established, terms: Terms) -> Self {
        let Established { session, proof } = established;
        let good_until = terms.good_until.min(proof.certificates.believed_until());
        let terms = Terms { good_until, ..terms };
        let is_with_agent = session.mode().is_of_agents();
        Self { session, standing: Box::new(Standing { proof, is_with_agent, terms }) }
    }

    /// Client: begins a flow on a session that has been idle, and waits until the peer has taken it. Before that, nothing
    /// of the application's has been sent.
    ///
    /// # Errors
    /// Why another session is needed, or that the peer does not want the flow.
    pub async fn reopen(&mut self, flow: Endpoints) -> Result<(), NotReopened> {
        let dead = |_| NotReopened::NotAccepted(NotAccepted::Dead);
        self.session.begin(flow).map_err(dead)?;
        let accepted = poll_fn(|cx| self.session.poll_accepted(cx));
        match tokio::time::timeout(ANSWER, accepted).await {
            Ok(answer) => answer.map_err(NotReopened::NotAccepted),
            Err(_) => Err(NotReopened::Silent),
        }
    }

    /// True if the runtime of the calling thread waits for its events.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.session.is_here()
    }

    /// Has the runtime of the calling thread wait for its events. `None` if that is not possible.
    #[must_use]
    pub fn moved_here(self) -> Option<Self> {
        let session = self.session.moved_here().ok()?;
        Some(Self { session, ..self })
    }

    /// Ends the session between flows; a server may say why. Returns why the peer has ended it, if it was the peer.
    pub fn close(self, reason: Option<GoAway>) -> Option<GoAway> {
        self.session.close(reason)
    }
}
