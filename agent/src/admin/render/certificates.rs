//! `sheath certs` as people read it.

use std::fmt::Write;

use serde_json::Value;

use super::{Paint, list, text, width};

/// Renders a document of certificates for a terminal.
#[must_use]
pub fn render(certificates: &Value, colours: bool) -> String {
    let mut out = String::new();
    own(&mut out, Paint(colours), list(&certificates["certificates"]));
    trust(&mut out, list(&certificates["trust"]));
    files(&mut out, list(&certificates["files"]));
    out
}

/// True if every certificate is good and fresh, and every file could be read.
#[must_use]
pub fn are_well(certificates: &Value) -> bool {
    let is_ok = |row: &Value| row["state"] == "ok" && row["problem"].is_null();
    let is_read = |row: &Value| row["problem"].is_null();
    list(&certificates["certificates"]).iter().all(is_ok)
        && list(&certificates["files"]).iter().all(is_read)
}

fn own(out: &mut String, paint: Paint, rows: &[Value]) {
    let (names, issuers) = (width(rows, "name", 4), width(rows, "issuer", 6));
    let _ = writeln!(
        out,
        "{:<names$}  {:<10}  {:<6}  {:<20}  {:<20}  {:<20}  {:<issuers$}  {:<32}  SPIFFE ID",
        "NAME", "STATE", "SOURCE", "NOT BEFORE", "NOT AFTER", "NEXT RENEWAL", "ISSUER", "SERIAL"
    );
    for row in rows {
        let _ = writeln!(
            out,
            "{:<names$}  {}  {:<6}  {:<20}  {:<20}  {:<20}  {:<issuers$}  {:<32}  {}",
            text(&row["name"]),
            paint.state(text(&row["state"])),
            text(&row["source"]),
            text(&row["not_before"]),
            text(&row["not_after"]),
            text(&row["next_renewal"]),
            text(&row["issuer"]),
            text(&row["serial"]),
            text(&row["spiffe_id"]),
        );
        problem(out, row);
    }
}

fn trust(out: &mut String, rows: &[Value]) {
    let (workloads, domains) = (width(rows, "workload", 8), width(rows, "trust_domain", 12));
    let _ = writeln!(
        out,
        "\n{:<workloads$}  {:<domains$}  {:<4}  {:>9}  {:<20}  AUTHORITY",
        "WORKLOAD", "TRUST DOMAIN", "CRLS", "AGE", "NOT AFTER"
    );
    for row in rows {
        for authority in list(&row["authorities"]) {
            let _ = writeln!(
                out,
                "{:<workloads$}  {:<domains$}  {:<4}  {:>9}  {:<20}  {} ({})",
                text(&row["workload"]),
                text(&row["trust_domain"]),
                if row["revocation"] == true { "yes" } else { "no" },
                age(row),
                text(&authority["not_after"]),
                text(&authority["subject"]),
                text(&authority["serial"]),
            );
        }
    }
}

fn files(out: &mut String, rows: &[Value]) {
    if rows.is_empty() {
        return;
    }
    let paths = width(rows, "path", 4);
    let _ = writeln!(
        out,
        "\n{:<paths$}  {:<12}  {:>7}  {:>9}  {:<20}  NEXT UPDATE",
        "FILE", "KIND", "ENTRIES", "AGE", "THIS UPDATE"
    );
    for row in rows {
        let entries = row["entries"].as_u64().map_or("-".to_owned(), |entries| entries.to_string());
        let _ = writeln!(
            out,
            "{:<paths$}  {:<12}  {entries:>7}  {:>9}  {:<20}  {}",
            text(&row["path"]),
            text(&row["kind"]),
            age(row),
            text(&row["this_update"]),
            text(&row["next_update"]),
        );
        problem(out, row);
    }
}

fn age(row: &Value) -> String {
    row["age_seconds"].as_u64().map_or("-".to_owned(), |age| format!("{age} s"))
}

fn problem(out: &mut String, row: &Value) {
    if let Some(problem) = row["problem"].as_str() {
        let _ = writeln!(out, "  {problem}");
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
        let text = render(&view, false);
        for expected in ["stale", "  SPIRE is away", "CN=root (01)", "yes", "/x.crl", "7 s"] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(render(&view, true).contains("\x1b[33m"));
        assert!(!are_well(&view));
        assert!(are_well(&json!({
            "certificates": [{"state": "ok", "problem": null}], "files": [{"path": "x", "problem": null}],
        })));
        assert!(!are_well(&json!({"certificates": [], "files": [{"problem": "is gone"}]})));
    }
}
