//! No two modules of a crate import each other, directly or by way of others.
//!
//! Compared are neighbours: modules in the same folder, each with everything below it. A folder's `mod.rs` may name
//! what is in the folder, and what is in the folder may use what `mod.rs` declares for all.

use std::collections::{BTreeMap, BTreeSet};

use crate::modules::{Arrows, Module, Sources, arrows, collect};
use crate::workspace;

const CRATES: [&str; 4] = ["agent", "bench", "tests", "xtask"];

#[test]
fn no_two_modules_import_each_other() {
    for name in CRATES {
        let mut sources = Sources::new();
        collect(&workspace::root().join(name).join("src"), &Module::new(), &mut sources);
        let circles = without_ends(arrows(&sources));
        assert!(circles.is_empty(), "modules of {name} import each other: {circles:?}");
    }
}

#[test]
fn a_circle_by_way_of_a_third_module_is_found() {
    let sources = [
        ("load", "use crate::run::{Plan, Scale};"),
        ("load::idle", "use super::Load;\nuse crate::process;"),
        ("process", "use std::fs;"),
        ("run", "use crate::report;"),
        ("report", "fn f() { crate::load::idle::f::<u8>() }"),
        ("main", "use crate::{load, process, report, run};"),
    ];
    let sources = sources.map(|(name, text)| (module(name), text.to_owned()));
    let circles = without_ends(arrows(&BTreeMap::from(sources)));
    let found = [("load", "run"), ("report", "load"), ("run", "report")];
    assert_eq!(circles, found.map(|(from, to)| (from.to_owned(), to.to_owned())).into());
}

fn module(name: &str) -> Module {
    name.split("::").map(str::to_owned).filter(|name| name != "main").collect()
}

/// Takes away, again and again, arrows from modules that nobody imports and to modules that import nobody. What stays
/// is circles, and ways from one to another.
fn without_ends(mut arrows: Arrows) -> Arrows {
    loop {
        let count = arrows.len();
        let (from, to): (BTreeSet<_>, BTreeSet<_>) = arrows.iter().cloned().unzip();
        arrows.retain(|arrow| to.contains(&arrow.0) && from.contains(&arrow.1));
        if arrows.len() == count {
            return arrows;
        }
    }
}
