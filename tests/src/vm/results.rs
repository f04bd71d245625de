//! What was seen on which kernel, as a table for docs/kernels.md.

use std::fmt::Write as _;
use std::time::Duration;

use super::Kernel;

/// What stands behind the table.
const NEEDS: &str = include_str!("needs.md");

/// What was seen of a scenario on a kernel.
pub struct Outcome {
    pub kernel: String,
    pub scenario: &'static str,
    pub is_ok: bool,
    /// What was measured or counted, in a few words.
    pub detail: String,
    pub took: Duration,
}

/// A scenario, and what it shows.
pub struct Subject {
    pub name: &'static str,
    pub shows: &'static str,
}

/// Where and when it was run.
pub struct Run {
    /// `2026-11-28`.
    pub date: String,
    /// The service manager's version.
    pub systemd: String,
    pub processors: &'static str,
}

/// The document.
#[must_use]
pub fn document(
    kernels: &[Kernel],
    subjects: &[Subject],
    outcomes: &[Outcome],
    run: &Run,
) -> String {
    let mut text = format!(
        "# Kernels\n\n\
         What was seen on whole machines with Debian's kernels, pure cgroup v2 and systemd. `cargo xtask vm` runs the scenarios and \
         writes this file; this is the run of {}, {}, on {}. A cell has the seconds that the scenario took.\n\n",
        run.date, run.systemd, run.processors
    );
    let header: String = kernels.iter().map(|kernel| format!(" {} |", kernel.name)).collect();
    let line = "---|".repeat(kernels.len());
    let _ = writeln!(text, "| scenario | what it shows |{header}\n|---|---|{line}");
    for subject in subjects {
        let cells: String = kernels
            .iter()
            .map(|kernel| format!(" {} |", cell(outcomes, kernel, subject)))
            .collect();
        let _ = writeln!(text, "| `{}` | {} |{cells}", subject.name, subject.shows);
    }
    let _ = writeln!(text, "\n| kernel | release | package | suite |\n|---|---|---|---|");
    for kernel in kernels {
        let [release, package, version, suite] = kernel.version();
        let name = &kernel.name;
        let _ = writeln!(text, "| {name} | {release} | {package} {version} | {suite} |");
    }
    let details: Vec<&Outcome> = outcomes.iter().filter(|it| !it.detail.is_empty()).collect();
    if !details.is_empty() {
        let _ = writeln!(text, "\n## What was counted\n");
    }
    for outcome in details {
        let Outcome { kernel, scenario, detail, .. } = outcome;
        let _ = writeln!(text, "- {kernel}, `{scenario}`: {detail}");
    }
    text.push('\n');
    text.push_str(NEEDS);
    text
}

fn cell(outcomes: &[Outcome], kernel: &Kernel, subject: &Subject) -> String {
    let is_it = |it: &&Outcome| it.kernel == kernel.name && it.scenario == subject.name;
    match outcomes.iter().find(is_it) {
        None => "–".to_owned(),
        Some(outcome) if outcome.is_ok => outcome.took.as_secs().to_string(),
        Some(_) => "**fails**".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_and_what_was_not_run_can_be_told_from_what_works() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("version"), "6.1.0-9 linux-image 6.1.27-1 bookworm\n")
            .unwrap();
        let kernel = Kernel { name: "6.1".to_owned(), dir: dir.path().to_owned() };
        let subject = |name| Subject { name, shows: "something" };
        let outcome = |scenario, is_ok| {
            let took = Duration::from_secs(7);
            Outcome { kernel: "6.1".to_owned(), scenario, is_ok, detail: String::new(), took }
        };
        let run = Run {
            date: "2026-01-02".to_owned(),
            systemd: "systemd 257".to_owned(),
            processors: "KVM",
        };
        let text = document(
            &[kernel],
            &[subject("a"), subject("b"), subject("c")],
            &[outcome("a", true), outcome("b", false)],
            &run,
        );
        for row in [
            "| `a` | something | 7 |",
            "| `b` | something | **fails** |",
            "| `c` | something | – |",
            "| 6.1 | 6.1.0-9 | linux-image 6.1.27-1 | bookworm |",
        ] {
            assert!(text.contains(row), "{row} in\n{text}");
        }
    }
}
