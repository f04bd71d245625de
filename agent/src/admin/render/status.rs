//! The status as people read it.

use std::fmt::Write;

use serde_json::Value;

use super::{list, metrics, text, workloads};
use crate::terminal::Table;

/// Renders a status document for a terminal.
#[must_use]
pub fn render_status(status: &Value) -> String {
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
    if status["taken_over"].is_object() {
        let _ = writeln!(out, "{}", taken_over(&status["taken_over"]));
    }
    let known = list(&status["workloads"]);
    let _ = write!(out, "\n{}", workloads::table(known));
    workloads::bypassed(&mut out, known);
    if !status["pods"].is_null() {
        let _ = write!(out, "\n{}", pods(&status["pods"]));
    }
    if status["gate"].is_object() {
        let _ = writeln!(out, "\n{}", gate(&status["gate"]));
    }
    if status["directory"].is_object() {
        let _ = writeln!(out, "\n{}", directory(&status["directory"]));
    }
    let resolved = list(&status["names"]);
    if !resolved.is_empty() {
        let _ = write!(out, "\n{}", names(resolved));
    }
    let open = list(&status["problems"]);
    if !open.is_empty() {
        let _ = write!(out, "\n{}", problems(open));
    }
    let _ = writeln!(out);
    metrics::render(&mut out, status);
    out
}

/// True if all programs are in force, and every workload is protected, or waits for its first process.
#[must_use]
pub fn is_well(status: &Value) -> bool {
    let is_protected = |workload: &Value| {
        matches!(text(&workload["state"]), "protected" | "waiting")
            && workload["identity"]["problem"].as_str().is_none_or(str::is_empty)
    };
    list(&status["programs"]).iter().all(|program| program["observed"] == true)
        && list(&status["workloads"]).iter().all(is_protected)
}

/// From which agent this one has taken over.
fn taken_over(from: &Value) -> String {
    let rest = match from["has_ended"] == true {
        true => "has ended",
        false => "ends with the flows that it carries",
    };
    format!(
        "taken over at {} from process {} (version {}), which {rest}: {} flows taken, {} left to it",
        text(&from["at"]),
        from["pid"],
        text(&from["version"]),
        from["flows_taken"],
        from["flows_refused"],
    )
}

/// How pods are decided about, and each pod that nobody has decided about.
fn pods(pods: &Value) -> String {
    let held = list(&pods["held"]);
    let known = if pods["known"] == true { "" } else { "   nothing heard about pods yet" };
    let mut out = format!(
        "pods below {}   decided {}   held {}{known}\n",
        text(&pods["root"]),
        pods["decided"],
        held.len()
    );
    for pod in held {
        let (uid, cgroup) = (text(&pod["uid"]), text(&pod["cgroup"]));
        let _ = writeln!(out, "  {uid} held since {}: {cgroup}", text(&pod["since"]));
        let _ = writeln!(out, "    {}", text(&pod["reason"]));
    }
    if let Some(problem) = pods["problem"].as_str().filter(|problem| !problem.is_empty()) {
        let _ = writeln!(out, "  {problem}");
    }
    if !pods["kubelet"].is_null() {
        kubelet(&mut out, &pods["kubelet"]);
    }
    out
}

/// Whose probes are let through to pods.
fn kubelet(out: &mut String, kubelet: &Value) {
    let _ = match (text(&kubelet["cgroup"]), kubelet["id"].as_u64()) {
        (cgroup, Some(1..)) => writeln!(out, "probes of the kubelet in {cgroup} are let through"),
        _ => writeln!(out, "no probes are let through"),
    };
    if let Some(problem) = kubelet["problem"].as_str().filter(|problem| !problem.is_empty()) {
        let _ = writeln!(out, "  {problem}");
    }
    let others: Vec<_> = list(&kubelet["others"]).iter().map(text).collect();
    if !others.is_empty() {
        let _ = writeln!(out, "  so are connections of {}, in the same cgroup", others.join(", "));
    }
}

