//! What was seen on which kernel: a record, kept from run to run, and the table in docs/kernels.md that is made of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What stands behind the table.
const NEEDS: &str = include_str!("needs.md");

/// What was seen of a scenario on a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub kernel: String,
    pub scenario: String,
    pub is_ok: bool,
    /// How long it took, in seconds.
    pub seconds: u64,
    /// What was measured or counted, in a few words.
    pub detail: String,
    /// `2026-11-28`.
    pub date: String,
    pub on: Place,
}

/// Where something was seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    pub release: String,
    pub package: String,
    /// The package's.
    pub version: String,
    /// Of Debian.
    pub suite: String,
    /// What runs the machine.
    pub processors: String,
}

/// A scenario, and what it shows.
#[derive(Clone, Copy)]
pub struct Subject {
    pub name: &'static str,
    pub shows: &'static str,
}

/// The last outcome of each scenario on each kernel, a line each, beside the document.
pub struct Record {
    document: PathBuf,
    kernels: Vec<String>,
    subjects: Vec<Subject>,
    outcomes: Vec<Outcome>,
}

impl Record {
    /// Reads what earlier runs have seen of these, in this order. Others are forgotten.
    ///
    /// # Errors
    /// When it cannot be read, or makes no sense.
    pub fn open(document: &Path, kernels: &[&str], subjects: Vec<Subject>) -> io::Result<Self> {
        let kernels = kernels.iter().map(ToString::to_string).collect();
        let mut record =
            Self { document: document.to_owned(), kernels, subjects, outcomes: Vec::new() };
        let text = match fs::read_to_string(record.file()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        for line in text.lines() {
            record.take(serde_json::from_str(line)?);
        }
        Ok(record)
    }

    /// Takes an outcome in place of an earlier one of the same scenario and kernel, and writes both files.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn add(&mut self, outcome: Outcome) -> io::Result<()> {
        self.take(outcome);
        let lines: Vec<String> =
            self.outcomes.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        fs::write(self.file(), lines.join("\n") + "\n")?;
        fs::write(&self.document, self.text())
    }

    fn file(&self) -> PathBuf {
        self.document.with_extension("jsonl")
    }

    fn take(&mut self, outcome: Outcome) {
        let (kernels, subjects) = (&self.kernels, &self.subjects);
        let place = |it: &Outcome| {
            let kernel = kernels.iter().position(|name| *name == it.kernel)?;
            Some((kernel, subjects.iter().position(|subject| subject.name == it.scenario)?))
        };
        let Some(at) = place(&outcome) else { return };
        match self.outcomes.binary_search_by_key(&Some(at), place) {
            Ok(index) => self.outcomes[index] = outcome,
            Err(index) => self.outcomes.insert(index, outcome),
        }
    }

