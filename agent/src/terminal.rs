//! Tables and colours for people.
//!
//! A table always has its colours. [`anstream::print`] removes them where the output is no terminal, and
//! for users who want none (no-color.org).

use std::fmt::{self, Display};
use std::io::Write;

use anstyle::AnsiColor;
use tabwriter::TabWriter;

/// Rows of aligned cells, and lines of text between them.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
}

#[derive(Debug, Default)]
struct Row {
    cells: Vec<Cell>,
    /// Lines below the row, not aligned with it.
    notes: Vec<String>,
}

/// One cell of a table. Control characters in it are escaped.
#[derive(Clone, Debug)]
pub struct Cell(String);

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Good,
    Doubtful,
    Bad,
}

impl Cell {
    pub fn new(text: impl Display) -> Self {
        Self(harmless(&text.to_string()))
    }

    /// In the colour of how it is.
    pub fn in_mood(text: impl Display, mood: Mood) -> Self {
        let style = match mood {
            Mood::Good => AnsiColor::Green,
            Mood::Doubtful => AnsiColor::Yellow,
            Mood::Bad => AnsiColor::Red,
        }
        .on_default();
        let Self(text) = Self::new(text);
        Self(format!("{style}{text}{style:#}"))
    }
}

impl<T: Display> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

impl Table {
    #[must_use]
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        let mut table = Self::default();
        table.row(headings);
        table
    }

    pub fn row<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) {
        let cells = cells.into_iter().map(Into::into).collect();
        self.rows.push(Row { cells, notes: Vec::new() });
    }

    /// Adds a line below the last row.
    pub fn note(&mut self, text: impl Display) {
        if let Some(row) = self.rows.last_mut() {
            row.notes.push(harmless(&text.to_string()));
        }
    }

    /// The rows alone, aligned.
    fn aligned(&self) -> std::io::Result<String> {
        let mut writer = TabWriter::new(Vec::new()).minwidth(0).padding(2).ansi(true);
        for Row { cells, .. } in &self.rows {
            let cells: Vec<_> = cells.iter().map(|Cell(text)| text.as_str()).collect();
            writeln!(writer, "{}", cells.join("\t"))?;
        }
        writer.flush()?;
        let aligned =
            writer.into_inner().map_err(|error| std::io::Error::other(error.to_string()))?;
        String::from_utf8(aligned).map_err(std::io::Error::other)
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aligned = self.aligned().map_err(|_| fmt::Error)?;
        for (line, Row { notes, .. }) in aligned.lines().zip(&self.rows) {
            writeln!(f, "{}", line.trim_end())?;
            for note in notes {
                writeln!(f, "  {note}")?;
            }
        }
        Ok(())
    }
}

/// Escapes characters that would end a line, begin another cell or command the terminal.
fn harmless(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them_whatever_its_colour() {
        let mut table = Table::new(["NAME", "STATE", "ID"]);
        table.row([Cell::new("wéb"), Cell::in_mood("ok", Mood::Good), Cell::new("1")]);
        table.note("a note that is longer than any cell");
        table.row([Cell::new("database"), Cell::in_mood("missing", Mood::Bad), Cell::new("")]);
        let text = table.to_string();
        assert!(text.contains("\x1b[32mok\x1b[0m") && text.contains("\x1b[31mmissing"), "{text}");
        let expected = "\
NAME      STATE    ID
wéb       ok       1
  a note that is longer than any cell
database  missing
";
        assert_eq!(strip_str(&text).to_string(), expected);
    }

    #[test]
    fn nothing_in_a_cell_reaches_beyond_it() {
        let mut table = Table::new(["NAME", "ID"]);
        table.row(["a\tb\nc\x1b[2J\r", "1"]);
        table.note("x\ny");
        let text = table.to_string();
        assert_eq!(text.lines().count(), 3);
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    }
}
