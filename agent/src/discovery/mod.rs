//! Finding out what is wanted of the node, and where names lead, from elsewhere than the configuration file.
//!
//! A [`Discovery`] is the twin of a [source](crate::identity::Source) of identities: it tells all that it knows, again
//! whenever that changes. The control plane puts together what all of them and the configuration want.

mod dns;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rustls::crypto::SecureRandom;
use tokio::sync::{mpsc, watch};

use crate::desired::Desired;
use crate::follow::{Backoff, Comparable, Following, Problem, Unfollowed};

pub use dns::{ADDRESSES_OF_A_NAME, Dns};

/// Something that finds out a part of what is wanted. What implements it is no more than how it is set up, and so can be
/// compared: one that a reload does not change goes on undisturbed.
pub trait Discovery: Comparable + fmt::Debug + Send + Sync {
    /// For logs, as `dns`. There is one of a kind.
    fn kind(&self) -> &'static str;

    /// Tells what there is, until nobody listens any more: at first as soon as it can, since a start waits for that.
    /// Failures are told and tried again, with pauses that grow and differ.
    fn follow(self: Arc<Self>, updates: Updates) -> Following;
}

impl PartialEq for dyn Discovery {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other)
    }
}

/// What is wrong with what is looked for, by what that is, as a DNS name.
pub type Problems = BTreeMap<String, Problem>;

/// All that a discovery knows at a time.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub desired: Desired,
    pub problems: Problems,
}

/// What a discovery has to say.
#[derive(Clone, Debug)]
pub enum Update {
    /// All of it, new. Replaces what was there.
    Snapshot(Snapshot),
    /// What was there stays, but something else is wrong with it than before.
    Problems(Problems),
}

/// What a discovery has said: of which kind it is, and in which following of it.
pub type Message = (&'static str, u64, Update);

/// Where updates go, and what a discovery may want to know.
#[derive(Clone, Debug)]
pub struct Updates {
    sender: mpsc::Sender<Message>,
    kind: &'static str,
    /// Tells this following from earlier ones of the same kind.
    generation: u64,
    wanted: watch::Receiver<Arc<Desired>>,
    before: Desired,
    random: &'static dyn SecureRandom,
}

impl Updates {
    /// `before` is what a discovery of the same kind has said last, which was set up otherwise.
    #[must_use]
    pub fn new(
        sender: mpsc::Sender<Message>,
        kind: &'static str,
        generation: u64,
        wanted: watch::Receiver<Arc<Desired>>,
        before: Desired,
        random: &'static dyn SecureRandom,
    ) -> Self {
        Self { sender, kind, generation, wanted, before, random }
    }

    /// What all want together, now and later: for those that look for what others only name.
    #[must_use]
    pub fn wanted(&self) -> watch::Receiver<Arc<Desired>> {
        self.wanted.clone()
    }

    /// What was there before this was followed, and stays until it says something. Told once.
    #[must_use]
    pub fn take_before(&mut self) -> Desired {
        std::mem::take(&mut self.before)
    }

    /// Pauses between attempts.
    #[must_use]
    pub fn backoff(&self) -> Backoff {
        Backoff::new(self.random)
    }

    /// # Errors
    /// If nobody listens any more: time to stop.
    pub async fn send(&self, update: Update) -> Result<(), Unfollowed> {
        self.sender.send((self.kind, self.generation, update)).await.map_err(|_| Unfollowed)
    }
}
