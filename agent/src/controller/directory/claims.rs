//! Whose an address is. Pods say which they have; or rather, their nodes say it of them, and a node may be in bad hands.
//!
//! - An address in another node's range is nobody's of this node.
//! - Between nodes whoever has it keeps it, until the pod ends, is deleted or has another address.
//! - Within a node it is for the node to say: a living pod takes it over from one that is ending, and a later one from an earlier.
//! - Of pods of several nodes that were found with the same address at the same time, nobody has it.

use sheath_common::pod_uid::PodUid;

/// Who says that it has an address, in the order in which they said it, and who is believed.
#[derive(Debug, Default)]
pub struct Claims {
    claimed: Vec<PodUid>,
    owner: Option<PodUid>,
}

/// What matters of a pod that claims an address.
#[derive(Clone, Copy, Debug)]
pub struct Claimant<'c> {
    pub uid: PodUid,
    pub node: &'c str,
    pub is_ending: bool,
}

/// Whose the address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Nobody,
    Pod(PodUid),
    /// Not known.
    Contested,
}

impl Claims {
    /// A pod has got the address.
    pub fn add(&mut self, uid: PodUid) {
        self.remove(uid);
        self.claimed.push(uid);
    }

    /// A pod does not have it any more.
    pub fn remove(&mut self, uid: PodUid) {
        self.claimed.retain(|known| *known != uid);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.claimed.is_empty()
    }

    pub fn claimed(&self) -> impl Iterator<Item = PodUid> {
        self.claimed.iter().copied()
    }

    /// Decides whose it is. `about` says what is known of a pod: `None` if its claim does not count.
    pub fn decide<'c>(&mut self, about: impl Fn(PodUid) -> Option<Claimant<'c>>) -> Owner {
        let valid: Vec<_> = self.claimed.iter().filter_map(|uid| about(*uid)).collect();
        let owner = valid.iter().find(|claimant| Some(claimant.uid) == self.owner);
        let node = match owner.or(valid.first()) {
            None => {
                self.owner = None;
                return Owner::Nobody;
            }
            Some(first) => first.node,
        };
        if owner.is_none() && valid.iter().any(|claimant| claimant.node != node) {
            self.owner = None;
            return Owner::Contested;
        }
        let of_node = || valid.iter().rev().filter(|claimant| claimant.node == node);
        let last = of_node().find(|claimant| !claimant.is_ending).or_else(|| of_node().next());
        self.owner = last.map(|claimant| claimant.uid);
        self.owner.map_or(Owner::Nobody, Owner::Pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(n: u8) -> PodUid {
        PodUid::from_bytes([n; 16])
    }

    #[test]
    fn between_nodes_the_first_keeps_it_and_within_one_the_last_has_it() {
        let mut claims = Claims::default();
        // 1 and 2 are of the node a, 3 of b.
        let about = |ending: u8| {
            move |of: PodUid| {
                let node = if of == uid(3) { "b" } else { "a" };
                Some(Claimant { uid: of, node, is_ending: of == uid(ending) })
            }
        };
        assert_eq!(claims.decide(about(0)), Owner::Nobody);
        claims.add(uid(1));
        assert_eq!(claims.decide(about(0)), Owner::Pod(uid(1)));
        claims.add(uid(3));
        assert_eq!(claims.decide(about(0)), Owner::Pod(uid(1)));
        assert_eq!(claims.decide(about(1)), Owner::Pod(uid(1)), "also while it ends");
        claims.add(uid(2));
        assert_eq!(claims.decide(about(0)), Owner::Pod(uid(2)));
        assert_eq!(claims.decide(about(2)), Owner::Pod(uid(1)));
        claims.remove(uid(1));
        claims.remove(uid(2));
        assert_eq!(claims.decide(about(0)), Owner::Pod(uid(3)));
    }

    #[test]
    fn found_at_once_on_two_nodes_it_is_nobodys() {
        let mut claims = Claims::default();
        let node = |of: PodUid| if of == uid(1) { "a" } else { "b" };
        let about = |of| Some(Claimant { uid: of, node: node(of), is_ending: false });
        claims.add(uid(1));
        claims.add(uid(2));
        assert_eq!(claims.decide(about), Owner::Contested);
        assert_eq!(claims.decide(about), Owner::Contested);
        // Until only one of them counts.
        let of_a = |of| about(of).filter(|claimant| claimant.node == "a");
        assert_eq!(claims.decide(of_a), Owner::Pod(uid(1)));
        assert_eq!(claims.decide(about), Owner::Pod(uid(1)));
    }
}