/// What DNS names resolve to.
fn names(names: &[Value]) -> Table {
    let mut table = Table::new(["NAME", "ADDRESSES"]);
    for name in names {
        let addresses: Vec<_> = list(&name["addresses"]).iter().map(text).collect();
        let addresses = if addresses.is_empty() { "-".to_owned() } else { addresses.join(", ") };
        table.row([text(&name["name"]), &addresses]);
        if let Some(problem) = name["problem"].as_str().filter(|problem| !problem.is_empty()) {
            table.note(format!("not resolved: {problem}"));
        }
    }
    table
}

/// Who asks before a pod starts.
fn gate(gate: &Value) -> String {
    let counts = format!("{} admitted, {} not", gate["admitted"], gate["not_admitted"]);
    let problem = text(&gate["problem"]);
    match text(&gate["in_force"]) {
        "nri" if gate["plugin_installed"] == true => {
            format!("gate     NRI of {} and CNI, {counts}", text(&gate["runtime"]))
        }
        "nri" => {
            let problem = if problem.is_empty() { "kubernetes.cni is not set" } else { problem };
            format!(
                "gate     NRI of {}, {counts}; after a reboot pods start before the agent: {problem}",
                text(&gate["runtime"])
            )
        }
        "cni" => format!("gate     CNI, {counts}; no NRI: {problem}"),
        _ => format!("gate     none: pods start without being asked about; {problem}"),
    }
}

/// Who is known in the cluster, and as of when.
fn directory(directory: &Value) -> String {
    let mut out = match directory["known"] == true {
        true => format!(
            "directory {} addresses   plain {}   pending {}   protected {}   change {}",
            directory["entries"],
            directory["plain"],
            directory["pending"],
            directory["protected"],
            directory["sequence"],
        ),
        false => {
            "directory: nothing is known yet; all that no rule speaks of is refused".to_owned()
        }
    };
    if directory["current"] != true {
        let since = match text(&directory["heard"]) {
            "-" | "" => "an earlier run of the agent",
            heard => heard,
        };
        let _ = write!(out, "\n  as of {since}: {}", text(&directory["problem"]));
    }
    services(&directory["services"], &mut out);
    out
}

/// Which Services are bypassed or refused, as far as there are any.
fn services(services: &Value, out: &mut String) {
    for bypassed in list(&services["bypassed"]) {
        let service = text(&bypassed["service"]);
        let at: Vec<_> = list(&bypassed["at"]).iter().map(text).collect();
        let _ = match at.is_empty() {
            true => write!(out, "\n  bypassed: nothing, as there is no Service {service}"),
            false => {
                let at = at.join(", ");
                write!(out, "\n  bypassed: {at} (kubernetes.bypassServices: {service})")
            }
        };
    }
    let more = |out: &mut String, all: u64, named: usize| {
        if let Some(more) = all.checked_sub(named as u64).filter(|more| *more > 0) {
            let _ = write!(out, "\n  and {more} more");
        }
    };
    let closed = services["closed"].as_object().into_iter().flatten();
    let named = closed.map(|(address, reason)| {
        let _ = write!(out, "\n  closed: {address}: {}", text(reason));
    });
    let named = named.count();
    more(out, services["closed_addresses"].as_u64().unwrap_or_default(), named);
    let without = list(&services["without_room"]);
    for service in without {
        let _ = write!(out, "\n  no room: {} is refused", text(service));
    }
    more(out, services["services_without_room"].as_u64().unwrap_or_default(), without.len());
}

