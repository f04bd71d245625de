//! A node's agent is killed, and does not come back for a while.

use sheath_tests::cluster::NODES;
use sheath_tests::cluster::helm::{NAMESPACE as SHEATH, Release};
use sheath_tests::wait;

use super::WITHOUT_AGENT;
use super::shop::{LIMIT, NAMESPACE, Shop};
use crate::report::Report;

pub fn nothing_leaks(shop: &Shop<'_>, release: &Release<'_>, report: &mut Report) {
    let [a, _] = NODES;
    let kubectl = shop.cluster.kubectl();
    let tap = shop.tap();
    let agent = release.agent(a).expect("an agent");
    // Kubernetes starts no other, and this one gets no time to end in order.
    let label = format!("{WITHOUT_AGENT}=true");
    kubectl.run(["label", "node", a.as_str(), &label]).expect("a label");
    shop.cluster.kill_pod(a, SHEATH, &agent).expect("a dead agent");
    wait::wait_until("the agent's pod to be gone", LIMIT, || release.agent(a).is_err());
    report.section("The agent of node-a killed with SIGKILL");
    for purchase in shop.buy(NAMESPACE, "deployment/client") {
        report.check(purchase.what, purchase.answer.is_err(), purchase.seen(&shop.secret));
    }
    // Nobody can decide about a new one. It waits for somebody who can.
    shop.apply_client("newcomer", a);
    let words = ["sheath:", "Pods start once it runs"];
    let told = kubectl.wait_event(NAMESPACE, "newcomer", &words, LIMIT);
    let pod = kubectl.get(["pod", "newcomer", &format!("--namespace={NAMESPACE}")]);
    let waits = told.is_ok() && pod.is_ok_and(|pod| pod["status"]["phase"] == "Pending");
    report.check("a new pod", waits, "waits, and its events say why");
    kubectl.run(["label", "node", a.as_str(), &format!("{WITHOUT_AGENT}-")]).expect("no label");
    wait::wait_until("another agent", LIMIT, || release.agent(a).is_ok());
    shop.wait_running("newcomer");
    shop.wait_open("newcomer");
    report.check("all of it, with the next agent", true, "served, the new pod as well");
    let packets = tap.sightings(&shop.secret);
    report.check("packets with the secret", packets == 0, packets.to_string());
}
