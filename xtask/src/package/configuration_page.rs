//! The page sheath.yaml(5), made from the README's tables of keys and limits. A test holds these against the keys that the
//! agent reads.

use std::fmt::Write;

use anyhow::{Context, Result, anyhow, ensure};

use super::VERSION;
use super::tree::read;
use crate::workspace;

const README: &str = "README.md";
const EXAMPLE: &str = "deploy/sheath.example.yaml";

/// The page, in the format of man(7).
///
/// # Errors
/// When the README or the example is not as expected.
pub fn render() -> Result<String> {
    let readme = text(README)?;
    let keys = section(&readme, "## Configuration")?;
    let limits = section(&readme, "### Limits")?;
    let mut page = format!(
        ".TH sheath.yaml 5 \"\" \"sheath {VERSION}\" Sheath
.SH NAME
sheath.yaml \\- configuration of the agent of sheath(8)
.SH SYNOPSIS
.I /etc/sheath/sheath.yaml
.SH DESCRIPTION
What the agent protects, by which identities, and whom it believes, in YAML.
"
    );
    for paragraph in paragraphs(keys) {
        write!(page, ".PP\n{}\n", line(&inline(&paragraph)))?;
    }
    page.push_str(".SH KEYS\n");
    for [key, meaning, default] in rows(keys)? {
        write!(page, ".TP\n{}\n{}\n", line(&inline(&key)), line(&inline(&meaning)))?;
        if !default.is_empty() {
            write!(page, ".br\nDefault: {}\n", inline(&default))?;
        }
    }
    page.push_str(".SH LIMITS\n");
    for row in rows(limits)? {
        let [limit, most, beyond] = row.map(|cell| line(&inline(&cell)));
        write!(page, ".TP\n{limit}\n{most}\n.br\nBeyond: {beyond}\n")?;
    }
    page.push_str(".SH EXAMPLE\n.nf\n");
    for text in text(EXAMPLE)?.lines() {
        writeln!(page, "{}", line(&escape(text)))?;
    }
    page.push_str(
        ".fi
.SH SEE ALSO
sheath(8), sheath\\-check(8); identity.md, kubernetes.md and wire.md in
.IR /usr/share/doc/sheath/docs .
",
    );
    Ok(page)
}

fn text(path: &str) -> Result<String> {
    String::from_utf8(read(&workspace::root().join(path))?).with_context(|| format!("{path}: text"))
}

/// What stands below a heading, up to the next one.
fn section<'t>(text: &'t str, heading: &str) -> Result<&'t str> {
    let found = text.split_once(&format!("\n{heading}\n"));
    let (_, rest) = found.with_context(|| format!("{README} has no `{heading}`"))?;
    Ok(rest.split_once("\n#").map_or(rest, |(section, _)| section))
}

/// Those that are no table.
fn paragraphs(section: &str) -> Vec<String> {
    let is_prose = |paragraph: &&str| !paragraph.is_empty() && !paragraph.starts_with('|');
    section
        .split("\n\n")
        .map(str::trim)
        .filter(is_prose)
        .map(|paragraph| paragraph.replace('\n', " "))
        .collect()
}

/// The rows of a section's table, without its head: three cells each.
fn rows(section: &str) -> Result<Vec<[String; 3]>> {
    let cells = |row: &str| {
        let cells = row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
        let cells = <[String; 3]>::try_from(cells.collect::<Vec<_>>());
        cells.map_err(|found| anyhow!("{README}: {} cells instead of three: {row}", found.len()))
    };
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let rows: Vec<[String; 3]> = rows.map(cells).collect::<Result<_>>()?;
    ensure!(!rows.is_empty(), "{README}: a section without a table");
    Ok(rows)
}

/// Markdown within a paragraph: code is bold, and of a link its words remain.
fn inline(text: &str) -> String {
    let mut out = String::new();
    for (number, part) in text.split('`').enumerate() {
        if number % 2 == 1 {
            // What somebody types.
            let _ = write!(out, "\\fB{}\\fR", escape(part).replace('-', "\\-"));
        } else {
            out.push_str(&escape(part));
        }
    }
    without_targets(&out)
}

