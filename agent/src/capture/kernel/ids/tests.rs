use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// Pins of an instance that nobody else has.
struct Instance(Pins);

impl Instance {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        crate::capture::ensure_bpffs().unwrap();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let pins = Pins::of(&format!("ids-test-{}-{count}", std::process::id()));
        pins.create().unwrap();
        Self(pins)
    }

    fn open(&self) -> Result<WorkloadIds, IdError> {
        WorkloadIds::open(&self.0)
    }

    fn assign(&self, names: &[&str]) -> Vec<WorkloadId> {
        self.open().unwrap().assign(names.iter().copied()).unwrap()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.0.remove_all();
    }
}

#[test]
fn the_next_agent_finds_what_was_given_out() {
    let instance = Instance::new();
    assert_eq!(instance.assign(&["web", "db"]), [1, 2]);
    assert_eq!(instance.assign(&["cache", "db", "web"]), [3, 2, 1]);
    instance.open().unwrap().keep_only(&[("web", 1)].into()).unwrap();
    assert_eq!(instance.assign(&["db", "web"]), [4, 1]);
    // Somebody has forgotten a name that is in force.
    instance.open().unwrap().keep_only(&[("db", 4)].into()).unwrap();
    instance.open().unwrap().keep_only(&[("db", 4), ("web", 1)].into()).unwrap();
    assert_eq!(instance.assign(&["web", "cache", "db"]), [1, 5, 4]);
}

#[test]
fn agents_that_give_out_numbers_at_once_give_out_different_ones() {
    const AGENTS: usize = 6;
    const EACH: usize = 40;
    let instance = Instance::new();
    let names = |agent: usize| (0..EACH).map(move |n| format!("agent-{agent}-{n}"));
    let seen = thread::scope(|scope| {
        let agents: Vec<_> = (0..AGENTS)
            .map(|agent| {
                let instance = &instance;
                scope.spawn(move || {
                    let ids = instance.open().unwrap();
                    // A few at a time, and one that all of them want.
                    let of_one = |name: String| ids.assign([name.as_str(), "all"]).unwrap();
                    names(agent).map(of_one).collect::<Vec<_>>()
                })
            })
            .collect();
        agents.into_iter().flat_map(|agent| agent.join().unwrap()).collect::<Vec<_>>()
    });
    let own: BTreeSet<_> = seen.iter().map(|ids| ids[0]).collect();
    let shared: BTreeSet<_> = seen.iter().map(|ids| ids[1]).collect();
    assert_eq!((own.len(), shared.len()), (AGENTS * EACH, 1));
    assert!(own.is_disjoint(&shared));
}

#[test]
fn a_full_table_makes_room_for_those_that_are_wanted() {
    let instance = Instance::new();
    let ids = instance.open().unwrap();
    let many = |prefix: char| -> Vec<String> {
        (0..MAX_SELECTED).map(|n| format!("{prefix}{n}")).collect()
    };
    let assign = |names: &[String]| ids.assign(names.iter().map(String::as_str)).unwrap();
    let [a, b, c] = ['a', 'b', 'c'].map(many);
    let first = assign(&a);
    let second = assign(&b);
    // One configuration too many that has come to nothing.
    let third = assign(&c);
    let all: BTreeSet<_> = first.iter().chain(&second).chain(&third).collect();
    assert_eq!(all.len(), 3 * MAX_SELECTED as usize);
    assert_eq!(assign(&c), third);
}

#[test]
fn a_table_is_not_made_anew_where_something_may_bear_what_it_gave_out() {
    let instance = Instance::new();
    drop(instance.open().unwrap());
    let workloads: Table<u64, u64> = Table::create(&instance.0.map("WORKLOADS"), 1, &[]).unwrap();
    fs::remove_file(instance.0.map(WORKLOAD_IDS)).unwrap();
    assert!(matches!(instance.open(), Err(IdError::Lost)));
    drop(workloads);
}

#[test]
fn a_table_that_makes_no_sense_is_refused_and_left_as_it_is() {
    let instance = Instance::new();
    let ids = instance.open().unwrap();
    ids.assign(["web"]).unwrap();
    ids.table.insert(&key("db").unwrap(), &1).unwrap();
    assert!(matches!(instance.open(), Err(IdError::Damaged(Damage::Twice(1)))));
    assert!(ids.assign(["cache"]).is_err());
    ids.table.remove(&key("db").unwrap()).unwrap();
    assert_eq!(instance.assign(&["cache", "web"]), [2, 1]);
    let mut odd = NEXT;
    odd[0] = 0xff;
    ids.table.insert(&odd, &1).unwrap();
    assert!(matches!(instance.open(), Err(IdError::Damaged(Damage::Name))));
}

#[test]
fn a_name_that_does_not_fit_is_refused() {
    let instance = Instance::new();
    let longest = "x".repeat(MAX_NAME);
    assert_eq!(instance.assign(&[&longest]), [1]);
    let longer = format!("{longest}x");
    let refused = instance.open().unwrap().assign([longer.as_str()]);
    assert!(matches!(refused, Err(IdError::LongName(_))));
}

#[test]
fn whoever_ends_with_the_lock_holds_up_nobody() {
    let instance = Instance::new();
    let holder = take_turn(&instance.0).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| instance.assign(&["web"]));
        drop(holder);
        assert_eq!(waiting.join().unwrap(), [1]);
    });
}
