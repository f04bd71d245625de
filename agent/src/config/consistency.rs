//! Checks across entries: names are unique, and a place has one kind of peer.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use super::raw;
use crate::desired::{ExternalPeer, Peer, Place, Workload};

/// # Errors
/// If a name has control characters. Names are printed in tables, on terminals.
pub fn check_names(raw: &raw::Config) -> Result<(), String> {
    let has_controls = |name: &str| name.contains(char::is_control);
    if raw.node.is_empty() {
        return Err("node is empty".to_owned());
    }
    let workloads = raw.workloads.iter().map(|workload| &workload.name);
    let contexts = raw.tls_contexts.iter().map(|context| &context.name);
    let peers = raw.external_peers.iter().map(|peer| &peer.name);
    if let Some(name) = workloads.chain(contexts).chain(peers).find(|name| has_controls(name)) {
        return Err(format!("the name `{name}` has characters that are not shown"));
    }
    if has_controls(&raw.node) {
        return Err(format!("node `{}` has characters that are not shown", raw.node));
    }
    Ok(())
}

/// # Errors
/// If a name occurs twice.
pub fn unique<'n, N>(
    what: &str,
    names: impl IntoIterator<Item = &'n N>,
) -> Result<HashSet<N>, String>
where
    N: Clone + Eq + Hash + fmt::Display + 'n,
{
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name.clone()) {
            return Err(format!("two {what}s are called `{name}`"));
        }
    }
    Ok(seen)
}

/// A place has one external peer, or agents, not both.
///
/// # Errors
/// If an external peer is at a place that another entry also names.
pub fn check_places(peers: &[Arc<Peer>], external: &[Arc<ExternalPeer>]) -> Result<(), String> {
    let of_agents: HashSet<_> = peers.iter().flat_map(|peer| &peer.destinations).collect();
    let mut places: HashMap<&Place, &str> = HashMap::new();
    for peer in external {
        for place in &peer.places {
            let twice = |other: &str| {
                format!("external peer `{}`: {place} is also said to be {other}", peer.name)
            };
            if let Place::At(destination) = place
                && of_agents.contains(destination)
            {
                return Err(twice("in peers"));
            }
            if let Some(other) = places.insert(place, &peer.name) {
                return Err(twice(&format!("`{other}`")));
            }
        }
    }
    Ok(())
}

/// # Errors
/// If two workloads have the same name.
pub fn check_workloads(workloads: &[Arc<Workload>]) -> Result<(), String> {
    unique("workload", workloads.iter().map(|workload| &workload.name)).map(drop)
}