/// `[words](target)` without brackets and target. `[]` is none, and stands for a list.
fn without_targets(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((words, after)) = rest.split_once("](") {
        let Some((before, words)) = words.rsplit_once('[') else {
            break;
        };
        let Some((_, after)) = after.split_once(')') else {
            break;
        };
        out.push_str(before);
        out.push_str(words);
        rest = after;
    }
    out + rest
}

/// Text that groff(7) is to show as it is.
fn escape(text: &str) -> String {
    text.replace('\\', "\\e")
}

/// A line that is no request, whatever it begins with.
fn line(text: &str) -> String {
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    /// The names of all keys that the agent reads: of the structs that the file is read into.
    fn keys() -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        let dir = workspace::root().join("agent/src/config/raw");
        for file in fs::read_dir(dir).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            for item in text.split("#[derive(").skip(1) {
                let Some((_, fields)) = item.split_once("pub struct ") else { continue };
                let mut renamed = None;
                for line in fields.lines().take_while(|line| *line != "}") {
                    let rename =
                        line.split_once("rename = \"").and_then(|(_, it)| it.split_once('"'));
                    renamed = rename.map(|(name, _)| name.to_owned()).or(renamed);
                    let field = line.strip_prefix("    pub ").and_then(|it| it.split_once(": "));
                    if let Some((name, _)) = field {
                        keys.insert(renamed.take().unwrap_or_else(|| camel_case(name)));
                    }
                }
            }
        }
        keys
    }

    fn camel_case(name: &str) -> String {
        let mut words = name.split('_');
        let first = words.next().unwrap().to_owned();
        words.fold(first, |name, word| name + &word[..1].to_uppercase() + &word[1..])
    }

    fn has_word(text: &str, word: &str) -> bool {
        let is_inside = |c: char| c.is_alphanumeric() || c == '_';
        text.match_indices(word).any(|(at, _)| {
            !text[..at].ends_with(is_inside) && !text[at + word.len()..].starts_with(is_inside)
        })
    }

    #[test]
    fn every_key_that_the_agent_reads_is_in_the_page_or_in_the_documents_that_it_names() {
        let keys = keys();
        for known in ["trustDomain", "match", "handshakesPerSecond", "allowReadableKey"] {
            assert!(keys.contains(known), "{known}: not read from the sources");
        }
        // A change of the font is no part of a word.
        let page = render().unwrap().replace("\\fB", " ").replace("\\fR", " ");
        let documents =
            ["identity", "kubernetes"].map(|name| text(&format!("docs/{name}.md")).unwrap());
        for key in &keys {
            let is_told =
                [&page, &documents[0], &documents[1]].iter().any(|text| has_word(text, key));
            assert!(is_told, "`{key}` is described nowhere");
        }
    }

    #[test]
    fn every_section_of_the_file_is_in_the_page() {
        let source = text("agent/src/config/raw/mod.rs").unwrap();
        let (_, fields) = source.split_once("pub struct Config {").unwrap();
        let page = render().unwrap();
        let names = fields.lines().take_while(|line| *line != "}");
        let names = names.filter_map(|line| line.strip_prefix("    pub ")?.split_once(": "));
        let names: Vec<String> = names.map(|(name, _)| camel_case(name)).collect();
        assert!(names.len() > 15, "{names:?}");
        for name in names {
            let is_there =
                ["", ".", "[]"].iter().any(|end| page.contains(&format!("\n\\fB{name}{end}")));
            assert!(is_there, "no entry for `{name}`");
        }
    }

    #[test]
    fn markdown_becomes_what_man_understands() {
        assert_eq!(inline("a [link](docs/x.md#y) to `--code`"), "a link to \\fB\\-\\-code\\fR");
        assert_eq!(inline("`peers[].match`, `[::]:1`"), "\\fBpeers[].match\\fR, \\fB[::]:1\\fR");
        assert_eq!(inline("[`externalPeers`](#x) \\ y"), "\\fBexternalPeers\\fR \\e y");
        assert_eq!(line(".x"), "\\&.x");
        assert_eq!(line("x."), "x.");
    }

    #[test]
    fn a_row_without_three_cells_is_an_error_that_names_it() {
        let table = "| key | meaning | default |\n|---|---|---|\n| `a` | b | c |\n";
        assert_eq!(rows(table).unwrap(), [["`a`", "b", "c"]]);
        let error = rows(&format!("{table}| `d` | e |\n")).unwrap_err().to_string();
        assert!(error.contains("`d`"), "{error}");
    }
}
