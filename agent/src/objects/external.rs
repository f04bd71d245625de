//! Which services without an agent a pod may use, and at which places.

use std::collections::{BTreeMap, BTreeSet};

use super::model::external_peer::Users;
use super::model::{ExternalPeer, ObjectName};
use super::references::{Unresolved, resolve};
use super::set::Objects;
use super::subject::Subject;

/// What is at the places that ExternalPeers name, for a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExternalPeers {
    /// By the place, as it is displayed.
    pub places: BTreeMap<String, AtPlace>,
    /// True if there is one that nobody can read: it may be about any place.
    pub is_unread: bool,
}

/// What is at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtPlace {
    Peer(ObjectName),
    /// Nobody is believed: what the peer refers to is not there.
    Unresolved(ObjectName, Unresolved),
    /// Nobody is believed: several are said to be there.
    Ambiguous(BTreeSet<ObjectName>),
}

/// How near an ExternalPeer is to a pod. The nearest at a place counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Exported by the namespace that Sheath is installed in.
    Exported,
    /// Of the pod's own namespace.
    Own,
    /// The same, and it selects the pod.
    Selected,
}

impl ExternalPeers {
    /// Those that a pod may use.
    #[must_use]
    pub fn of(objects: &Objects, subject: &Subject<'_>) -> Self {
        let mut all = Self::default();
        let mut found: BTreeMap<String, (Rank, BTreeSet<ObjectName>)> = BTreeMap::new();
        for (name, peer) in &objects.external_peers {
            let Some(peer) = peer else {
                all.is_unread |= may_concern(name, subject);
                continue;
            };
            let Some(rank) = rank(name, peer, subject) else { continue };
            for place in &peer.places {
                let (best, names) =
                    found.entry(place.to_string()).or_insert((rank, BTreeSet::new()));
                if *best < rank {
                    (*best, *names) = (rank, BTreeSet::new());
                }
                if *best == rank {
                    names.insert(name.clone());
                }
            }
        }
        let at = |names: BTreeSet<ObjectName>| match names.first() {
            Some(name) if names.len() == 1 => Self::one(objects, subject, name),
            _ => AtPlace::Ambiguous(names),
        };
        all.places = found.into_iter().map(|(place, (_, names))| (place, at(names))).collect();
        all
    }

    fn one(objects: &Objects, subject: &Subject<'_>, name: &ObjectName) -> AtPlace {
        let peer = objects.external_peers.get(name).and_then(Option::as_ref);
        let tls = peer.map(|peer| resolve(objects, &name.namespace, &peer.tls, subject.cluster));
        match tls {
            Some(Err(unresolved)) => AtPlace::Unresolved(name.clone(), unresolved),
            _ => AtPlace::Peer(name.clone()),
        }
    }
}

/// True if an ExternalPeer of this name could be for a pod.
fn may_concern(name: &ObjectName, subject: &Subject<'_>) -> bool {
    [subject.namespace, &*subject.cluster.system_namespace].contains(&&*name.namespace)
}

/// `None` if the pod may not use it.
fn rank(name: &ObjectName, peer: &ExternalPeer, subject: &Subject<'_>) -> Option<Rank> {
    if *name.namespace == *subject.namespace {
        return match &peer.users {
            Users::Selected(selector) => selector.matches(subject.labels).then_some(Rank::Selected),
            Users::Namespace | Users::Exported(_) | Users::Everybody => Some(Rank::Own),
        };
    }
    // Elsewhere, whoever may write objects in one namespace would decide whom pods of another believe.
    if name.namespace != subject.cluster.system_namespace {
        return None;
    }
    match &peer.users {
        Users::Everybody => Some(Rank::Exported),
        Users::Exported(names) => names.contains(subject.namespace).then_some(Rank::Exported),
        Users::Namespace | Users::Selected(_) => None,
    }
}
