//! Checks across entries: names are unique, and a place has one kind of peer.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use super::raw;
use crate::desired::{ExternalPeer, Peer, Place, Workload};

/// What is wrong with a name, or with entries that have the same name or place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("no node: write the name of this node, or set SHEATH_NODE")]
    EmptyNode,
    #[error("a workload has an empty name")]
    EmptyWorkload,
    #[error("an external peer has an empty name")]
    EmptyPeer,
    #[error("the name `{0}` has control characters, which are not allowed")]
    ControlCharacters(String),
    #[error("node `{0}` has control characters, which are not allowed")]
    ControlCharactersInNode(String),
    #[error("two {what}s are called `{name}`")]
    Twice { what: &'static str, name: String },
    #[error("external peer `{peer}`: {place} is also in peers")]
    PlaceOfAgents { peer: String, place: Place },
    #[error("external peer `{peer}`: {place} is also a place of `{other}`")]
    PlaceOfPeer { peer: String, place: Place, other: String },
}

/// # Errors
/// If a name is empty or has control characters. Names are printed in tables, on terminals.
pub fn check_names(raw: &raw::Config) -> Result<(), NameError> {
    let has_controls = |name: &str| name.contains(char::is_control);
    if raw.node.is_empty() {
        return Err(NameError::EmptyNode);
    }
    if raw.workloads.iter().flatten().any(|workload| workload.name.is_empty()) {
        return Err(NameError::EmptyWorkload);
    }
    if raw.external_peers.iter().any(|peer| peer.name.is_empty()) {
        return Err(NameError::EmptyPeer);
    }
    let workloads = raw.workloads.iter().flatten().map(|workload| &workload.name);
    let contexts = raw.tls_contexts.iter().map(|context| &context.name);
    let peers = raw.external_peers.iter().map(|peer| &peer.name);
    if let Some(name) = workloads.chain(contexts).chain(peers).find(|name| has_controls(name)) {
        return Err(NameError::ControlCharacters(name.clone()));
    }
    if has_controls(&raw.node) {
        return Err(NameError::ControlCharactersInNode(raw.node.clone()));
    }
    Ok(())
}

/// # Errors
/// If a name occurs twice.
pub fn unique<'n, N>(
    what: &'static str,
    names: impl IntoIterator<Item = &'n N>,
) -> Result<HashSet<N>, NameError>
where
    N: Clone + Eq + Hash + fmt::Display + 'n,
{
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name.clone()) {
            return Err(NameError::Twice { what, name: name.to_string() });
        }
    }
    Ok(seen)
}

/// A place has one external peer, or agents, not both.
///
/// # Errors
/// If an external peer is at a place that another entry also names.
pub fn check_places(peers: &[Arc<Peer>], external: &[Arc<ExternalPeer>]) -> Result<(), NameError> {
    let of_agents: HashSet<_> = peers.iter().flat_map(|peer| &peer.destinations).collect();
    let mut places: HashMap<&Place, &str> = HashMap::new();
    for peer in external {
        for place in &peer.places {
            let named = || (peer.name.clone(), place.clone());
            if let Place::At(destination) = place
                && of_agents.contains(destination)
            {
                let (peer, place) = named();
                return Err(NameError::PlaceOfAgents { peer, place });
            }
            if let Some(other) = places.insert(place, &peer.name) {
                let ((peer, place), other) = (named(), other.to_owned());
                return Err(NameError::PlaceOfPeer { peer, place, other });
            }
        }
    }
    Ok(())
}

/// # Errors
/// If two workloads have the same name.
pub fn check_workloads(workloads: &[Arc<Workload>]) -> Result<(), NameError> {
    unique("workload", workloads.iter().map(|workload| &workload.name)).map(drop)
}
