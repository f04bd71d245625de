//! Merging the parts of several producers into one desired state.
//!
//! Values are sorted by [`Origin`]. If two define the same thing, the first one counts and the other is reported as a
//! [`Conflict`]. So the result depends on the parts alone, never on the order in which they arrived.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::{
    CgroupSelector, Desired, Destination, Endpoints, ExternalPeer, Origin, Peer, Place, TlsContext,
    TrustDomainEntry, Workload,
};

/// Two origins define the same thing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{what} is in {kept} and in {ignored}; the first counts")]
pub struct Conflict {
    /// The thing that both define.
    pub what: String,
    pub kept: Origin,
    pub ignored: Origin,
}

/// Something with a unique name.
trait Named {
    /// For messages.
    const WHAT: &'static str;

    fn origin(&self) -> &Origin;
    fn name(&self) -> String;
}

impl Desired {
    /// Merges parts. Their order does not matter.
    #[must_use]
    pub fn merged<'d>(parts: impl IntoIterator<Item = &'d Self>) -> (Self, Vec<Conflict>) {
        let mut all = Self::default();
        for part in parts {
            all.workloads.extend_from_slice(&part.workloads);
            all.peers.extend_from_slice(&part.peers);
            all.external_peers.extend_from_slice(&part.external_peers);
            all.trust_domains.extend_from_slice(&part.trust_domains);
            all.tls_contexts.extend_from_slice(&part.tls_contexts);
            all.endpoints.extend_from_slice(&part.endpoints);
            if let Some(pods) = &part.pods {
                all.pods = Some(all.pods.take().unwrap_or_default().and(pods));
            }
        }
        let mut conflicts = Vec::new();
        one_of_a_name(&mut all.workloads, &mut conflicts);
        one_of_a_name(&mut all.external_peers, &mut conflicts);
        one_of_a_name(&mut all.trust_domains, &mut conflicts);
        one_of_a_name(&mut all.tls_contexts, &mut conflicts);
        one_of_a_name(&mut all.endpoints, &mut conflicts);
        all.peers.sort_by(|one, other| one.origin.cmp(&other.origin));
        one_kind_of_peer(&mut all.peers, &mut all.external_peers, &mut conflicts);
        (all, conflicts)
    }
}

/// Sorts entries, and keeps the first of each name.
fn one_of_a_name<E: Named>(entries: &mut Vec<Arc<E>>, conflicts: &mut Vec<Conflict>) {
    entries.sort_by(|one, other| one.origin().cmp(other.origin()));
    let mut seen: HashMap<String, Origin> = HashMap::new();
    entries.retain(|entry| match seen.entry(entry.name()) {
        Entry::Vacant(place) => {
            place.insert(entry.origin().clone());
            true
        }
        Entry::Occupied(place) => {
            conflicts.push(Conflict {
                what: format!("{} `{}`", E::WHAT, place.key()),
                kept: place.get().clone(),
                ignored: entry.origin().clone(),
            });
            false
        }
    });
}

/// Leaves either one external peer or agents at each place: those that come first.
fn one_kind_of_peer(
    peers: &mut Vec<Arc<Peer>>,
    external_peers: &mut [Arc<ExternalPeer>],
    conflicts: &mut Vec<Conflict>,
) {
    let mut owners: HashMap<Place, Owner> = HashMap::new();
    for peer in &*external_peers {
        for place in &peer.places {
            let owner = || Owner { origin: peer.origin.clone(), is_external: true };
            owners.entry(place.clone()).or_insert_with(owner);
        }
    }
    for peer in &*peers {
        for destination in &peer.destinations {
            // Agents share a place: each of them may answer there.
            if let Some(owner) = owners.get_mut(&Place::At(*destination))
                && peer.origin < owner.origin
            {
                *owner = Owner { origin: peer.origin.clone(), is_external: false };
            }
        }
    }
    for peer in external_peers {
        let lost = |place: &Place| {
            let owner = owners.get(place).filter(|owner| owner.origin != peer.origin)?;
            Some(Conflict {
                what: place.to_string(),
                kept: owner.origin.clone(),
                ignored: peer.origin.clone(),
            })
        };
        let found: Vec<_> = peer.places.iter().filter_map(lost).collect();
        if !found.is_empty() {
            let places = peer.places.iter().filter(|place| lost(place).is_none());
            let places = places.cloned().collect();
            *peer = Arc::new(ExternalPeer { places, ..ExternalPeer::clone(peer) });
            conflicts.extend(found);
        }
    }
    for peer in &mut *peers {
        let lost = |destination: &Destination| {
            let owner = owners.get(&Place::At(*destination)).filter(|owner| owner.is_external)?;
            Some(Conflict {
                what: destination.to_string(),
                kept: owner.origin.clone(),
                ignored: peer.origin.clone(),
            })
        };
        let found: Vec<_> = peer.destinations.iter().filter_map(lost).collect();
        if !found.is_empty() {
            let destinations = peer.destinations.iter().filter(|at| lost(at).is_none());
            let destinations = destinations.copied().collect();
            *peer = Arc::new(Peer { destinations, ..Peer::clone(peer) });
            conflicts.extend(found);
        }
    }
    peers.retain(|peer| !peer.destinations.is_empty());
}

/// Who has a place.
struct Owner {
    origin: Origin,
    is_external: bool,
}

impl Named for Workload {
    const WHAT: &'static str = "the workload";

    fn origin(&self) -> &Origin {
        &self.origin
    }

    /// A pod that takes the place of another may have its name while the other still ends.
    fn name(&self) -> String {
        match self.cgroup {
            CgroupSelector::Pod(uid) => format!("{} of the pod {uid}", self.name),
            CgroupSelector::Pattern(_) | CgroupSelector::Id(_) => self.name.clone(),
        }
    }
}

impl Named for ExternalPeer {
    const WHAT: &'static str = "the external peer";

    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Named for TrustDomainEntry {
    const WHAT: &'static str = "the trust domain";

    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn name(&self) -> String {
        self.name.to_string()
    }
}

impl Named for TlsContext {
    const WHAT: &'static str = "the TLS context";

    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Named for Endpoints {
    const WHAT: &'static str = "the addresses of";

    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn name(&self) -> String {
        self.name.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests;
