//! The directory: who is at each address of the cluster, told to the agents of all nodes.
//!
//! [`Cluster`] is what is known of the cluster, as plain values; it is a pure function of the events it was told, and says what its
//! entries change to. [`History`] numbers and encodes the changes, once for all agents. [`Feed`] is both behind a lock that is held for
//! lookups and for one batch of changes, and what each agent's stream is read from.

mod claims;
mod cluster;
mod encoded;
mod entry;
mod feed;
mod history;
mod nodes;
mod pod;
mod ranges;
mod screen;
mod service;
mod serving;
mod settling;
mod streams;
mod watching;

pub use super::watches::Objects;
pub use cluster::{Changes, Cluster, ClusterRules};
pub use encoded::{Shared as Message, answer, length};
pub use entry::{ClusterEntry, ClusterState, Counts};
pub use feed::{Ended, Feed, FeedStatus, Follower, Place};
pub use history::{History, Limits};
pub use pod::ClusterPod;
pub use service::Directories;
pub use settling::Settling;
pub use streams::NotBegun;
pub use watching::watch;

#[cfg(test)]
mod tests;
