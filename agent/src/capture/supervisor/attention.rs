//! What has to be looked at after a change: on a node with many pods a look at everything takes its time.

use std::collections::BTreeSet;

use crate::desired::{CgroupSelector, PodUid, Pods};

/// What has to be looked at after a change.
#[derive(Debug, PartialEq, Eq)]
pub enum Attention {
    /// These pods, and nothing else.
    Pods(BTreeSet<PodUid>),
    Everything,
}

impl Attention {
    /// Because something else is known than before of pods that are no workloads.
    pub fn to_others(before: Option<&Pods>, now: Option<&Pods>) -> Self {
        match (before, now) {
            (Some(before), Some(now)) => {
                Self::Pods(before.plain.symmetric_difference(&now.plain).copied().collect())
            }
            (None, None) => Self::Pods(BTreeSet::new()),
            _ => Self::Everything,
        }
    }

    /// Adds what this selects.
    pub fn add(&mut self, selector: &CgroupSelector) {
        match (&mut *self, selector) {
            (Self::Pods(pods), CgroupSelector::Pod(uid)) => drop(pods.insert(*uid)),
            _ => *self = Self::Everything,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_anything_but_pods_has_changed_everything_is_looked_at() {
        let uid = |last: char| -> PodUid {
            format!("00000000-0000-0000-0000-00000000000{last}").parse().unwrap()
        };
        let mut attention = Attention::Pods(BTreeSet::from([uid('1')]));
        attention.add(&CgroupSelector::Pod(uid('2')));
        assert_eq!(attention, Attention::Pods(BTreeSet::from([uid('1'), uid('2')])));
        attention.add(&CgroupSelector::Id(7));
        attention.add(&CgroupSelector::Pod(uid('3')));
        assert_eq!(attention, Attention::Everything);
    }

    #[test]
    fn pods_of_which_something_else_is_known_are_looked_at() {
        let uid = PodUid::from_bytes([1; 16]);
        let none = Pods::default();
        let one = Pods { plain: BTreeSet::from([uid]) };
        let of = |before, now| Attention::to_others(before, now);
        assert_eq!(of(Some(&one), Some(&one)), Attention::Pods(BTreeSet::new()));
        for (before, now) in [(&one, &none), (&none, &one)] {
            assert_eq!(of(Some(before), Some(now)), Attention::Pods(BTreeSet::from([uid])));
        }
        assert_eq!(of(None, None), Attention::Pods(BTreeSet::new()));
        assert_eq!(of(None, Some(&none)), Attention::Everything);
    }
}
