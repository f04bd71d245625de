//! For a terminal.

use std::fmt::Write;

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
                    let _ = writeln!(text, "    {:<14} {median:>9}   {min} to {max}", entry.name);
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
        let _ = writeln!(text, "  {:<62} {value:>7}   {goal:<11} {verdict}", target.title);
    }
    text
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
