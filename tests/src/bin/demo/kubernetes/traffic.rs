//! What the applications and the wire see, without Sheath, with it, and after it.

use sheath_tests::cluster::NODES;
use sheath_tests::cluster::agents::TRUST_DOMAIN;
use sheath_tests::cluster::helm::Release;
use sheath_tests::dissect::stream::Stream;
use sheath_tests::tap::Tap;
use sheath_tests::wait;

use super::shop::{ELSEWHERE, HTTP, LIMIT, NAMESPACE, POSTGRES, REDIS, Shop};
use crate::report::Report;

const CLIENT: &str = "deployment/client";

/// The tap is worth something only if it sees the secret when nothing protects it.
pub fn without_sheath(shop: &Shop<'_>, report: &mut Report) {
    report.section("Without Sheath");
    in_plaintext(shop, report);
    // Who never gets anything would not be refused later.
    let bought = shop.buy(ELSEWHERE, "deployment/stranger");
    let seen = bought.each_ref().map(|purchase| purchase.seen(&shop.secret)).join(", ");
    let has_all = bought.iter().all(|purchase| purchase.has(&shop.secret));
    report.check("a pod of another namespace", has_all, seen);
}

/// Once Sheath is gone.
pub fn are_as_before(shop: &Shop<'_>, report: &mut Report) {
    shop.wait_open(CLIENT);
    in_plaintext(shop, report);
}

fn in_plaintext(shop: &Shop<'_>, report: &mut Report) {
    let tap = shop.tap();
    purchases(shop, CLIENT, report);
    let packets = tap.sightings(&shop.secret);
    report.check("packets with the secret", packets > 0, packets.to_string());
}

fn purchases(shop: &Shop<'_>, pod: &str, report: &mut Report) {
    for purchase in shop.buy(NAMESPACE, pod) {
        report.check(purchase.what, purchase.has(&shop.secret), purchase.seen(&shop.secret));
    }
}

pub fn with_sheath(shop: &Shop<'_>, release: &Release<'_>, report: &mut Report) {
    let kubectl = shop.cluster.kubectl();
    let label = ["label", "namespace", NAMESPACE, "sheath.dev/protect=require"];
    kubectl.run(label).expect("a label");
    shop.wait_open(CLIENT);
    report.section("kubectl label namespace shop sheath.dev/protect=require");
    purchases(shop, CLIENT, report);
    let tap = shop.tap();
    // The sessions of the others are older than the tap.
    shop.hire("customer", NODES[0]);
    shop.wait_open("customer");
    wire(shop, &tap, report);
    identities(release, report);
    kubelet(shop, report);
}

fn wire(shop: &Shop<'_>, tap: &Tap, report: &mut Report) {
    let packets = tap.sightings(&shop.secret);
    report.check("packets with the secret", packets == 0, packets.to_string());
    let to = [HTTP, REDIS, POSTGRES].map(|port| tap.streams_to(port));
    let (mut records, mut foreign) = (0, 0);
    let customer = shop.addresses("customer");
    let is_customers = |stream: &&Stream| {
        !stream.bytes.is_empty() && customer.contains(&stream.source.ip().to_string())
    };
    for stream in to.iter().flatten().filter(is_customers) {
        match stream.tls_records() {
            Ok(found) => records += found.len(),
            Err(_) => foreign += 1,
        }
    }
    report.check("TLS records of a new pod's", records > 0, records.to_string());
    report.check("streams of it that are not TLS", foreign == 0, foreign.to_string());
}

fn identities(release: &Release<'_>, report: &mut Report) {
    let id = |account: &str| format!("spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{account}");
    let [a, b] = NODES;
    for (name, node, direction, local, peer) in [
        ("node-a, client -> cache", a, "outbound", id("client"), id("cache")),
        ("node-b, cache <- client", b, "inbound", id("cache"), id("client")),
        ("node-a, client -> db", a, "outbound", id("client"), id("db")),
        ("node-b, db <- client", b, "inbound", id("db"), id("client")),
    ] {
        let found = wait::try_for(LIMIT, || {
            release.access(node).unwrap_or_default().into_iter().find(|flow| {
                flow.is(direction, "ok") && flow.local_id == local && flow.peer_id == peer
            })
        });
        let arrow = if direction == "outbound" { "->" } else { "<-" };
        let seen = match &found {
            Some(flow) => format!("{} {arrow} {}", flow.local_id, flow.peer_id),
            None => "no such flow".to_owned(),
        };
        report.check(name, found.is_some_and(|flow| flow.protection == "mtls"), seen);
    }
}

/// The kubelet asks in plaintext, and is the only one who may.
fn kubelet(shop: &Shop<'_>, report: &mut Report) {
    let space = format!("--namespace={NAMESPACE}");
    let pods = shop.cluster.kubectl().get(["pods", &space]).expect("pods");
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    let statuses = pods
        .iter()
        .flat_map(|pod| pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default());
    let (mut ready, mut restarts, mut all) = (0, 0, 0);
    for status in statuses {
        all += 1;
        ready += usize::from(status["ready"] == true);
        restarts += status["restartCount"].as_u64().unwrap_or(1);
    }
    let seen = format!("{ready} of {all} ready, {restarts} restarted");
    report.check("probes of the kubelet", ready == all && restarts == 0, seen);
}

pub fn strangers(shop: &Shop<'_>, report: &mut Report) {
    report.section("A pod of a namespace without the label");
    for purchase in shop.buy(ELSEWHERE, "deployment/stranger") {
        let refused = purchase.answer.is_err();
        report.check(purchase.what, refused, purchase.seen(&shop.secret));
    }
}
