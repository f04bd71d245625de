//! For a terminal.

use std::fmt::Write as _;
use std::io::Write as _;

use tabwriter::TabWriter;

use super::{measured, number, played};
use crate::results::Results;
use crate::run::Plan;
use crate::targets::{FURTHER, TARGETS};

pub fn render(plan: &Plan, results: &Results) -> String {
    let mut text = String::new();
    for load in &plan.loads {
        let contenders = played(plan, results, load.as_ref());
        if contenders.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{} ({})", load.title(), load.name());
        for quantity in measured(plan, results, load.as_ref()) {
            let _ = writeln!(text, "  {} {}", quantity.title, quantity.unit);
            for entry in &contenders {
                if let Some(seen) = results.summary(&entry.name, &load.name(), quantity.name) {
                    let [median, min, max] = [seen.median, seen.min, seen.max].map(number);
                    let _ = writeln!(text, "    {}\t{median:>9}\t{min} to {max}", entry.name);
                }
            }
        }
    }
    let mut heading = "Targets\n";
    for target in TARGETS.iter().chain(&FURTHER) {
        let Some(value) = target.value(results) else { continue };
        let verdict = if target.goal.is_reached(value) { "reached" } else { "missed" };
        let (goal, value) = (target.goal.describe(), number(value));
        text += std::mem::take(&mut heading);
        let _ = writeln!(text, "  {}\t{value:>7}\t{goal}\t{verdict}", target.title);
    }
    aligned(&text)
}

/// With the columns of each block, which tabs separate, below one another.
fn aligned(text: &str) -> String {
    let mut writer = TabWriter::new(Vec::new()).padding(2);
    // A vector takes whatever is written to it.
    let _ = writer.write_all(text.as_bytes());
    let aligned = writer.into_inner().unwrap_or_default();
    String::from_utf8_lossy(&aligned).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn figures_and_targets_are_told() {
        let plan = example::plan();
        let text = render(&plan, &example::results(&plan));
        for part in ["Idle flows (idle)", "Gbit/s", "    envoy", "reached", "missed"] {
            assert!(text.contains(part), "{part}");
        }
    }
}
