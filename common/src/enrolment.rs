//! Which workload a process or a socket belongs to, by the cgroups above it, also where not every workload's cgroup could be
//! recorded.
//!
//! A cgroup's id grows with the time at which it was made and is never used again (`__kernfs_new_node`), and a cgroup is
//! younger than those above it. So "made since then" is a comparison of ids.

use crate::workload::{Below, Workload};

/// Value of the `OVERFLOW` array: cgroups that match a selector and that there was no room to record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overflow {
    /// In the kernel's entry, how many there have been; in the agent's, how many of those it has recorded since.
    pub count: u64,
    /// The first of them; zero in the agent's entry if it knows of none.
    pub since: u64,
    /// One of them was a [`Workload::BASE`], so what is below cannot be told any more.
    pub everywhere: u64,
}

/// The kernel's entry of `OVERFLOW`: written only while a cgroup is being made, of which the kernel makes one at a time.
pub const OVERFLOW_SEEN: u32 = 0;
/// The agent's entry.
pub const OVERFLOW_SETTLED: u32 = 1;

impl Overflow {
    /// Notes, in the kernel's entry, a cgroup that could not be recorded.
    #[inline(always)]
    pub fn note(&mut self, settled: &Self, cgroup: u64, is_base: bool) {
        if self.count == settled.count {
            self.since = cgroup;
            self.everywhere = 0;
        }
        if is_base {
            self.everywhere = 1;
        }
        self.count += 1;
    }

    #[inline(always)]
    fn reaches(&self, walk: &Walk) -> bool {
        let is_below =
            walk.below.may_be_workloads() || (self.everywhere != 0 && walk.found.is_nobody());
        walk.last >= self.since && is_below
    }
}

/// The walk from the root cgroup down to a task's or a socket's own.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    found: Workload,
    /// What may lie further in than what was found.
    below: Below,
    is_agents: bool,
    last: u64,
}

impl Default for Walk {
    #[inline(always)]
    fn default() -> Self {
        Self { found: Workload::NOBODY, below: Below::default(), is_agents: false, last: 0 }
    }
}

impl Walk {
    /// Goes on to a cgroup, with what `WORKLOADS` has for it.
    #[inline(always)]
    pub fn visit(&mut self, cgroup: u64, entry: Option<&Workload>) {
        match entry {
            Some(workload) if workload.is_base() => self.below = self.below.and(workload.below()),
            Some(workload) if workload.is_agent() => self.is_agents = true,
            Some(workload) => {
                self.found = *workload;
                self.below = workload.below();
            }
            None => {}
        }
        self.last = cgroup;
    }

    /// The workload of the innermost cgroup that is the root of one; [`Workload::NOBODY`] if there is none.
    #[inline(always)]
    #[must_use]
    pub fn found(&self) -> Workload {
        self.found
    }

    /// True if a workload further in may lie below what was found, or where no workload was found.
    #[inline(always)]
    #[must_use]
    pub fn may_lead_further(&self) -> bool {
        self.below.may_be_workloads() || self.found.is_nobody()
    }

    /// What is taken to be there where that [is in doubt](Self::is_in_doubt): where pods are, one that is held. The host's own
    /// connections do not depend on there being room.
    #[inline(always)]
    #[must_use]
    pub const fn doubtful(&self) -> Workload {
        if self.below.may_be_pods() { Workload::HELD } else { Workload::REFUSED }
    }

