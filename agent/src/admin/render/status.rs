//! The status as people read it.

use std::fmt::Write;

use serde_json::Value;

use super::{Paint, list, text, width};

/// Renders a status document for a terminal.
#[must_use]
pub fn render_status(status: &Value, colours: bool) -> String {
    let paint = Paint(colours);
    let mut out = String::new();
    let _ = writeln!(
        out,
        "node {}   instance {}   version {}   up {} s   flows {}",
        text(&status["node"]),
        text(&status["instance"]),
        text(&status["version"]),
        status["uptime_seconds"],
        status["flows"],
    );
    let programs = list(&status["programs"]);
    let running = programs.iter().filter(|program| program["observed"] == true).count();
    let _ = writeln!(out, "programs {running} of {} observed in force", programs.len());
    for missing in programs.iter().filter(|program| program["observed"] != true) {
        let _ = writeln!(
            out,
            "  {} is not in force on {}",
            text(&missing["name"]),
            text(&missing["attached_to"])
        );
    }
    workloads(&mut out, paint, list(&status["workloads"]));
    let _ = writeln!(out);
    for (name, value) in status["counters"].as_object().into_iter().flatten() {
        if value != 0 {
            let _ = writeln!(out, "{name:<24} {value:>12}");
        }
    }
    out
}

fn workloads(out: &mut String, paint: Paint, workloads: &[Value]) {
    let (names, ids) = (width(workloads, "name", 8), width(workloads, "spiffe_id", 8));
    let _ = writeln!(
        out,
        "\n{:<names$}  {:<10}  {:<18}  {:<8}  {:>5}  {:<20}  SPIFFE ID",
        "WORKLOAD", "STATE", "INBOUND", "OUTBOUND", "FLOWS", "SVID UNTIL"
    );
    for workload in workloads {
        let ports: Vec<String> =
            list(&workload["inbound"]["ports"]).iter().map(Value::to_string).collect();
        let refused = if workload["inbound"]["refused"] == true { " refused" } else { "" };
        let inbound = match (text(&workload["inbound"]["mode"]), ports.is_empty()) {
            (mode, true) => format!("{mode}{refused}"),
            (mode, false) => format!("{mode} {}", ports.join(",")),
        };
        let _ = writeln!(
            out,
            "{:<names$}  {}  {:<18}  {:<8}  {:>5}  {:<20}  {:<ids$}",
            text(&workload["name"]),
            paint.state(text(&workload["state"])),
            inbound,
            text(&workload["outbound"]["mode"]),
            workload["flows"].to_string(),
            text(&workload["svid"]["not_after"]),
            text(&workload["spiffe_id"]),
        );
        let reason = text(&workload["reason"]);
        if !reason.is_empty() {
            let _ = writeln!(out, "  {reason}");
        }
        for note in list(&workload["notes"]) {
            let _ = writeln!(out, "  {}", text(note));
        }
        if let Some(problem) = workload["identity"]["problem"].as_str().filter(|p| !p.is_empty()) {
            let _ = writeln!(out, "  identity: {problem}");
        }
        for connection in list(&workload["unprotected"]) {
            let _ = writeln!(
                out,
                "  unprotected: {} - {}",
                text(&connection["local"]),
                text(&connection["remote"])
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shows_what_is_wrong_and_aligns_what_is_right() {
        let status = json!({
            "node": "node-a", "instance": "default", "version": "1", "uptime_seconds": 7, "flows": 2,
            "programs": [{"name": "connect_v4", "attached_to": "/c", "observed": false}],
            "workloads": [{
                "name": "web", "state": "degraded", "reason": "because", "flows": 2,
                "inbound": {"mode": "strict", "ports": [80, 443]}, "outbound": {"mode": "require"},
                "svid": {"not_after": "2030-01-01T00:00:00Z"}, "spiffe_id": "spiffe://example.org/web",
                "notes": ["listens elsewhere"],
                "unprotected": [{"local": "10.0.0.1:5", "remote": "10.0.0.2:80"}],
            }],
            "counters": {"connect_protected": 3, "connect_denied": 0},
        });
        let text = render_status(&status, false);
        for expected in [
            "programs 0 of 1",
            "connect_v4 is not in force",
            "strict 80,443",
            "  because",
            "  listens elsewhere",
            "unprotected: 10.0.0.1:5 - 10.0.0.2:80",
            "connect_protected",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(!text.contains("connect_denied") && !text.contains('\x1b'));
        assert!(render_status(&status, true).contains("\x1b[31m"));
    }
}