/// What discoveries cannot find out.
fn problems(problems: &[Value]) -> Table {
    let mut table = Table::new(["DISCOVERY", "OF", "PROBLEM"]);
    for problem in problems {
        table.row(["discovery", "subject", "problem"].map(|field| text(&problem[field])));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use anstream::adapter::strip_str;
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
                "refused": {"kinds": [
                    {"direction": "inbound", "by": "peer", "count": 3, "source": "10.0.0.9:1", "destination": "10.0.0.1:80",
                     "last": "2030-01-01T00:00:00Z", "reason": "a stranger"},
                    {"direction": "outbound", "by": "policy", "count": 1, "source": "127.0.0.1:7", "destination": "10.0.0.2:80",
                     "last": "2030-01-01T00:00:00Z", "reason": "nobody is known"},
                ]},
                "unprotected": [{"local": "10.0.0.1:5", "remote": "10.0.0.2:80"}],
                "network_mounts": [{"kind": "nfs4", "source": "store:/export", "path": "/srv"}],
            }],
            "directory": {
                "known": true, "entries": 9, "plain": 2, "pending": 3, "protected": 4, "sequence": 7,
                "current": false, "heard": "2030-01-01T00:00:00Z", "problem": "nobody answers",
                "services": {
                    "bypassed": [
                        {"service": "kube-system/kube-dns:53", "at": ["10.96.0.10:53"]},
                        {"service": "shop/gone", "at": []},
                    ],
                    "closed": {"10.96.0.7": "two have it"}, "closed_addresses": 3,
                    "without_room": ["shop/big"], "services_without_room": 1,
                },
            },
            "counters": {"connect_protected": 3, "connect_denied": 0},
            "pods": {"root": "/kubepods", "known": false, "decided": 7, "problem": "no room", "held": [
                {"uid": "0a1b", "cgroup": "/kubepods/pod0a1b", "since": "2030-01-01T00:00:00Z", "reason": "nobody knows it"},
            ], "kubelet": {"pid": 0, "cgroup": "/kubelet.service", "id": 7, "others": ["cron", "sh"], "problem": "why"}},
        });
        let text = render_status(&status);
        for expected in [
            "programs 0 of 1",
            "connect_v4 is not in force",
            "strict 80,443",
            "  because",
            "  listens elsewhere",
            "3 inbound refused, the last from 10.0.0.9:1 to 10.0.0.1:80 at 2030-01-01T00:00:00Z: a stranger",
            "1 outbound refused, the last to 10.0.0.2:80 at 2030-01-01T00:00:00Z: nobody is known",
            "unprotected: 10.0.0.1:5 - 10.0.0.2:80",
            "unprotected: nfs4 store:/export on /srv",
            "connect_protected",
            "pods below /kubepods   decided 7   held 1   nothing heard about pods yet",
            "  0a1b held since 2030-01-01T00:00:00Z: /kubepods/pod0a1b\n    nobody knows it\n",
            "  no room",
            "probes of the kubelet in /kubelet.service are let through\n  why\n",
            "  so are connections of cron, sh, in the same cgroup",
            "directory 9 addresses   plain 2   pending 3   protected 4   change 7",
            "  as of 2030-01-01T00:00:00Z: nobody answers",
            "  bypassed: 10.96.0.10:53 (kubernetes.bypassServices: kube-system/kube-dns:53)",
            "  bypassed: nothing, as there is no Service shop/gone",
            "  closed: 10.96.0.7: two have it\n  and 2 more\n  no room: shop/big is refused",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(!text.contains("connect_denied"));
        assert!(text.contains("\x1b[31mdegraded"));
        assert!(!is_well(&status));
    }

    fn with_ports(ports: &[u32]) -> Value {
        json!({
            "programs": [{"observed": true}],
            "workloads": [
                {"name": "web", "state": "protected", "inbound": {"mode": "strict", "ports": ports}},
                {"name": "db", "state": "waiting", "inbound": {"mode": "disabled", "ports": []}},
            ],
        })
    }

    #[test]
    fn a_long_list_of_ports_keeps_the_table_straight() {
        let many: Vec<u32> = (8080..8123).collect();
        for (ports, expected) in [
            (&many[..], "strict 8080,8081 and 41 more  "),
            (&[10_000, 10_001, 10_002, 10_003, 10_004], "strict 10000 and 4 more  "),
            (&[80, 443], "strict 80,443  "),
            (&(1..30).collect::<Vec<_>>(), "strict 1,2,3,4,5 and 24 more  "),
        ] {
            let status = with_ports(ports);
            let text = strip_str(&render_status(&status)).to_string();
            assert!(text.contains(expected), "{expected}\n{text}");
            let column = |line: &str| line.find("OUTBOUND").or(line.find("  -  ").map(|at| at + 2));
            let columns: Vec<_> = text.lines().filter_map(column).collect();
            assert!(columns.windows(2).all(|two| two[0] == two[1]), "{text}");
            assert!(is_well(&status));
        }
    }
}