    /// True if one of the cgroups further in than what was found may be the root of a workload that could not be recorded.
    #[inline(always)]
    #[must_use]
    pub fn is_in_doubt(&self, seen: &Overflow, settled: &Overflow) -> bool {
        !self.is_agents
            && ((seen.count != settled.count && seen.reaches(self))
                || (settled.since != 0 && settled.reaches(self)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{InboundMode, OutboundMode};
    use proptest::prelude::*;

    const SETTLED: Overflow = Overflow { count: 0, since: 0, everywhere: 0 };

    fn walk(way: &[(u64, Option<Workload>)]) -> Walk {
        let mut walk = Walk::default();
        for (cgroup, entry) in way {
            walk.visit(*cgroup, entry.as_ref());
        }
        walk
    }

    fn overflow_at(cgroup: u64) -> Overflow {
        let mut seen = Overflow::default();
        seen.note(&SETTLED, cgroup, false);
        seen
    }

    #[test]
    fn the_innermost_workload_is_found() {
        let [outer, inner] =
            [7, 8].map(|id| Workload::new(id, OutboundMode::Require, InboundMode::Strict, true));
        let way =
            [(1, Some(Workload::BASE)), (4, Some(outer)), (5, None), (6, Some(inner)), (9, None)];
        assert_eq!(walk(&way).found(), inner);
        assert_eq!(walk(&way[..3]).found(), outer);
        assert_eq!(walk(&way[..1]).found(), Workload::NOBODY);
    }

    #[test]
    fn what_was_made_below_a_base_since_there_was_no_room_is_in_doubt() {
        let seen = overflow_at(50);
        let way = |last| walk(&[(1, None), (10, Some(Workload::BASE)), (last, None)]);
        assert!(way(50).is_in_doubt(&seen, &SETTLED));
        assert!(way(51).is_in_doubt(&seen, &SETTLED));
        let own = walk(&[(10, Some(Workload::BASE)), (60, Some(Workload::AGENT))]);
        assert!(!own.is_in_doubt(&seen, &SETTLED));
        // Older, or elsewhere.
        assert!(!way(49).is_in_doubt(&seen, &SETTLED));
        assert!(!walk(&[(1, None), (60, None)]).is_in_doubt(&seen, &SETTLED));
    }

    /// Or the outer workload's identity would be the inner one's for the making of many cgroups.
    #[test]
    fn a_workload_within_another_that_was_not_recorded_is_not_taken_for_the_outer() {
        let seen = overflow_at(50);
        let outer = Workload::new(7, OutboundMode::Require, InboundMode::Strict, true);
        let inner = Workload::new(8, OutboundMode::Require, InboundMode::Strict, true);
        for outer in [
            walk(&[(1, None), (10, Some(outer.above_others())), (60, None)]),
            walk(&[(1, None), (10, Some(outer)), (11, Some(Workload::BASE)), (60, None)]),
        ] {
            assert!(outer.may_lead_further() && outer.is_in_doubt(&seen, &SETTLED));
        }
        for told in [
            walk(&[(1, None), (10, Some(outer)), (60, None)]),
            walk(&[(9, Some(Workload::BASE)), (10, Some(outer)), (60, None)]),
            walk(&[(10, Some(outer.above_others())), (60, Some(inner)), (61, None)]),
        ] {
            assert!(!told.is_in_doubt(&seen, &SETTLED), "{told:?}");
        }
    }

    #[test]
    fn where_pods_are_what_is_in_doubt_is_held() {
        let seen = overflow_at(50);
        let pods = Some(Workload::ABOVE_PODS);
        let pod = walk(&[(1, None), (10, pods), (60, None)]);
        assert!(pod.is_in_doubt(&seen, &SETTLED) && pod.doubtful().is_held());
        // Patterns may select containers of pods.
        let container = walk(&[(10, pods), (55, Some(Workload::BASE)), (60, None)]);
        assert!(container.is_in_doubt(&seen, &SETTLED) && container.doubtful().is_held());
        assert!(!walk(&[(10, pods), (49, None)]).is_in_doubt(&seen, &SETTLED));
        let other = walk(&[(1, None), (10, Some(Workload::BASE)), (60, None)]);
        assert!(other.doubtful().is_refused());
        let outer = Workload::new(7, OutboundMode::Require, InboundMode::Strict, true);
        let within = walk(&[(10, pods), (51, Some(outer.above_others())), (60, None)]);
        assert!(within.is_in_doubt(&seen, &SETTLED) && within.doubtful().is_refused());
    }

    #[test]
    fn without_room_for_a_base_everything_new_is_in_doubt() {
        let mut seen = overflow_at(50);
        seen.note(&SETTLED, 55, true);
        assert!(walk(&[(1, None), (50, None)]).is_in_doubt(&seen, &SETTLED));
        assert!(!walk(&[(1, None), (49, None)]).is_in_doubt(&seen, &SETTLED));
    }

    #[test]
    fn what_the_agent_could_not_record_itself_is_in_doubt_too() {
        let settled = Overflow { count: 0, since: 20, everywhere: 0 };
        let below = |last| walk(&[(10, Some(Workload::BASE)), (last, None)]);
        assert!(below(20).is_in_doubt(&Overflow::default(), &settled));
        assert!(!below(19).is_in_doubt(&Overflow::default(), &settled));
    }

    proptest! {
        /// Cgroups are made one after the other; the agent says at any time that all it has seen so far is seen to.
        #[test]
        fn no_cgroup_that_was_not_recorded_passes_unnoticed(events in prop::collection::vec(0_u8..4, 1..40)) {
            let (mut seen, mut settled) = (Overflow::default(), SETTLED);
            let mut unrecorded = Vec::new();
            for (cgroup, event) in (100..).zip(events) {
                match event {
                    // The agent records what it finds, and tells up to where it has looked.
                    0 => { settled.count = seen.count; unrecorded.clear(); }
                    1 => { seen.note(&settled, cgroup, false); unrecorded.push(cgroup); }
                    _ => {}
                }
                for cgroup in &unrecorded {
                    let way = walk(&[(10, Some(Workload::BASE)), (*cgroup, None)]);
                    prop_assert!(way.is_in_doubt(&seen, &settled));
                }
                if unrecorded.is_empty() {
                    let way = walk(&[(10, Some(Workload::BASE)), (cgroup, None)]);
                    prop_assert!(!way.is_in_doubt(&seen, &settled));
                }
            }
        }
    }
}
