//! Workloads in the status, as people read it.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::{list, state, text};
use crate::terminal::{Cell, Table};

/// All workloads, with what there is to say of each.
pub fn table(workloads: &[Value]) -> Table {
    let mut table = Table::new([
        "WORKLOAD",
        "STATE",
        "INBOUND",
        "OUTBOUND",
        "FLOWS",
        "SVID UNTIL",
        "SPIFFE ID",
    ]);
    for workload in workloads {
        table.row([
            Cell::new(text(&workload["name"])),
            state(&workload["state"]),
            inbound(workload).into(),
            text(&workload["outbound"]["mode"]).into(),
            format!("{:>5}", workload["flows"].to_string()).into(),
            text(&workload["svid"]["not_after"]).into(),
            text(&workload["spiffe_id"]).into(),
        ]);
        notes(&mut table, workload);
    }
    table
}

/// The notes on a workload.
fn notes(table: &mut Table, workload: &Value) {
    let reason = text(&workload["reason"]);
    if !reason.is_empty() {
        table.note(reason);
    }
    for note in list(&workload["notes"]) {
        table.note(text(note));
    }
    if let Some(problem) = workload["identity"]["problem"].as_str().filter(|p| !p.is_empty()) {
        table.note(format!("identity: {problem}"));
    }
    for kind in list(&workload["refused"]["kinds"]) {
        let is_inbound = text(&kind["direction"]) == "inbound";
        let from = kind["source"].as_str().filter(|_| is_inbound);
        let from = from.map(|source| format!("from {source} ")).unwrap_or_default();
        table.note(format!(
            "{} {} refused, the last {from}to {} at {}: {}",
            kind["count"],
            text(&kind["direction"]),
            text(&kind["destination"]),
            text(&kind["last"]),
            text(&kind["reason"])
        ));
    }
    for connection in list(&workload["unprotected"]) {
        let (local, remote) = (text(&connection["local"]), text(&connection["remote"]));
        table.note(format!("unprotected: {local} - {remote}"));
    }
    for mount in list(&workload["network_mounts"]) {
        table.note(format!(
            "unprotected: {} {} on {} (the kernel's own connections)",
            text(&mount["kind"]),
            text(&mount["source"]),
            text(&mount["path"])
        ));
    }
}

/// Where workloads connect to as they like, each list once: pods have the same.
pub fn bypassed(out: &mut String, workloads: &[Value]) {
    let mut by_list: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for workload in workloads {
        let outbound = &workload["outbound"];
        let named = list(&outbound["bypass"]);
        let mut shown: Vec<_> = named
            .iter()
            .map(|one| format!("{} ({})", text(&one["destination"]), text(&one["origin"])))
            .collect();
        let all = outbound["bypassed"].as_u64().unwrap_or_default();
        if let Some(more) = all.checked_sub(named.len() as u64).filter(|more| *more > 0) {
            shown.push(format!("{more} more"));
        }
        if !shown.is_empty() {
            by_list.entry(shown.join(", ")).or_default().push(text(&workload["name"]));
        }
    }
    for (shown, of) in by_list {
        let whose = match &of[..] {
            [one] => (*one).to_owned(),
            [first, others @ ..] => format!("{first} and {} more", others.len()),
            [] => continue,
        };
        let _ = writeln!(out, "bypassed by {whose}: {shown}");
    }
}

/// Characters of a list of ports before it is cut.
const PORTS_WIDTH: usize = 24;
/// How much of it is shown then.
const FIRST_PORTS: usize = 10;

/// A mode and its ports, as many as fit; `--output json` has them all.
fn inbound(workload: &Value) -> String {
    let mode = text(&workload["inbound"]["mode"]);
    let ports: Vec<String> =
        list(&workload["inbound"]["ports"]).iter().map(Value::to_string).collect();
    let all = ports.join(",");
    if ports.is_empty() {
        let refused = if workload["inbound"]["refused"] == true { " refused" } else { "" };
        return format!("{mode}{refused}");
    }
    if all.len() <= PORTS_WIDTH {
        return format!("{mode} {all}");
    }
    let first = all[..FIRST_PORTS].rfind(',').unwrap_or(FIRST_PORTS);
    let first = &all[..first];
    let shown = first.split(',').count();
    format!("{mode} {first} and {} more", ports.len() - shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_bypassed_is_shown_once_for_all_who_bypass_it() {
        let bypass =
            |destination: &str, origin: &str| json!({"destination": destination, "origin": origin});
        let api = bypass("10.96.0.1/32:443", "API server");
        let pod = |name: &str| {
            let written = bypass("192.0.2.7/32", "kubernetes.bypass");
            json!({"name": name, "outbound": {"bypass": [api, written], "bypassed": 2}})
        };
        let many = json!({"name": "batch", "outbound": {
            "bypass": [bypass("10.0.0.0/8:53", "outbound.bypass")], "bypassed": 5,
        }});
        let none = json!({"name": "db", "outbound": {"bypass": [], "bypassed": 0}});
        let mut out = String::new();
        bypassed(&mut out, &[pod("shop/web-0"), many, none, pod("shop/web-1")]);
        assert_eq!(
            out,
            "bypassed by batch: 10.0.0.0/8:53 (outbound.bypass), 4 more\n\
             bypassed by shop/web-0 and 1 more: 10.96.0.1/32:443 (API server), 192.0.2.7/32 (kubernetes.bypass)\n"
        );
    }
}
