//! For which Services there is room. Whoever may write Services and endpoints writes into the memory of every node's kernel and
//! agent, so a namespace has a share of it, and what others have is out of its reach.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{AddAssign, SubAssign};
use std::sync::Arc;

use sheath_common::maps;

use crate::kubernetes::ServiceName;

/// What a Service takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Ports at all of its addresses: entries of the kernel.
    pub places: usize,
    /// Endpoints of all its ports: memory of the agent.
    pub backends: usize,
}

/// How much there may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub all: Cost,
    pub of_namespace: Cost,
    /// Addresses that are closed in place of what there is no room for.
    pub closed: usize,
}

impl Default for Limits {
    /// Kubernetes is tested with 10 000 Services, 5 000 of them in one namespace, and with 1 000 endpoints for one.
    fn default() -> Self {
        Self {
            all: Cost { places: maps::MAX_SERVICE_PORTS as usize, backends: 2_000_000 },
            of_namespace: Cost { places: 32_768, backends: 500_000 },
            closed: maps::MAX_CLOSED_SERVICES as usize,
        }
    }
}

/// What is taken, and by whom.
#[derive(Debug, Default)]
pub struct Room {
    limits: Limits,
    services: HashMap<ServiceName, Taken>,
    by_namespace: HashMap<Arc<str>, Cost>,
    all: Cost,
    /// Services for which there is none, and whether their addresses are closed.
    outside: BTreeMap<ServiceName, bool>,
}

#[derive(Clone, Copy, Debug)]
struct Taken {
    created: u64,
    addresses: usize,
    cost: Cost,
}

impl Room {
    #[cfg(test)]
    fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// A Service takes so much, and would have so many addresses closed.
    pub fn take(&mut self, name: &ServiceName, created: u64, addresses: usize, cost: Cost) {
        self.leave(name);
        self.all += cost;
        *self.by_namespace.entry(name.namespace.clone()).or_default() += cost;
        self.services.insert(name.clone(), Taken { created, addresses, cost });
    }

    /// A Service takes nothing any more.
    pub fn leave(&mut self, name: &ServiceName) {
        let Some(Taken { cost, .. }) = self.services.remove(name) else {
            return;
        };
        self.all -= cost;
        if let Some(of) = self.by_namespace.get_mut(&name.namespace) {
            *of -= cost;
            if *of == Cost::default() {
                self.by_namespace.remove(&name.namespace);
            }
        }
    }

    #[must_use]
    pub fn has(&self, name: &ServiceName) -> bool {
        !self.outside.contains_key(name)
    }

    /// True if there is no room for it, and its addresses are closed.
    #[must_use]
    pub fn closes(&self, name: &ServiceName) -> bool {
        self.outside.get(name) == Some(&true)
    }

    pub fn outside(&self) -> impl ExactSizeIterator<Item = &ServiceName> {
        self.outside.keys()
    }

    /// Decides anew for which there is room. Returns those for which that has changed.
    pub fn settle(&mut self) -> BTreeSet<ServiceName> {
        let fits = self.all.is_within(self.limits.all)
            && self.by_namespace.values().all(|cost| cost.is_within(self.limits.of_namespace));
        if fits && self.outside.is_empty() {
            return BTreeSet::new();
        }
        let outside = if fits { BTreeMap::new() } else { self.left_out() };
        let before = std::mem::replace(&mut self.outside, outside);
        let all = before.keys().chain(self.outside.keys());
        let changed = all.filter(|name| before.get(*name) != self.outside.get(*name));
        changed.cloned().collect()
    }

    /// Each namespace has the same share, and those that need less leave the rest to others. Within one, older Services come first.
    fn left_out(&self) -> BTreeMap<ServiceName, bool> {
        let share = self.share();
        let mut by_namespace: HashMap<&Arc<str>, Vec<(u64, &ServiceName, Cost)>> = HashMap::new();
        for (name, taken) in &self.services {
            let of = self.by_namespace.get(&name.namespace);
            if of.is_some_and(|of| !of.is_within(share)) {
                let services = by_namespace.entry(&name.namespace).or_default();
                services.push((taken.created, name, taken.cost));
            }
        }
        let mut outside = BTreeSet::new();
        for mut services in by_namespace.into_values() {
            services.sort_unstable_by_key(|(created, name, _)| (*created, *name));
            let mut taken = Cost::default();
            for (_, name, cost) in services {
                let mut more = taken;
                more += cost;
                if more.is_within(share) {
                    taken = more;
                } else {
                    outside.insert(name.clone());
                }
            }
        }
        let mut closed = 0;
        let closes = |name: ServiceName| {
            closed += self.services.get(&name).map_or(0, |taken| taken.addresses);
            (name, closed <= self.limits.closed)
        };
        outside.into_iter().map(closes).collect()
    }

