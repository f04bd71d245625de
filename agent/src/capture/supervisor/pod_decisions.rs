//! What was decided about pods, what the kernel knows of that, and what follows for a pod's cgroup. Without any I/O.

use std::collections::{BTreeSet, HashMap, HashSet};

use sheath_common::pod_uid::PodUid;
use sheath_common::workload::{Workload, WorkloadId};

use crate::desired::Pods;

/// Decisions about pods.
#[derive(Debug, Default)]
pub struct PodDecisions {
    /// Pods that are to be left alone; `None` if nothing is known about pods.
    plain: Option<BTreeSet<PodUid>>,
    /// Pods that are workloads, and what the kernel is to know of them.
    selected: HashMap<PodUid, Workload>,
    /// What the kernel knows.
    told: HashMap<PodUid, Workload>,
}

/// What is to become of a pod's cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is a workload's.
    Selected,
    /// It is left alone.
    Plain,
    Held,
    /// It stays what it is.
    Unchanged,
}

/// What is to become of a decision that nobody wants any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remnant {
    /// The pod is gone.
    Forget,
    /// It was a workload, and is still there.
    Hold,
}

impl PodDecisions {
    /// With what an earlier agent has told the kernel.
    pub fn restore(told: HashMap<PodUid, Workload>) -> Self {
        Self { told, ..Self::default() }
    }

    /// Changes what is wanted.
    pub fn decide(&mut self, pods: Option<Pods>, selected: HashMap<PodUid, Workload>) {
        self.plain = pods.map(|pods| pods.plain);
        self.selected = selected;
    }

    /// What the kernel does not know yet.
    pub fn untold(&self) -> Vec<(PodUid, Workload)> {
        let plain = self.plain.iter().flatten().filter(|uid| !self.selected.contains_key(*uid));
        let plain = plain.map(|uid| (*uid, Workload::NOBODY));
        let wanted = self.selected.iter().map(|(uid, workload)| (*uid, *workload)).chain(plain);
        wanted.filter(|(uid, decision)| self.told.get(uid) != Some(decision)).collect()
    }

    /// Notes what the kernel knows now.
    pub fn note_told(&mut self, pod: PodUid, decision: Workload) {
        self.told.insert(pod, decision);
    }

    /// Notes that the kernel knows nothing of a pod any more.
    pub fn note_forgotten(&mut self, pod: &PodUid) {
        self.told.remove(pod);
    }

    /// What is to become of a pod's cgroup. `is_hash`: its uid is written as a static pod's.
    pub fn fate(&self, pod: &PodUid, is_hash: bool, holds_unknown: bool) -> Fate {
        if self.selected.contains_key(pod) {
            return Fate::Selected;
        }
        let Some(plain) = &self.plain else {
            return Fate::Unchanged;
        };
        match self.told.get(pod) {
            _ if plain.contains(pod) => Fate::Plain,
            Some(decision) if decision.is_nobody() => Fate::Plain,
            Some(_) => Fate::Held,
            None if holds_unknown && !is_hash => Fate::Held,
            None => Fate::Plain,
        }
    }

    /// The decisions that nobody wants any more and that must not stay as they are. `there` are the pods whose cgroups there are.
    pub fn remnants(&self, there: &HashSet<PodUid>) -> Vec<(PodUid, Remnant)> {
        let Some(plain) = &self.plain else {
            return Vec::new();
        };
        let is_wanted = |pod: &PodUid| plain.contains(pod) || self.selected.contains_key(pod);
        let left = self.told.iter().filter(|(pod, _)| !is_wanted(pod));
        left.filter_map(|(pod, told)| match there.contains(pod) {
            false => Some((*pod, Remnant::Forget)),
            true if is_workload(told) => Some((*pod, Remnant::Hold)),
            true => None,
        })
        .collect()
    }

    /// What is known about pods that are no workloads.
    pub fn known(&self) -> Option<Pods> {
        self.plain.clone().map(|plain| Pods { plain })
    }

    /// True if the kernel knows pods by the numbers of workloads that are not among these, and nothing is known about pods that
    /// would say what they are now.
    pub fn may_have_others(&self, workloads: &HashSet<WorkloadId>) -> bool {
        let is_other = |told: &Workload| is_workload(told) && !workloads.contains(&told.id);
        self.plain.is_none() && self.told.values().any(is_other)
    }

    /// How many pods the kernel knows to be workloads or left alone.
    pub fn count(&self) -> usize {
        self.told.values().filter(|told| !told.is_held()).count()
    }
}

