//! An open session with an approved peer: the wire leg of one flow after another.

use std::future::poll_fn;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;

use super::{Basis, Revision};
use crate::tls::{Established, Proof};
use crate::wire::{Endpoints, GoAwayCode, NotAccepted, Session};

/// How long a peer may take to answer on a session that has been idle. It may be gone without
/// notice; then the flow goes on with another session.
const ANSWER: Duration = Duration::from_millis(200);

/// A session whose peer is proved and approved.
#[derive(Debug)]
pub struct WireLeg {
    pub session: Box<dyn Session>,
    pub standing: Box<Standing>,
}

/// What was proved about a session's peer, and how long it holds. It outlives each of the session's flows.
#[derive(Debug)]
pub struct Standing {
    pub proof: Proof,
    /// The peer says that it is an agent.
    pub is_with_agent: bool,
    pub terms: Terms,
}

/// How long, and for what, a session may be used.
#[derive(Debug)]
pub struct Terms {
    /// The state of policy and trust by which the peer was judged.
    pub revision: Revision,
    pub opened: Instant,
    /// When the first of the certificates that it rests on expires, those of the trust bundle among them.
    pub good_until: SystemTime,
    /// Cancelled when the workload has left the namespace that the session is used from.
    pub place: CancellationToken,
}

/// Why a session does not carry a flow.
#[derive(Debug, thiserror::Error)]
pub enum NotReopened {
    #[error("peer: {0}")]
    NotAccepted(NotAccepted),
    /// No answer has come in time. Other idle sessions may be dead as well.
    #[error("the peer does not say in time whether it takes the connection")]
    Silent,
}

impl Standing {
    /// The basis on which a flow from the peer is allowed.
    #[must_use]
    pub fn inbound(&self) -> Basis {
        let certificates = self.proof.certificates.clone();
        Basis::Inbound { as_agent: self.is_with_agent, certificates }
    }
}

impl WireLeg {
    /// A later flow has no handshake of its own. So the session lasts no longer than a new handshake with the same chain
    /// would succeed.
    #[must_use]
    pub fn new(established: Established, terms: Terms) -> Self {
        let Established { session, proof } = established;
        let good_until = terms.good_until.min(proof.certificates.believed_until());
        let terms = Terms { good_until, ..terms };
        let is_with_agent = session.mode().is_of_agents();
        Self { session, standing: Box::new(Standing { proof, is_with_agent, terms }) }
    }

    /// Client: begins a flow on a session that has been idle, and waits until the peer has accepted it. Before that, nothing
    /// of the application's has been sent.
    ///
    /// # Errors
    /// Why another session is needed, or that the peer does not want the flow.
    pub async fn reopen(&mut self, flow: Endpoints) -> Result<(), NotReopened> {
        let dead = |_| NotReopened::NotAccepted(NotAccepted::Dead);
        self.session.begin(flow).map_err(dead)?;
        self.taken(ANSWER).await
    }

    /// Client: waits until the peer has taken the flow that was begun on a new session. Before that, nothing of the application's
    /// has been sent.
    ///
    /// # Errors
    /// Why it has not.
    pub async fn taken(&mut self, limit: Duration) -> Result<(), NotReopened> {
        let accepted = poll_fn(|cx| self.session.poll_accepted(cx));
        match tokio::time::timeout(limit, accepted).await {
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
    pub fn close(self, reason: Option<GoAwayCode>) -> Option<GoAwayCode> {
        self.session.close(reason)
    }
}