    /// The document.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = "# Kernels\n\n\
             What was seen on whole machines with Debian's kernels, pure cgroup v2 and systemd. `cargo xtask vm` runs the scenarios and \
             writes this file. A cell has the seconds that the scenario took, – stands where it was not run.\n\n"
            .to_owned();
        let header: String = self.kernels.iter().map(|kernel| format!(" {kernel} |")).collect();
        let line = "---|".repeat(self.kernels.len());
        let _ = writeln!(text, "| scenario | what it shows |{header}\n|---|---|{line}");
        for Subject { name, shows } in &self.subjects {
            let cells = self.kernels.iter().map(|kernel| format!(" {} |", self.cell(kernel, name)));
            let _ = writeln!(text, "| `{name}` | {shows} |{}", cells.collect::<String>());
        }
        self.places(&mut text);
        self.details(&mut text);
        text.push('\n');
        text.push_str(NEEDS);
        text
    }

    fn cell(&self, kernel: &str, scenario: &str) -> String {
        let is_it = |it: &&Outcome| it.kernel == kernel && it.scenario == scenario;
        match self.outcomes.iter().find(is_it) {
            None => "–".to_owned(),
            Some(outcome) if outcome.is_ok => outcome.seconds.to_string(),
            Some(_) => "**fails**".to_owned(),
        }
    }

    /// Where and when: a line for each kernel, or more where packages have changed meanwhile.
    fn places(&self, text: &mut String) {
        text.push_str(
            "\n| kernel | release | package | suite | run by | seen |\n|---|---|---|---|---|---|\n",
        );
        for kernel in &self.kernels {
            let mut places: BTreeMap<&Place, Vec<&str>> = BTreeMap::new();
            for outcome in self.outcomes.iter().filter(|it| it.kernel == *kernel) {
                places.entry(&outcome.on).or_default().push(&outcome.date);
            }
            for (place, mut dates) in places {
                let Place { release, package, version, suite, processors } = place;
                dates.sort_unstable();
                let (first, last) = (dates[0], dates[dates.len() - 1]);
                let seen =
                    if first == last { last.to_owned() } else { format!("{first} to {last}") };
                let _ = writeln!(
                    text,
                    "| {kernel} | {release} | {package} {version} | {suite} | {processors} | {seen} |"
                );
            }
        }
    }

    /// What was counted: once for all kernels on which it was the same.
    fn details(&self, text: &mut String) {
        if self.outcomes.iter().any(|it| !it.detail.is_empty()) {
            text.push_str("\n## What was counted\n\n");
        }
        for Subject { name, .. } in &self.subjects {
            let of_it = self.outcomes.iter().filter(|it| it.scenario == *name);
            let mut details: Vec<(&str, Vec<&str>)> = Vec::new();
            for Outcome { kernel, detail, .. } in of_it.filter(|it| !it.detail.is_empty()) {
                match details.iter_mut().find(|(known, _)| known == detail) {
                    Some((_, kernels)) => kernels.push(kernel),
                    None => details.push((detail, vec![kernel])),
                }
            }
            for (detail, kernels) in details {
                let _ = writeln!(text, "- `{name}`, {}: {detail}", kernels.join(", "));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECTS: [Subject; 3] = [
        Subject { name: "a", shows: "one" },
        Subject { name: "b", shows: "two" },
        Subject { name: "c", shows: "three" },
    ];

    fn outcome(kernel: &str, scenario: &str, is_ok: bool, date: &str) -> Outcome {
        let on = Place {
            release: format!("{kernel}.0-9"),
            package: "linux-image".to_owned(),
            version: format!("{kernel}.27-1"),
            suite: "bookworm".to_owned(),
            processors: "KVM".to_owned(),
        };
        let [kernel, scenario, date] = [kernel, scenario, date].map(str::to_owned);
        Outcome { kernel, scenario, is_ok, seconds: 7, detail: String::new(), date, on }
    }

    #[test]
    fn what_fails_and_what_was_not_run_can_be_told_from_what_works() {
        let dir = tempfile::tempdir().unwrap();
        let document = dir.path().join("kernels.md");
        let mut record = Record::open(&document, &["6.1"], SUBJECTS.to_vec()).unwrap();
        record.add(outcome("6.1", "a", true, "2026-01-02")).unwrap();
        record.add(outcome("6.1", "b", false, "2026-01-03")).unwrap();
        let text = fs::read_to_string(document).unwrap();
        for row in [
            "| `a` | one | 7 |",
            "| `b` | two | **fails** |",
            "| `c` | three | – |",
            "| 6.1 | 6.1.0-9 | linux-image 6.1.27-1 | bookworm | KVM | 2026-01-02 to 2026-01-03 |",
        ] {
            assert!(text.contains(row), "{row} in\n{text}");
        }
    }

    #[test]
    fn what_is_the_same_on_all_kernels_is_said_once() {
        let dir = tempfile::tempdir().unwrap();
        let document = dir.path().join("kernels.md");
        let mut record =
            Record::open(&document, &["6.1", "6.12", "rt"], SUBJECTS.to_vec()).unwrap();
        for (kernel, detail) in [("rt", "2 things"), ("6.1", "2 things"), ("6.12", "3 things")] {
            let detail = detail.to_owned();
            record.add(Outcome { detail, ..outcome(kernel, "a", true, "2026-01-02") }).unwrap();
        }
        let text = record.text();
        assert!(text.contains("\n- `a`, 6.1, rt: 2 things\n- `a`, 6.12: 3 things\n"), "{text}");
    }

    #[test]
    fn a_run_of_a_part_leaves_what_others_have_seen() {
        let dir = tempfile::tempdir().unwrap();
        let document = dir.path().join("kernels.md");
        let open = || Record::open(&document, &["6.1", "6.12"], SUBJECTS.to_vec()).unwrap();
        let mut first = open();
        first.add(outcome("6.12", "b", true, "2026-01-02")).unwrap();
        first.add(outcome("6.1", "c", false, "2026-01-02")).unwrap();
        let mut second = open();
        second.add(outcome("6.1", "c", true, "2026-01-03")).unwrap();
        second.add(outcome("6.1", "a", true, "2026-01-03")).unwrap();
        // No such kernel, no such scenario.
        second.add(outcome("5.4", "a", true, "2026-01-03")).unwrap();
        second.add(outcome("6.1", "d", true, "2026-01-03")).unwrap();
        let third = open();
        let seen: Vec<_> = third
            .outcomes
            .iter()
            .map(|it| (it.kernel.as_str(), it.scenario.as_str(), it.is_ok))
            .collect();
        assert_eq!(seen, [("6.1", "a", true), ("6.1", "c", true), ("6.12", "b", true)]);
        assert_eq!(third.text(), second.text());
    }
}