fn is_workload(decision: &Workload) -> bool {
    !decision.is_nobody() && !decision.is_held()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sheath_common::workload::{InboundMode, OutboundMode};

    fn uid(number: u8) -> PodUid {
        PodUid::from_bytes([number; 16])
    }

    fn workload(id: WorkloadId) -> Workload {
        Workload::new(id, OutboundMode::Require, InboundMode::Strict, true)
    }

    fn plain(uids: &[u8]) -> Option<Pods> {
        Some(Pods { plain: uids.iter().copied().map(uid).collect() })
    }

    /// Decides, and tells the kernel all of it.
    fn decide(decisions: &mut PodDecisions, pods: Option<Pods>, selected: &[(u8, WorkloadId)]) {
        let selected = selected.iter().map(|(pod, id)| (uid(*pod), workload(*id)));
        decisions.decide(pods, selected.collect());
        for (pod, decision) in decisions.untold() {
            decisions.note_told(pod, decision);
        }
        assert_eq!(decisions.untold(), []);
    }

    #[test]
    fn what_is_wanted_is_told_once_and_protection_comes_before_none() {
        let mut decisions = PodDecisions::default();
        decisions.decide(plain(&[1, 2]), HashMap::from([(uid(2), workload(7))]));
        let mut untold = decisions.untold();
        untold.sort_unstable_by_key(|(pod, _)| *pod);
        assert_eq!(untold, [(uid(1), Workload::NOBODY), (uid(2), workload(7))]);
        decide(&mut decisions, plain(&[1, 2]), &[(2, 7)]);
        assert_eq!(decisions.count(), 2);
        decisions.decide(plain(&[1, 2]), HashMap::new());
        assert_eq!(decisions.untold(), [(uid(2), Workload::NOBODY)]);
    }

    #[test]
    fn whoever_is_not_decided_about_is_held_but_for_static_pods() {
        let mut decisions = PodDecisions::default();
        decide(&mut decisions, plain(&[1]), &[(2, 7)]);
        let fate = |pod, is_hash, holds| decisions.fate(&uid(pod), is_hash, holds);
        assert_eq!(fate(1, false, true), Fate::Plain);
        assert_eq!(fate(2, false, true), Fate::Selected);
        assert_eq!(fate(3, false, true), Fate::Held);
        assert_eq!(fate(3, true, true), Fate::Plain);
        assert_eq!(fate(3, false, false), Fate::Plain);
    }

    #[test]
    fn as_long_as_nothing_is_known_nothing_changes() {
        let told = HashMap::from([(uid(1), Workload::NOBODY), (uid(2), workload(7))]);
        let mut decisions = PodDecisions::restore(told);
        decide(&mut decisions, None, &[(4, 9)]);
        for pod in [1, 2, 3] {
            assert_eq!(decisions.fate(&uid(pod), false, true), Fate::Unchanged);
        }
        assert_eq!(decisions.fate(&uid(4), false, true), Fate::Selected);
        assert_eq!(decisions.remnants(&HashSet::new()), []);
        assert!(decisions.known().is_none());
        assert!(decisions.may_have_others(&HashSet::from([9])));
        assert!(!decisions.may_have_others(&HashSet::from([7, 9])));
        decide(&mut decisions, plain(&[]), &[(4, 9)]);
        assert!(!decisions.may_have_others(&HashSet::from([9])));
    }

    #[test]
    fn a_pod_that_is_wanted_no_more_is_never_more_open_than_before() {
        let mut decisions = PodDecisions::default();
        decide(&mut decisions, plain(&[1, 3]), &[(2, 7), (4, 8)]);
        decide(&mut decisions, plain(&[]), &[]);
        let there = HashSet::from([uid(1), uid(2)]);
        let mut remnants = decisions.remnants(&there);
        remnants.sort_unstable();
        let expected =
            [(uid(2), Remnant::Hold), (uid(3), Remnant::Forget), (uid(4), Remnant::Forget)];
        assert_eq!(remnants, expected);
        assert_eq!(decisions.fate(&uid(1), false, true), Fate::Plain);
        assert_eq!(
            decisions.fate(&uid(2), false, false),
            Fate::Held,
            "even where unknown ones are not"
        );
        decisions.note_told(uid(2), Workload::HELD);
        assert_eq!(decisions.fate(&uid(2), false, false), Fate::Held);
        decisions.note_forgotten(&uid(3));
        decisions.note_forgotten(&uid(4));
        assert_eq!(decisions.remnants(&there), []);
        // Somebody wants it again.
        decide(&mut decisions, plain(&[2]), &[]);
        assert_eq!(decisions.fate(&uid(2), false, true), Fate::Plain);
    }
}
