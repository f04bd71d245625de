//! What can be wrong with a configuration file, said in one line.

use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    /// The document does not have the documented form.
    #[error("{}:{line}: {reason}", path.display())]
    Malformed { path: PathBuf, line: u64, reason: String },
    /// The document has the form, but what it says does not fit together.
    #[error("{}: {reason}", path.display())]
    Invalid { path: PathBuf, reason: String },
}

impl ConfigError {
    pub(super) fn invalid(path: &Path, reason: &str) -> Self {
        Self::Invalid { path: path.to_owned(), reason: printable(reason) }
    }

    pub(super) fn malformed(path: &Path, error: &serde_saphyr::Error) -> Self {
        let error = error.without_snippet();
        Self::Malformed {
            path: path.to_owned(),
            line: error.location().map_or(1, |location| location.line()),
            reason: printable(&reason(error)),
        }
    }
}

fn reason(error: &serde_saphyr::Error) -> String {
    if let serde_saphyr::Error::SerdeUnknownField { field, expected, .. } = error {
        let nearest = expected.iter().min_by_key(|candidate| distance(field, candidate));
        return match nearest {
            Some(nearest) => format!("unknown key `{field}`, did you mean `{nearest}`?"),
            None => format!("unknown key `{field}`"),
        };
    }
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

/// Quotes from the file may hold anything. The message stays one line, and nothing that a terminal acts on.
fn printable(text: &str) -> String {
    let escape =
        |c: char| if c.is_control() { c.escape_default().collect() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// Levenshtein distance, ignoring case.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
