//! Each promise in `agent/src/manual/promises.rs` names scenarios that show it, and they are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::workspace;

/// Where a promise names its scenarios.
const SHOWN_BY: &str = "Shown by ";
/// Folder of the scenarios.
const SCENARIOS: &str = "tests/scenarios";

/// Names of scenarios by number of the promise.
type Shown = BTreeMap<u32, BTreeSet<String>>;

#[test]
fn each_promise_names_scenarios_that_are_there() {
    let text = fs::read_to_string(workspace::root().join("agent/src/manual/promises.rs")).unwrap();
    let promises = promises(&text);
    assert_eq!(promises.keys().copied().collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    let scenarios = scenarios();
    for (number, shown_by) in &promises {
        assert!(!shown_by.is_empty(), "promise {number} names no scenario");
        for name in shown_by {
            assert!(scenarios.contains_key(name), "promise {number}: no scenario `{name}`");
        }
    }
    for (name, text) in &scenarios {
        for number in claimed(text) {
            let is_named = promises.get(&number).is_some_and(|shown_by| shown_by.contains(name));
            assert!(is_named, "`{name}` shows promise {number}, which does not name it");
        }
    }
}

#[test]
fn promises_and_claims_are_read() {
    let text = "//! All.\n//!\n//! 1. **One.** It is.\n//!    Shown by `a`,\n//!    `b_c`.\n//! 2. **`Two`.** Is.\n//!\n//! `d`\n";
    let one = ["a", "b_c"].map(str::to_owned).into();
    assert_eq!(promises(text), [(1, one), (2, BTreeSet::new())].into());
    assert_eq!(claimed("//! Promises 1, 4 and 8: all.\n//! 9\n\nuse x;"), [1, 4, 8].into());
    assert_eq!(claimed("//! Promise 3, by number\n"), [3].into());
    assert_eq!(claimed("//! No promise.\n\n//! Promise 2\n"), BTreeSet::new());
}

fn promises(text: &str) -> Shown {
    let mut promises = Shown::new();
    let mut current = None;
    let mut is_list = false;
    for line in text.lines().filter_map(|line| line.strip_prefix("//!")) {
        let item = line.trim().split_once(". **").and_then(|(number, _)| number.parse().ok());
        if let Some(number) = item {
            (current, is_list) = (Some(number), false);
            promises.insert(number, BTreeSet::new());
        } else if line.trim().is_empty() {
            (current, is_list) = (None, false);
        }
        let names = line.trim().strip_prefix(SHOWN_BY);
        is_list |= names.is_some();
        if let (Some(number), true) = (current, is_list) {
            let names = names.unwrap_or(line).split('`').skip(1).step_by(2).map(str::to_owned);
            promises.entry(number).or_default().extend(names);
        }
    }
    promises
}

/// The scenarios: name and text of each.
fn scenarios() -> BTreeMap<String, String> {
    let files = fs::read_dir(workspace::root().join(SCENARIOS)).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    files
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_suffix(".rs")?.to_owned();
            Some((name, fs::read_to_string(&path).unwrap()))
        })
        .collect()
}

/// The promises that a scenario's first line says it shows: `Promise 3: ...`, `Promises 7 and 8: ...`.
fn claimed(text: &str) -> BTreeSet<u32> {
    let first = text.lines().next().unwrap_or_default();
    let Some(claim) = first.strip_prefix("//! Promise") else {
        return BTreeSet::new();
    };
    let claim = claim.split(':').next().unwrap_or_default();
    claim.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}
