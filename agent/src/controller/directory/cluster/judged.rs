//! What follows for one address from all that is known.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use sheath_common::pod_uid::PodUid;

use super::Cluster;
use crate::controller::directory::claims::{Claimant, Claims, Owner};
use crate::controller::directory::entry::{ClusterEntry, ClusterState, uid_hash};
use crate::controller::directory::nodes::RangeOwner;
use crate::controller::directory::pod::ClusterPod;
use crate::desired::Destination;
use crate::kubernetes::{Decision, Protection};

impl Cluster {
    /// The entry of an address.
    pub(super) fn worked_out(&mut self, address: IpAddr) -> Option<ClusterEntry> {
        let mut claims = self.claims.remove(&address)?;
        let owner = claims.decide(|uid| self.claimant(uid, address));
        let entry = match owner {
            Owner::Nobody => None,
            Owner::Pod(uid) => self.pods.get(&uid).map(|pod| {
                let entry = self.entry(address, uid, pod);
                let others = self.others(&claims, address, pod);
                match entry.state == ClusterState::Plain && !others.is_empty() {
                    true => {
                        let nodes = others.into_iter().chain([&*pod.node]);
                        ClusterEntry { state: pending_by(nodes.collect()), ..entry }
                    }
                    false => entry,
                }
            }),
            Owner::Contested => {
                let nodes = claims.claimed().filter_map(|uid| Some(&*self.pods.get(&uid)?.node));
                Some(ClusterEntry { uid_hash: 0, state: pending_by(nodes.collect()) })
            }
        };
        if !claims.is_empty() {
            self.claims.insert(address, claims);
        }
        entry
    }

    /// What matters of a pod that claims an address; `None` if it cannot have it.
    fn claimant(&self, uid: PodUid, address: IpAddr) -> Option<Claimant<'_>> {
        let pod = self.pods.get(&uid)?;
        let claimant = Claimant { uid, node: &pod.node, is_ending: pod.is_ending };
        self.may_have(&pod.node, address).then_some(claimant)
    }

    /// Other nodes that may be the ones whose pod has the address. Nobody is plain where it is not known which pod is there: what is
    /// sent in the clear could reach one that is to be protected.
    fn others<'s>(
        &'s self,
        claims: &Claims,
        address: IpAddr,
        pod: &'s ClusterPod,
    ) -> BTreeSet<&'s str> {
        let claimed = claims.claimed().filter_map(|uid| Some(self.claimant(uid, address)?.node));
        let mut nodes: BTreeSet<_> = claimed.collect();
        if self.rules.nodes_own_ranges
            && let RangeOwner::Several(owners) = self.nodes.of(address)
        {
            nodes.extend(owners.into_iter().map(|node| &**node));
        }
        nodes.remove(&*pod.node);
        nodes
    }

    /// True if pods of a node can have an address.
    fn may_have(&self, node: &str, address: IpAddr) -> bool {
        let alone = Destination { prefix: address.into(), port: None };
        if alone.never_protected().is_some() || self.service_ranges.contain(address) {
            return false;
        }
        let in_ranges = || self.rules.ranges.iter().any(|range| range.contains(&address));
        match self.nodes.of(address) {
            RangeOwner::Nobody => self.rules.ranges.is_empty() || in_ranges(),
            _ if !self.rules.nodes_own_ranges => true,
            RangeOwner::Node(owner) => **owner == *node,
            RangeOwner::Several(owners) => owners.iter().any(|owner| ***owner == *node),
        }
    }

    fn entry(&self, address: IpAddr, uid: PodUid, pod: &ClusterPod) -> ClusterEntry {
        let uid_hash = uid_hash(uid);
        let is_observed = || self.observed.get(&pod.node).is_some_and(|all| all.contains(&uid));
        let was_plain = || {
            let plain = ClusterEntry { uid_hash, state: ClusterState::Plain };
            self.entries.get(&address) == Some(&plain)
        };
        let state = match (self.selection(pod), &pod.identity) {
            (Protection::False, _) => ClusterState::Plain,
            (_, Some(identity)) if is_observed() => ClusterState::Protected(identity.clone()),
            // It takes what is in the clear now, and will when it is protected: whoever calls it need not be refused until then.
            (Protection::Prefer, Some(_)) if was_plain() => ClusterState::Plain,
            _ => ClusterState::Pending(pod.node.clone()),
        };
        ClusterEntry { uid_hash, state }
    }

    pub(super) fn is_selected(&self, pod: &ClusterPod) -> bool {
        self.selection(pod) != Protection::False
    }

    /// A pod about which nobody can decide, for want of a label that makes sense, is protected if its node says so.
    fn selection(&self, pod: &ClusterPod) -> Protection {
        let namespace = self.namespaces.get(&pod.namespace);
        let decision = self.rules.pods.decide_by(&pod.namespace, &pod.wish, namespace);
        match decision {
            // A static pod is never protected.
            _ if pod.is_mirror => Protection::False,
            Decision::Plain | Decision::None => Protection::False,
            Decision::Protected(protection) => protection,
            Decision::Undecided(_) => Protection::Require,
        }
    }
}

/// It is one of these nodes' to say what is there.
fn pending_by(nodes: BTreeSet<&str>) -> ClusterState {
    let nodes: Vec<_> = nodes.into_iter().collect();
    ClusterState::Pending(Arc::from(nodes.join(" or ")))
}
