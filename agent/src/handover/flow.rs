//! A flow for another process. The pipeline offers flows to a [`FlowTaker`] in the agent that ends, and is a
//! [`FlowResumer`] in its successor.
//!
//! Never do two processes carry one flow: with the same keys and the same numbers of records, that would give secrets away.
//! So the successor restores a flow that it is offered and says so; only when the predecessor has then given the flow up
//! for good does the successor go on with it.

use std::fmt;
use std::os::fd::OwnedFd;
use std::pin::Pin;

use zeroize::Zeroizing;

/// A flow for another process: its state, and its two legs.
pub struct MovingFlow {
    /// What the pipeline has saved of it. Traffic secrets are in it: it is erased when it is dropped.
    pub state: Zeroizing<Vec<u8>>,
    /// A descriptor of the connection to the application.
    pub app: OwnedFd,
    /// A descriptor of the connection to the other node.
    pub wire: OwnedFd,
}

impl fmt::Debug for MovingFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, app, wire } = self;
        let mut shown = f.debug_struct("MovingFlow");
        shown.field("state", &state.len()).field("app", app).field("wire", wire).finish()
    }
}

/// What became of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// The other process carries the flow. Whatever this one still has of it must be closed without touching the legs.
    Taken,
    /// The other process has not touched the flow and never will: whoever offered it goes on. Says why.
    Refused(String),
}

/// Where flows go: the connection to the successor.
pub trait FlowTaker: fmt::Debug + Send + Sync {
    /// Offers a flow. The descriptors are duplicates: whoever offers the flow keeps its own, and touches neither leg until the
    /// answer is known. It must be waited for: an offer that is dropped halfway may have been taken.
    fn offer(&self, flow: MovingFlow) -> Pin<Box<dyn Future<Output = Offer> + Send + '_>>;
}

/// Goes on with a flow that has been restored. Dropped without being called, it lets go of the flow without touching the
/// legs.
pub type GoOn = Box<dyn FnOnce() + Send>;

/// Where flows come: the pipeline of the successor.
pub trait FlowResumer: fmt::Debug + Send + Sync {
    /// Restores a flow and touches neither leg: the predecessor may yet go on with it. The state is to be checked as if a
    /// stranger had sent it.
    ///
    /// # Errors
    /// Why the flow cannot be carried here.
    fn restore(&self, flow: MovingFlow) -> Result<GoOn, String>;
}
