//! What the demo found, line by line.

use std::io::Write;

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use tabwriter::TabWriter;

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const TITLE: Style = Style::new().bold();

pub struct Report {
    /// Drawn before everything else.
    scene: &'static str,
    sections: Vec<Section>,
}

#[derive(Serialize)]
struct Section {
    title: &'static str,
    checks: Vec<Check>,
}

#[derive(Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    seen: String,
}

impl Report {
    pub fn new(scene: &'static str) -> Self {
        Self { scene, sections: Vec::new() }
    }

    /// Starts a new group of checks.
    pub fn section(&mut self, title: &'static str) {
        self.sections.push(Section { title, checks: Vec::new() });
    }

    /// Adds what was seen, and whether it is what has to be seen.
    pub fn check(&mut self, name: &'static str, ok: bool, seen: impl Into<String>) {
        let section = self.sections.last_mut().expect("a section");
        section.checks.push(Check { name, ok, seen: seen.into() });
    }

    pub fn is_ok(&self) -> bool {
        let mut checks = self.sections.iter().flat_map(|section| &section.checks);
        checks.all(|check| check.ok)
    }

    pub fn to_json(&self) -> String {
        let value = serde_json::json!({ "ok": self.is_ok(), "sections": self.sections });
        serde_json::to_string_pretty(&value).expect("a report")
    }

    /// On a terminal in colours, unless somebody has said otherwise.
    pub fn print(&self) {
        let verdict = |ok| if ok { paint(GOOD, "ok") } else { paint(BAD, "FAIL") };
        anstream::println!("{}", self.scene);
        for section in &self.sections {
            anstream::println!("\n{}", paint(TITLE, section.title));
            let mut checks = TabWriter::new(Vec::new()).padding(2).ansi(true);
            for Check { name, ok, seen } in &section.checks {
                writeln!(checks, "  {}\t{name}\t{seen}", verdict(*ok)).expect("a line");
            }
            let checks = checks.into_inner().expect("lines");
            anstream::print!("{}", String::from_utf8_lossy(&checks));
        }
        let count: usize = self.sections.iter().map(|section| section.checks.len()).sum();
        let outcome = if self.is_ok() { "all of it holds" } else { "NOT all of it holds" };
        anstream::println!("\n{}  {count} checks, {outcome}", verdict(self.is_ok()));
    }
}

fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}
