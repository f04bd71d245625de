//! The agent's modules import what the table in ARCHITECTURE.md says, and nothing else.
//!
//! A row names modules and what these may import, besides what stands in rows above theirs only if it is named. A row
//! may be written before its modules import all of it; what they import and it does not name is an arrow in the wrong
//! direction.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::modules::{Arrows, Module, Sources, arrows, collect};
use crate::workspace;

/// The header of the table.
const HEADER: &str = "| module | subject | may import |";

/// What each module may import.
type Table = BTreeMap<String, BTreeSet<String>>;

#[test]
fn the_agents_modules_import_what_the_table_allows() {
    let table = read(&fs::read_to_string(workspace::root().join("ARCHITECTURE.md")).unwrap());
    let mut sources = Sources::new();
    collect(&workspace::root().join("agent/src"), &Module::new(), &mut sources);
    let modules: BTreeSet<String> =
        sources.keys().filter_map(|module| module.first().cloned()).collect();
    let listed: BTreeSet<String> = table.keys().cloned().collect();
    assert_eq!(listed, modules, "the table in ARCHITECTURE.md and agent/src differ");
    let wrong = against(&table, &arrows(&sources));
    assert!(wrong.is_empty(), "imports against the table in ARCHITECTURE.md: {wrong:?}");
}

#[test]
fn an_import_that_the_table_does_not_name_is_found() {
    let text = format!(
        "{HEADER}\n|---|---|---|\n| `flow` | ids | |\n| `relay/` | bytes | `flow`, `wire` |\n\
         | `wire/` | records | `flow` |\n\nAnd so on.\n"
    );
    let table = read(&text);
    let arrow = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let right =
        [arrow("relay", "wire"), arrow("wire", "flow"), arrow("wire::bytes", "wire::modes")];
    assert_eq!(against(&table, &right.into()), Arrows::new());
    let wrong = [arrow("flow", "relay"), arrow("relay", "flow"), arrow("wire", "relay")];
    let found = against(&table, &wrong.into());
    assert_eq!(found, [arrow("flow", "relay"), arrow("wire", "relay")].into());
}

/// Reads the table: names in backquotes, folders with a slash behind them.
fn read(text: &str) -> Table {
    let rows = text.lines().skip_while(|line| *line != HEADER).skip(2);
    rows.map_while(|line| line.strip_prefix('|'))
        .map(|row| {
            let cells: Vec<&str> = row.split('|').collect();
            let module = names(cells[0]).next().unwrap_or_else(|| panic!("no module in {row}"));
            (module, names(cells[2]).collect())
        })
        .collect()
}

fn names(cell: &str) -> impl Iterator<Item = String> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.map(|name| name.trim_end_matches('/').trim_end_matches(".rs").to_owned())
}

/// Arrows between the crate's own modules that the table does not name. Those within a folder are its own affair.
fn against(table: &Table, arrows: &Arrows) -> Arrows {
    let is_top = |name: &str| !name.contains("::");
    let is_wrong = |(from, to): &&(String, String)| {
        is_top(from) && !table.get(from).is_some_and(|allowed| allowed.contains(to))
    };
    arrows.iter().filter(is_wrong).cloned().collect()
}
