use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Two names that 32-bit FNV-1a, which once made a workload's id of its name, gives the same number.
const COLLIDING: [&str; 2] = ["index-auth-502", "index-shop-1448"];

fn fnv1a(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[test]
fn names_that_hash_alike_have_numbers_of_their_own() {
    assert_eq!(fnv1a(COLLIDING[0]), fnv1a(COLLIDING[1]));
    let assigned = Allocation::default().assign(&COLLIDING).unwrap();
    assert_ne!(assigned.ids[0], assigned.ids[1]);
}

#[test]
fn a_name_keeps_its_number_until_it_is_forgotten() {
    let mut allocation = Allocation::default();
    let first = allocation.assign(&["web", "db"]).unwrap();
    assert_eq!((first.ids.as_slice(), first.new.len()), ([1, 2].as_slice(), 2));
    let again = allocation.assign(&["db", "cache", "web", "db"]).unwrap();
    assert_eq!(again.ids, [2, 3, 1, 2]);
    assert_eq!(again.new, [("cache".to_owned(), 3)]);
    assert_eq!(allocation.retain(|name| name == "web").len(), 2);
    assert_eq!(allocation.assign(&["db", "web"]).unwrap().ids, [4, 1]);
}

#[test]
fn a_name_is_taken_back_with_a_number_that_nobody_else_has() {
    let mut allocation = Allocation::default();
    allocation.assign(&["web", "db", "cache"]).unwrap();
    allocation.retain(|name| name == "cache");
    // Not given out yet; another's; another one than it has; right.
    let names = [("a", 4), ("b", 3), ("cache", 2), ("web", 1)];
    assert_eq!(allocation.take_back(&names.into()), [("web".to_owned(), 1)]);
    assert_eq!(allocation.assign(&["a", "b", "cache", "web"]).unwrap().ids, [4, 5, 3, 1]);
}

#[test]
fn no_number_is_given_out_once_all_have_been() {
    let next = Some(u64::from(LAST_ID));
    let mut allocation = Allocation::restore(next, [("web".to_owned(), 9)]).unwrap();
    assert_eq!(allocation.assign(&["a", "b"]), Err(Exhausted));
    assert_eq!(allocation.assign(&["a", "web"]).unwrap().ids, [LAST_ID, 9]);
    assert_eq!(allocation.assign(&["b"]), Err(Exhausted));
    // That is so also for the next agent.
    let next = Some(u64::from(allocation.next()));
    let mut allocation = Allocation::restore(next, [("web".to_owned(), 9)]).unwrap();
    assert_eq!(allocation.assign(&["b"]), Err(Exhausted));
    assert_eq!(allocation.assign(&["web"]).unwrap().ids, [9]);
}

#[test]
fn a_table_that_makes_no_sense_is_refused() {
    let entries = |ids: &[u64]| -> Vec<_> {
        ids.iter().enumerate().map(|(n, id)| (format!("w{n}"), *id)).collect()
    };
    for (next, ids, damage) in [
        (None, [].as_slice(), Damage::Next),
        (Some(0), &[], Damage::Next),
        (Some(u64::from(LAST_ID) + 2), &[], Damage::Next),
        (Some(1 << 32 | 7), &[], Damage::Next),
        (Some(7), &[7], Damage::Id(7)),
        (Some(7), &[0], Damage::Id(0)),
        (Some(7), &[1 << 32 | 3], Damage::Id(1 << 32 | 3)),
        (Some(7), &[3, 4, 3], Damage::Twice(3)),
    ] {
        assert_eq!(Allocation::restore(next, entries(ids)), Err(damage), "{next:?} {ids:?}");
    }
}

/// The table as it is written: entry by entry, the next number first.
#[derive(Clone, Debug)]
struct Written {
    next: u64,
    ids: BTreeMap<String, u64>,
}

impl Written {
    fn restore(&self) -> Allocation {
        Allocation::restore(Some(self.next), self.ids.clone()).unwrap()
    }
}

#[derive(Clone, Debug)]
enum Event {
    /// An agent, new or not, wants numbers for a configuration, and is stopped after so many writes.
    Assign { names: BTreeSet<u8>, writes: usize },
    /// Whatever is not in force is forgotten; it may be stopped here too.
    Settle { writes: usize },
}

fn event() -> impl Strategy<Value = Event> {
    let names = prop::collection::btree_set(0_u8..12, 0..6);
    // Mostly nobody is stopped.
    let writes = || prop_oneof![1 => 0_usize..6, 2 => Just(usize::MAX)];
    prop_oneof![
        2 => (names, writes()).prop_map(|(names, writes)| Event::Assign { names, writes }),
        1 => writes().prop_map(|writes| Event::Settle { writes }),
    ]
}

proptest! {
    /// Whoever is stopped when: no number ever means two names, and what is in force keeps its number.
    #[test]
    fn a_number_never_comes_to_mean_another_name(events in prop::collection::vec(event(), 1..40)) {
        let mut table = Written { next: 1, ids: BTreeMap::new() };
        let mut meant: BTreeMap<WorkloadId, String> = BTreeMap::new();
        let mut in_force: BTreeMap<String, WorkloadId> = BTreeMap::new();
        for event in events {
            let mut allocation = table.restore();
            match event {
                Event::Assign { names, writes } => {
                    let names: Vec<_> = names.iter().map(|number| format!("w{number}")).collect();
                    let asked: Vec<_> = names.iter().map(String::as_str).collect();
                    let Assigned { ids, new } = allocation.assign(&asked).unwrap();
                    if writes > 0 {
                        table.next = u64::from(allocation.next());
                    }
                    for (name, id) in new.iter().take(writes.saturating_sub(1)) {
                        table.ids.insert(name.clone(), u64::from(*id));
                    }
                    if !new.is_empty() && writes <= new.len() {
                        // Nobody has come to use any of these.
                        continue;
                    }
                    let now: BTreeMap<_, _> = names.into_iter().zip(ids).collect();
                    for (name, id) in &now {
                        prop_assert_eq!(meant.entry(*id).or_insert_with(|| name.clone()), name);
                        prop_assert_eq!(in_force.get(name).unwrap_or(id), id);
                    }
                    in_force = now;
                }
                Event::Settle { writes } => {
                    let names = in_force.iter().map(|(name, id)| (name.as_str(), *id)).collect();
                    let forgotten = allocation.retain(|name| in_force.contains_key(name));
                    let back = allocation.take_back(&names);
                    prop_assert_eq!(&back, &[], "what is in force is there");
                    for name in forgotten.iter().take(writes) {
                        table.ids.remove(name);
                    }
                    if writes >= forgotten.len() {
                        prop_assert_eq!(table.ids.len(), in_force.len());
                    }
                }
            }
            let restored = table.restore();
            prop_assert!(meant.keys().all(|id| *id < restored.next()));
        }
    }
}
