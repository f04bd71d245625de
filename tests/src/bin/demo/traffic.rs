//! Honest traffic: what the applications saw, what the wire saw, who the agents say they met.

use sheath_tests::config::spiffe_id;
use sheath_tests::dissect::tls;
use sheath_tests::tap::Tap;
use sheath_tests::wait;
use sheath_tests::world::{FAMILIES, Family};

use crate::report::Report;
use crate::scene::{HTTP, Prelude, REDIS, Scene};

/// The tap is worth something only if it sees the secret when nothing protects it.
pub fn without_sheath(prelude: &Prelude, report: &mut Report) {
    let tap = prelude.world.tap();
    let fetch = prelude.curl(&prelude.client, prelude.http(Family::V4));
    let packets = tap.sightings(&prelude.secret);
    report.section("Without Sheath");
    report.check("curl fetches a secret from nginx", fetch.page == prelude.secret, fetched(&fetch));
    report.check("packets with the secret", packets > 0, packets.to_string());
}

pub fn with_sheath(scene: &Scene, report: &mut Report) {
    let Scene { prelude, .. } = scene;
    let tap = prelude.world.tap();
    applications(prelude, &tap, report);
    wire(&tap, &prelude.secret, report);
    identities(scene, report);
}

fn applications(prelude: &Prelude, tap: &Tap, report: &mut Report) {
    report.section("What the applications saw");
    for family in FAMILIES {
        let target = prelude.http(family);
        let attempts = tap.attempts(HTTP).len();
        let fetch = prelude.curl(&prelude.client, target);
        let name = match family {
            Family::V4 => "curl, IPv4",
            Family::V6 => "curl, IPv6",
        };
        let ok = fetch.page == prelude.secret && fetch.remote == Some(target);
        report.check(name, ok, fetched(&fetch));
        let Some(source) = fetch.local else { continue };
        let logged = wait::try_for(wait::GENEROUS, || {
            prelude.nginx.clients().contains(&source).then_some(())
        });
        let wire = tap.attempts(HTTP).get(attempts).copied();
        let seen = format!("{source}, on the wire {}", wire.map_or("-".into(), |a| a.to_string()));
        report.check("nginx saw the client", logged.is_some() && wire == Some(source), seen);
    }
    let (set, get) =
        (prelude.redis(&["SET", "key", &prelude.secret]), prelude.redis(&["GET", "key"]));
    report.check("redis-cli SET", set == "OK", set);
    report.check("redis-cli GET", get == prelude.secret, format!("{} bytes", get.len()));
}

fn wire(tap: &Tap, secret: &str, report: &mut Report) {
    let (mut streams, mut records, mut foreign) = (0, 0, 0);
    let (mut version, mut offered) = (None, None);
    for stream in tap.streams().into_iter().filter(|stream| !stream.bytes.is_empty()) {
        streams += 1;
        match stream.tls_records() {
            Ok(found) => records += found.len(),
            Err(_) => foreign += 1,
        }
        if [HTTP, REDIS].contains(&stream.destination.port()) {
            offered = tls::alpn_offered(&stream.bytes).or(offered);
        } else {
            version = tls::version_selected(&stream.bytes).or(version);
        }
    }
    let sightings = tap.sightings(secret);
    report.section("What the wire saw");
    report.check("packets with the secret", sightings == 0, sightings.to_string());
    report.check("streams that are not TLS", foreign == 0, format!("{foreign} of {streams}"));
    report.check("TLS records", records > 0, records.to_string());
    let version_text = match version {
        Some(0x0304) => "TLS 1.3".to_owned(),
        Some(other) => format!("{other:#06x}"),
        None => "none".to_owned(),
    };
    report.check("version", version == Some(0x0304), version_text);
    let offered = offered.unwrap_or_default();
    report.check("ALPN", offered.iter().any(|name| name == "sheath/1"), offered.join(", "));
}

fn identities(scene: &Scene, report: &mut Report) {
    report.section("Whom the agents met");
    for (name, agent, direction, ids) in [
        ("node-a, outbound", &scene.agent_a, "outbound", ["client", "web"]),
        ("node-a, outbound", &scene.agent_a, "outbound", ["client", "cache"]),
        ("node-b, inbound", &scene.agent_b, "inbound", ["web", "client"]),
        ("node-b, inbound", &scene.agent_b, "inbound", ["cache", "client"]),
    ] {
        let [local, peer] = ids.map(spiffe_id);
        let line = wait::try_for(wait::GENEROUS, || {
            agent.access().into_iter().find(|line| {
                line.is(direction, "ok") && line.local_id == local && line.peer_id == peer
            })
        });
        let seen = line.as_ref().map_or("no such flow".to_owned(), |line| {
            let arrow = if direction == "outbound" { "->" } else { "<-" };
            format!("{} {arrow} {}", line.local_id, line.peer_id)
        });
        let ok = line.is_some_and(|line| line.protection == "mtls");
        report.check(name, ok, seen);
    }
}

fn fetched(fetch: &crate::scene::Fetch) -> String {
    match (fetch.local, fetch.remote) {
        (Some(local), Some(remote)) if fetch.error.is_empty() => {
            format!("{} bytes, {local} -> {remote}", fetch.bytes)
        }
        _ => fetch.error.clone(),
    }
}
