//! The report on one workload: collected while it is reconciled, and logged where it has changed.

/// The last report, and what has been found since.
#[derive(Debug, Default)]
pub struct Report {
    said: Findings,
    found: Findings,
}

/// What a report says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Why the workload is not served as configured.
    pub problem: Option<String>,
    /// Notes on the sockets that listen on its ports.
    pub notes: Vec<String>,
}

impl Report {
    /// Begins another one.
    pub fn begin(&mut self, problem: Option<String>) {
        self.found = Findings { problem, notes: Vec::new() };
    }

    /// Notes a problem. Of several, the first is said.
    pub fn problem(&mut self, reason: impl Into<String>) {
        self.found.problem.get_or_insert_with(|| reason.into());
    }

    pub fn note(&mut self, note: String) {
        self.found.notes.push(note);
    }

    /// Completes the report. Returns what is new in it.
    pub fn finish(&mut self) -> Findings {
        let found = std::mem::take(&mut self.found);
        let is_new = |note: &&String| !self.said.notes.contains(note);
        let news = Findings {
            problem: found.problem.clone().filter(|_| found.problem != self.said.problem),
            notes: found.notes.iter().filter(is_new).cloned().collect(),
        };
        self.said = found;
        news
    }

    /// The report as of the last [`Self::finish`].
    pub fn said(&self) -> &Findings {
        &self.said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(problem: Option<&str>, notes: &[&str]) -> Findings {
        let notes = notes.iter().map(ToString::to_string).collect();
        Findings { problem: problem.map(str::to_owned), notes }
    }

    #[test]
    fn what_stays_as_it_was_is_no_news() {
        let mut report = Report::default();
        for (problem, note, news) in [
            (Some("a"), "n", findings(Some("a"), &["n"])),
            (Some("a"), "n", findings(None, &[])),
            (Some("b"), "n", findings(Some("b"), &[])),
            (None, "m", findings(None, &["m"])),
            (Some("b"), "n", findings(Some("b"), &["n"])),
        ] {
            report.begin(problem.map(str::to_owned));
            report.note(note.to_owned());
            assert_eq!(report.finish(), news);
            assert_eq!(*report.said(), findings(problem, &[note]));
        }
    }

    #[test]
    fn the_first_problem_is_said_and_nothing_before_the_end() {
        let mut report = Report::default();
        report.begin(None);
        report.problem("first");
        report.problem("second");
        assert_eq!(*report.said(), Findings::default());
        report.finish();
        assert_eq!(*report.said(), findings(Some("first"), &[]));
    }
}
