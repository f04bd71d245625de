//! `sheath certs` as people read it.

use serde_json::Value;

use super::{list, state, text};
use crate::terminal::{Cell, Table};

/// Renders a document of certificates for a terminal.
#[must_use]
pub fn render(certificates: &Value) -> String {
    let own = own(list(&certificates["certificates"]));
    let trust = trust(list(&certificates["trust"]));
    let files = list(&certificates["files"]);
    let files = if files.is_empty() { String::new() } else { format!("\n{}", of_files(files)) };
    format!("{own}\n{trust}{files}")
}

/// True if every certificate is good and fresh, and every file could be read.
#[must_use]
pub fn are_well(certificates: &Value) -> bool {
    let is_ok = |row: &Value| row["state"] == "ok" && row["problem"].is_null();
    let is_read = |row: &Value| row["problem"].is_null();
    list(&certificates["certificates"]).iter().all(is_ok)
        && list(&certificates["files"]).iter().all(is_read)
}

fn own(rows: &[Value]) -> Table {
    let mut table = Table::new([
        "NAME",
        "STATE",
        "SOURCE",
        "NOT BEFORE",
        "NOT AFTER",
        "NEXT RENEWAL",
        "ISSUER",
        "SERIAL",
        "SPIFFE ID",
    ]);
    for row in rows {
        table.row([
            text(&row["name"]).into(),
            state(&row["state"]),
            text(&row["source"]).into(),
            text(&row["not_before"]).into(),
            text(&row["not_after"]).into(),
            text(&row["next_renewal"]).into(),
            text(&row["issuer"]).into(),
            text(&row["serial"]).into(),
            text(&row["spiffe_id"]).into(),
        ]);
        problem(&mut table, row);
    }
    table
}

fn trust(rows: &[Value]) -> Table {
    let mut table =
        Table::new(["WORKLOAD", "TRUST DOMAIN", "CRLS", "      AGE", "NOT AFTER", "AUTHORITY"]);
    for row in rows {
        for authority in list(&row["authorities"]) {
            let (subject, serial) = (text(&authority["subject"]), text(&authority["serial"]));
            table.row([
                text(&row["workload"]).into(),
                text(&row["trust_domain"]).into(),
                Cell::new(if row["revocation"] == true { "yes" } else { "no" }),
                age(row),
                text(&authority["not_after"]).into(),
                format!("{subject} ({serial})").into(),
            ]);
        }
    }
    table
}

fn of_files(rows: &[Value]) -> Table {
    let mut table =
        Table::new(["FILE", "KIND", "ENTRIES", "      AGE", "THIS UPDATE", "NEXT UPDATE"]);
    for row in rows {
        let entries = row["entries"].as_u64().map_or("-".to_owned(), |entries| entries.to_string());
        table.row([
            text(&row["path"]).into(),
            text(&row["kind"]).into(),
            format!("{entries:>7}").into(),
            age(row),
            text(&row["this_update"]).into(),
            text(&row["next_update"]).into(),
        ]);
        problem(&mut table, row);
    }
    table
}

fn age(row: &Value) -> Cell {
    let age = row["age_seconds"].as_u64().map_or("-".to_owned(), |age| format!("{age} s"));
    format!("{age:>9}").into()
}

fn problem(table: &mut Table, row: &Value) {
    if let Some(problem) = row["problem"].as_str() {
        table.note(problem);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shows_states_problems_and_ages() {
        let view = json!({
            "certificates": [{
                "name": "web", "state": "stale", "source": "spire", "serial": "4f", "issuer": "CN=x",
                "not_before": "2030-01-01T00:00:00Z", "not_after": "2030-01-02T00:00:00Z",
                "spiffe_id": "spiffe://example.org/web", "problem": "SPIRE is away",
            }],
            "trust": [{
                "workload": "web", "trust_domain": "example.org", "revocation": true,
                "authorities": [{"subject": "CN=root", "serial": "01", "not_after": "2040-01-01T00:00:00Z"}],
            }],
            "files": [{"path": "/x.crl", "kind": "crl", "entries": 2, "age_seconds": 7}],
        });
        let text = render(&view);
        for expected in ["stale", "  SPIRE is away", "CN=root (01)", "yes", "/x.crl", "7 s"] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(text.contains("\x1b[33mstale"));
        assert!(!are_well(&view));
        assert!(are_well(&json!({
            "certificates": [{"state": "ok", "problem": null}], "files": [{"path": "x", "problem": null}],
        })));
        assert!(!are_well(&json!({"certificates": [], "files": [{"problem": "is gone"}]})));
    }
}