    fn share(&self) -> Cost {
        let of = |which: fn(&Cost) -> usize| {
            let all = self.by_namespace.values().map(which).collect();
            share(all, which(&self.limits.all)).min(which(&self.limits.of_namespace))
        };
        Cost { places: of(|cost| cost.places), backends: of(|cost| cost.backends) }
    }
}

/// The largest share with which no more than `all` is taken, if everybody takes what he wants up to that.
fn share(mut wanted: Vec<usize>, all: usize) -> usize {
    wanted.sort_unstable();
    let (mut left, mut others) = (all, wanted.len());
    for wants in wanted {
        if wants > left / others {
            return left / others;
        }
        left -= wants;
        others -= 1;
    }
    all
}

impl Cost {
    fn is_within(self, most: Self) -> bool {
        self.places <= most.places && self.backends <= most.backends
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.places += other.places;
        self.backends += other.backends;
    }
}

impl SubAssign for Cost {
    fn sub_assign(&mut self, other: Self) {
        self.places -= other.places;
        self.backends -= other.backends;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        all: Cost { places: 20, backends: 1000 },
        of_namespace: Cost { places: 12, backends: 500 },
        closed: 3,
    };

    fn name(namespace: &str, number: u64) -> ServiceName {
        ServiceName { namespace: namespace.into(), name: format!("service-{number}").into() }
    }

    fn places(places: usize) -> Cost {
        Cost { places, backends: 0 }
    }

    #[test]
    fn everybody_has_the_same_share_and_what_others_leave() {
        for (wanted, all, expected) in [
            (vec![], 9, 9),
            (vec![3, 3], 9, 9),
            (vec![1, 10, 10], 9, 4),
            (vec![10, 10, 10], 9, 3),
            (vec![0, 100], 9, 9),
            (vec![1; 20], 9, 0),
        ] {
            assert_eq!(share(wanted.clone(), all), expected, "{wanted:?}");
        }
    }

    #[test]
    fn whoever_takes_too_much_loses_his_newest_and_others_nothing() {
        let mut room = Room::new(LIMITS);
        room.take(&name("small", 1), 100, 1, places(4));
        for number in 0..6 {
            // The first to come is the newest.
            room.take(&name("big", number), 10 - number, 1, places(3));
        }
        let changed = room.settle();
        // Four of six: a namespace has 12 at most.
        let outside: Vec<_> = room.outside().cloned().collect();
        assert_eq!(outside, [name("big", 0), name("big", 1)]);
        assert_eq!(changed, outside.into_iter().collect());
        assert!(room.has(&name("small", 1)) && room.closes(&name("big", 0)));
        // One goes: there is room for the older of the two.
        room.leave(&name("big", 5));
        assert_eq!(room.settle(), [name("big", 1)].into());
        room.take(&name("big", 0), 10, 1, places(0));
        assert_eq!(room.settle(), [name("big", 0)].into());
        assert_eq!(room.outside().len(), 0);
        assert_eq!(room.settle(), BTreeSet::new());
    }

    #[test]
    fn no_more_addresses_are_closed_than_there_is_room_for() {
        let mut room = Room::new(LIMITS);
        for number in 0..4 {
            room.take(&name("big", number), number, 2, Cost { places: 1, backends: 501 });
        }
        room.settle();
        let closed: Vec<_> = (0..4).map(|number| room.closes(&name("big", number))).collect();
        assert_eq!((room.outside().len(), closed), (4, vec![true, false, false, false]));
    }

    proptest! {
        /// Whatever comes and goes, all of it fits, and a namespace that wants no more than its part has it.
        #[test]
        fn what_there_is_room_for_fits(
            events in prop::collection::vec((0..4_u8, 0..5_u64, prop::option::of((0..4_u64, 0..9_usize, 0..300_usize))), 0..60),
        ) {
            let mut room = Room::new(LIMITS);
            for (namespace, number, taken) in events {
                let name = name(&format!("namespace-{namespace}"), number);
                match taken {
                    Some((created, places, backends)) => room.take(&name, created, 1, Cost { places, backends }),
                    None => room.leave(&name),
                }
                let closed: BTreeMap<_, _> = room.outside.clone();
                for name in room.settle() {
                    prop_assert_ne!(closed.get(&name), room.outside.get(&name));
                }
                let mut inside = Cost::default();
                let mut by_namespace: HashMap<_, Cost> = HashMap::new();
                for (name, taken) in &room.services {
                    if room.has(name) {
                        inside += taken.cost;
                        *by_namespace.entry(name.namespace.clone()).or_default() += taken.cost;
                    }
                }
                prop_assert!(inside.is_within(LIMITS.all), "{:?}", inside);
                prop_assert!(by_namespace.values().all(|of| of.is_within(LIMITS.of_namespace)));
                let fair = Cost { places: 20 / 4, backends: 1000 / 4 };
                for (namespace, wants) in &room.by_namespace {
                    if wants.is_within(fair) {
                        prop_assert!(room.outside().all(|name| name.namespace != *namespace));
                    }
                }
            }
        }
    }
}
