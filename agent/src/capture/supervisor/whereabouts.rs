//! The namespaces that a workload is in, or has lived in and may come back to, and where it listens. Namespaces go by their inode
//! numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Namespaces that one workload may be in: each costs descriptors.
pub const MAX_NAMESPACES: usize = 64;

/// Namespaces in which a workload's processes are seen; true for those that they have stayed in.
pub type Seen = BTreeMap<u64, bool>;
/// Addresses at which a workload listens on a declared port, by namespace and port.
pub type ListensAt = BTreeMap<(u64, u16), BTreeSet<IpAddr>>;

/// Where one workload is.
#[derive(Debug, Default)]
pub struct Whereabouts {
    /// When last looked at.
    present_in: BTreeSet<u64>,
    /// Namespaces of its own that it has been at home in, and may come back to.
    homes: BTreeSet<u64>,
    /// It was last seen in a namespace of its own, and not in the agent's.
    lives_elsewhere: bool,
    /// Where it listens, or listened last.
    listens_at: ListensAt,
}

impl Whereabouts {
    /// Notes where it listens now. Where it does not listen any more is kept for as long as it is in the namespace: it may
    /// listen there again.
    pub fn note_listeners(&mut self, now: ListensAt, seen: &Seen) {
        self.listens_at.retain(|(inode, _), _| seen.contains_key(inode));
        self.listens_at.extend(now);
    }

    /// Addresses of a declared port at which it listens, or listened last.
    pub fn listens_at(&self, inode: u64, port: u16) -> Option<&BTreeSet<IpAddr>> {
        self.listens_at.get(&(inode, port))
    }

    /// True if it does not only pass through a namespace: processes have stayed there, or it has listened there.
    pub fn is_at_home_in(&self, inode: u64, seen: &Seen) -> bool {
        seen.get(&inode).is_some_and(|has_stayed| *has_stayed)
            || self.listens_at.keys().any(|(at, _)| *at == inode)
    }

    /// Notes where it is now, and returns the namespaces that it has left. `own` is the agent's.
    pub fn update(&mut self, seen: &Seen, own: u64) -> Vec<u64> {
        if self.is_at_home_in(own, seen) {
            self.lives_elsewhere = false;
        } else if seen.keys().any(|inode| *inode != own && self.is_at_home_in(*inode, seen)) {
            self.lives_elsewhere = true;
        }
        let present: BTreeSet<u64> = seen.keys().copied().collect();
        let left = self.present_in.difference(&present).copied().collect();
        self.present_in = present;
        left
    }

    /// True if its ports in the agent's namespace are other people's.
    pub fn lives_elsewhere(&self) -> bool {
        self.lives_elsewhere
    }

    /// Notes the namespaces of its own that it is at home in now, and keeps those of the earlier ones that `may_come_back`
    /// says it may come back to.
    pub fn update_homes(
        &mut self,
        seen: &Seen,
        own: u64,
        mut may_come_back: impl FnMut(u64) -> bool,
    ) {
        for inode in seen.keys() {
            let is_home = *inode != own && self.is_at_home_in(*inode, seen);
            if is_home && self.homes.len() < MAX_NAMESPACES {
                self.homes.insert(*inode);
            }
        }
        self.homes.retain(|inode| may_come_back(*inode));
    }

    /// It will come back to none that it leaves.
    pub fn forget_homes(&mut self) {
        self.homes.clear();
    }

    /// Namespaces of its own that it is at home in, or may come back to.
    pub fn homes(&self) -> &BTreeSet<u64> {
        &self.homes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u64 = 1;
    const ELSEWHERE: u64 = 2;

    fn seen<const N: usize>(namespaces: [(u64, bool); N]) -> Seen {
        Seen::from(namespaces)
    }

    fn listening(inode: u64, address: &str) -> ListensAt {
        ListensAt::from([((inode, 80), BTreeSet::from([address.parse().unwrap()]))])
    }

    #[test]
    fn who_has_listened_where_the_agent_is_lives_there_however_shortly_and_wherever_it_passed() {
        let mut whereabouts = Whereabouts::default();
        // It is started from another namespace.
        let passing = seen([(ELSEWHERE, false)]);
        whereabouts.update(&passing, OWN);
        assert!(!whereabouts.lives_elsewhere());
        let both = seen([(ELSEWHERE, false), (OWN, false)]);
        whereabouts.note_listeners(listening(OWN, "0.0.0.0"), &both);
        whereabouts.update(&both, OWN);
        let gone = Seen::new();
        whereabouts.note_listeners(ListensAt::new(), &gone);
        assert_eq!(whereabouts.update(&gone, OWN), [OWN, ELSEWHERE]);
        assert!(!whereabouts.lives_elsewhere(), "its port is open to everybody");

        whereabouts.update(&seen([(ELSEWHERE, true)]), OWN);
        assert!(whereabouts.lives_elsewhere());
        whereabouts.update(&seen([(ELSEWHERE, true), (OWN, true)]), OWN);
        assert!(!whereabouts.lives_elsewhere());
    }

    #[test]
    fn where_it_listened_last_is_remembered_while_it_is_there() {
        let mut whereabouts = Whereabouts::default();
        let there = seen([(3, false)]);
        whereabouts.note_listeners(listening(3, "10.0.0.1"), &there);
        whereabouts.note_listeners(ListensAt::new(), &there);
        let known = whereabouts.listens_at(3, 80).unwrap();
        assert_eq!(*known, BTreeSet::from(["10.0.0.1".parse().unwrap()]));
        whereabouts.note_listeners(ListensAt::new(), &Seen::new());
        assert_eq!(whereabouts.listens_at(3, 80), None);
    }

    #[test]
    fn homes_are_namespaces_of_its_own_and_not_more_than_there_may_be() {
        let mut whereabouts = Whereabouts::default();
        let passing_and_staying = seen([(OWN, true), (ELSEWHERE, true), (3, false)]);
        whereabouts.update_homes(&passing_and_staying, OWN, |_| true);
        assert_eq!(*whereabouts.homes(), BTreeSet::from([ELSEWHERE]));
        whereabouts.update_homes(&Seen::new(), OWN, |_| true);
        assert_eq!(*whereabouts.homes(), BTreeSet::from([ELSEWHERE]), "it may come back");
        whereabouts.update_homes(&Seen::new(), OWN, |inode| inode != ELSEWHERE);
        assert!(whereabouts.homes().is_empty());
        let many = (2..200).map(|inode| (inode, true)).collect();
        whereabouts.update_homes(&many, OWN, |_| true);
        assert_eq!(whereabouts.homes().len(), MAX_NAMESPACES);
    }
}
