//! `docs/benchmarks.md`.

use std::fmt::Write;
use std::slice;

use super::{measured, number, played};
use crate::contender::SHEATH;
use crate::load::Load;
use crate::machine::Machine;
use crate::results::{Quantity, Results};
use crate::run::Plan;
use crate::statistics::median;
use crate::targets::{FURTHER, TARGETS, Target};

pub fn render(plan: &Plan, results: &Results, machine: &Machine) -> String {
    let mut text = introduction(plan, machine);
    text += &targets(results);
    text += "\n## Figures\n\nMedians, and the smallest and the largest value of all rounds. The last column is Sheath's \
             figure divided by\nthe row's, in the first quantity of the table: the median of the rounds' ratios.\n";
    for load in &plan.loads {
        text += &section(plan, results, load.as_ref());
    }
    text
}

fn introduction(plan: &Plan, machine: &Machine) -> String {
    let versions: Vec<String> =
        machine.programs.iter().map(|(name, version)| format!("{name} {version}")).collect();
    format!(
        "# Benchmarks

Written by `cargo xtask bench`; see [DEVELOPMENT.md](../DEVELOPMENT.md#benchmarks).

![Sheath and other proxies, as bars](benchmarks.svg)

| | |
|---|---|
| date | {} |
| processor | {}, {} of them |
| memory | {} GiB |
| kernel | Linux {} |
| versions | {} |
| rounds | {}, each load {} s |

Client, server and both proxies share this machine. Figures vary with whatever else it does; what counts are the ratios,
which are taken within one round.

## How they are compared

A client on one node, a server on another; the nodes are network namespaces joined by a veth pair. Between client and server:

- **direct**: nothing.
- **relay**: two plain copy relays, one on each node, with buffers of 256 KiB and no encryption. The limit for any pair of
  proxies in user space.
- **sheath**: an agent on each node. The client dials the server's address. **sheath-fresh** is the same without sessions that
  are used again: a handshake for each connection, as all the proxies have it.
- **envoy**, **stunnel**, **haproxy**, **nginx**: the same proxy on each node. The client dials the one on its own node.

All encrypted contenders speak TLS 1.3 with TLS_AES_128_GCM_SHA256, show a P-256 certificate of one authority and ask for one.
Before anything is measured, a capture of the wire must show just that, without plaintext and without resumption, and
the server's side must turn away plaintext and clients without a certificate. Envoy checks the SPIFFE ID on both sides, stunnel
the DNS name on both, haproxy and nginx the server's DNS name and the client's chain. Nobody writes an access log. Each
works with as many threads as there are processors, stunnel with one for each connection. Nagle's algorithm is off. Buffers have
each program's default sizes.

Keys are agreed on in X25519, but between agents in X25519MLKEM768: that is not a setting of Sheath's. A handshake is dearer
for it, and Sheath's figures for new connections bear that cost. **envoy-hybrid** is Envoy with the same group, for what opens
new connections.
",
        machine.date,
        machine.processor,
        machine.processors,
        machine.memory_gib,
        machine.kernel,
        versions.join(", "),
        plan.rounds,
        plan.scale.seconds(),
    )
}

fn targets(results: &Results) -> String {
    let mut text = "
## Targets

| measure | target | seen | |
|---|---|---|---|
"
    .to_owned();
    for target in TARGETS.iter().chain(&FURTHER) {
        let (seen, verdict) = verdict(target, results);
        let _ = writeln!(
            text,
            "| {} | {} | {seen} | {verdict} |",
            target.title,
            target.goal.describe()
        );
    }
    text
}

fn verdict(target: &Target, results: &Results) -> (String, &'static str) {
    match target.value(results) {
        None => ("–".to_owned(), "not measured"),
        Some(value) if target.goal.is_reached(value) => (number(value), "reached"),
        Some(value) => (number(value), "**missed**"),
    }
}

fn section(plan: &Plan, results: &Results, load: &dyn Load) -> String {
    let contenders = played(plan, results, load);
    let quantities = measured(plan, results, load);
    let (name, Some(first)) = (load.name(), quantities.first()) else { return String::new() };
    let mut text = format!("\n### {}\n\n", load.title());
    let cell = |contender: &str, quantity: &Quantity| {
        let Some(seen) = results.summary(contender, &name, quantity.name) else {
            return "–".to_owned();
        };
        format!("{} ({} to {})", number(seen.median), number(seen.min), number(seen.max))
    };
    // Tables that are too wide for a page stand on their heads.
    if quantities.len() > MOST_COLUMNS {
        let names: Vec<&str> = contenders.iter().map(|entry| entry.name.as_str()).collect();
        text += &row(&[&["".to_owned()], &strings(&names)[..]].concat());
        text += &rule(names.len() + 1);
        for quantity in &quantities {
            let cells: Vec<String> = names.iter().map(|name| cell(name, quantity)).collect();
            text += &row(&[&[heading(quantity)], &cells[..]].concat());
        }
        return text;
    }
    let headings: Vec<String> = quantities.iter().map(|quantity| heading(quantity)).collect();
    text += &row(&[&["".to_owned()], &headings[..], &["sheath ÷".to_owned()]].concat());
    text += &rule(quantities.len() + 2);
    for entry in &contenders {
        let cells: Vec<String> =
            quantities.iter().map(|quantity| cell(&entry.name, quantity)).collect();
        let ratio = median(&results.ratios(SHEATH, &entry.name, &name, first.name));
        let ratio = match ratio {
            Some(ratio) if entry.name != SHEATH => number(ratio),
            _ => String::new(),
        };
        text += &row(&[slice::from_ref(&entry.name), &cells[..], &[ratio]].concat());
    }
    text
}

const MOST_COLUMNS: usize = 4;

fn heading(quantity: &Quantity) -> String {
    match quantity.unit {
        "" => quantity.title.to_owned(),
        unit => format!("{}, {unit}", quantity.title),
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

fn rule(columns: usize) -> String {
    format!("|{}\n", "---|".repeat(columns))
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    fn document() -> String {
        let plan = example::plan();
        let machine = Machine {
            processor: "A Processor".to_owned(),
            processors: 2,
            memory_gib: 8,
            kernel: "6.1.0".to_owned(),
            programs: vec![("Envoy", "1.40.0".to_owned()), ("wrk", "4.1.0".to_owned())],
            date: "2026-11-22".to_owned(),
        };
        render(&plan, &example::results(&plan), &machine)
    }

    #[test]
    fn the_document_says_what_it_was_made_with() {
        let text = document();
        for part in
            ["A Processor, 2 of them", "Linux 6.1.0", "Envoy 1.40.0, wrk 4.1.0", "2026-11-22"]
        {
            assert!(text.contains(part), "{part}");
        }
    }

    #[test]
    fn every_load_has_a_table_and_every_target_a_row() {
        let text = document();
        for load in example::plan().loads {
            assert!(text.contains(&format!("\n### {}\n\n|", load.title())), "{}", load.title());
        }
        for target in TARGETS.iter().chain(&FURTHER) {
            assert!(text.contains(&format!("| {} | ", target.title)), "{}", target.key);
        }
    }

    #[test]
    fn the_rows_of_a_table_have_as_many_cells_as_its_head() {
        let text = document();
        let mut columns = None;
        for line in text.lines() {
            let cells = line.starts_with('|').then(|| line.matches('|').count());
            if let (Some(above), Some(cells)) = (columns, cells) {
                assert_eq!(above, cells, "{line}");
            }
            columns = cells;
        }
    }
}
