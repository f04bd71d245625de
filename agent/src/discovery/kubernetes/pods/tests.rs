use serde_json::json;

use super::super::testing::{labelled, namespace_object, object, rules, settings};
use super::*;

fn uid(number: u32) -> PodUid {
    format!("00000000-0000-0000-0000-{number:012}").parse().unwrap()
}

/// Pods of whose lists both were read.
fn listed(pods: impl IntoIterator<Item = api::Pod>, label: Option<&str>) -> Pods {
    let mut all = Pods::new(rules(), None);
    list_pods(&mut all, pods);
    list_namespaces(&mut all, label);
    all
}

fn list_pods(all: &mut Pods, pods: impl IntoIterator<Item = api::Pod>) -> bool {
    all.take_pod(Change::Init);
    for pod in pods {
        all.take_pod(Change::InitApply(pod));
    }
    all.take_pod(Change::InitDone)
}

fn list_namespaces(all: &mut Pods, label: Option<&str>) -> bool {
    all.take_namespace(Change::Init);
    all.take_namespace(Change::InitApply(namespace_object("shop", label)));
    all.take_namespace(Change::InitDone)
}

fn desired(all: &Pods) -> Desired {
    all.desired(&settings("/memory".into()))
}

/// The names of workloads, and the pods that are plain; `None` if nothing is said of pods.
fn said(all: &Pods) -> Option<(Vec<String>, Vec<PodUid>)> {
    let desired = desired(all);
    let names = desired.workloads.iter().map(|workload| workload.name.clone()).collect();
    desired.pods.map(|pods| (names, pods.plain.into_iter().collect()))
}

#[test]
fn nothing_is_said_before_both_lists_were_read() {
    let mut all = Pods::new(rules(), None);
    assert!(!list_pods(&mut all, [object(1, |_| {})]));
    assert_eq!(said(&all), None);
    assert!(list_namespaces(&mut all, Some("require")));
    assert_eq!(said(&all), Some((vec!["shop/web-1".to_owned()], vec![])));
}

#[test]
fn a_selected_pod_is_a_workload_with_the_identity_of_its_service_account() {
    let all = listed([object(1, |_| {})], Some("require"));
    let desired = desired(&all);
    let [workload] = &desired.workloads[..] else { panic!("one workload") };
    assert_eq!(workload.cgroup, CgroupSelector::Pod(uid(1)));
    let id = workload.spiffe_id.as_ref().map(ToString::to_string);
    assert_eq!(id.as_deref(), Some("spiffe://example.org/ns/shop/sa/web"));
    assert_eq!(workload.inbound.mode, InboundMode::Strict);
    assert_eq!(workload.outbound.mode, OutboundMode::Require);
    assert!(workload.inbound.ports.is_empty(), "every port");
    assert_eq!(workload.inbound.allow, [IdPattern::AnyOf("example.org".parse().unwrap())]);
    assert_eq!(workload.outbound.bypass.len(), 1);
    assert_eq!(workload.origin.to_string(), "pod shop/web-1");
}

#[test]
fn the_ports_of_a_pods_probes_are_its_workloads_but_not_the_nodes() {
    for (host_network, expected) in [(false, &[8080][..]), (true, &[])] {
        let probed = object(1, |pod| {
            pod["spec"]["hostNetwork"] = json!(host_network);
            let probe = json!({"httpGet": {"port": "http"}});
            let ports = json!([{"name": "http", "containerPort": 8080}, {"containerPort": 9090}]);
            pod["spec"]["containers"] =
                json!([{"name": "main", "ports": ports, "livenessProbe": probe}]);
        });
        let desired = desired(&listed([probed], Some("require")));
        let ports = desired.workloads[0].inbound.probe_ports.iter().copied();
        assert_eq!(ports.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn prefer_is_permissive() {
    let all = listed([object(1, labelled("prefer"))], None);
    let desired = desired(&all);
    let [workload] = &desired.workloads[..] else { panic!("one workload") };
    assert_eq!(workload.inbound.mode, InboundMode::Permissive);
    assert_eq!(workload.outbound.mode, OutboundMode::Prefer);
}

#[test]
fn the_ports_of_the_node_are_not_a_pods() {
    let all = listed([object(1, |pod| pod["spec"]["hostNetwork"] = json!(true))], Some("require"));
    let desired = desired(&all);
    let [workload] = &desired.workloads[..] else { panic!("one workload") };
    assert_eq!(workload.inbound.mode, InboundMode::Disabled);
    assert_eq!(workload.outbound.mode, OutboundMode::Require);
}

#[test]
fn a_pod_that_nobody_selects_is_plain_and_one_that_is_over_is_neither() {
    let over = object(2, |pod| pod["status"]["phase"] = json!("Succeeded"));
    let all = listed([object(1, |_| {}), over], None);
    assert_eq!(said(&all), Some((vec![], vec![uid(1)])));
}

#[test]
fn labels_are_followed() {
    let mut all = listed([object(1, |_| {})], None);
    let label = |label| Change::Apply(namespace_object("shop", label));
    assert!(all.take_namespace(label(Some("require"))));
    assert_eq!(said(&all), Some((vec!["shop/web-1".to_owned()], vec![])));
    assert!(!all.take_namespace(label(Some("require"))), "nothing has changed");
    assert!(all.take_namespace(label(None)));
    assert_eq!(said(&all), Some((vec![], vec![uid(1)])));
    assert!(all.take_pod(Change::Apply(object(1, labelled("require")))));
    assert_eq!(said(&all), Some((vec!["shop/web-1".to_owned()], vec![])));
    assert!(all.take_pod(Change::Delete(object(1, |_| {}))));
    assert_eq!(said(&all), Some((vec![], vec![])));
}

#[test]
fn where_a_label_makes_no_sense_the_last_good_decision_stays() {
    for (before, expected) in
        [(Some("require"), (vec!["shop/web-1".to_owned()], vec![])), (None, (vec![], vec![uid(1)]))]
    {
        let mut all = listed([object(1, |_| {})], before);
        assert!(all.take_namespace(Change::Apply(namespace_object("shop", Some("requrie")))));
        assert_eq!(said(&all).as_ref(), Some(&expected));
        // Nothing was ever decided about this one: it waits.
        assert!(all.take_pod(Change::Apply(object(2, |_| {}))));
        assert_eq!(said(&all).as_ref(), Some(&expected));
        let problem = all.problems()["shop/web-2"].to_string();
        assert_eq!(
            problem,
            "of its namespace, the label sheath.dev/protect is `requrie`; write `require`, `prefer` or `false`"
        );
    }
}

#[test]
fn a_pod_of_an_unknown_namespace_waits_for_it() {
    let stray = object(1, |pod| pod["metadata"]["namespace"] = json!("new"));
    let mut all = listed([stray], None);
    assert_eq!(said(&all), Some((vec![], vec![])));
    assert_eq!(all.problems()["new/web-1"].to_string(), "its namespace is not known yet");
    assert!(all.take_namespace(Change::Apply(namespace_object("new", Some("prefer")))));
    assert_eq!(said(&all), Some((vec!["new/web-1".to_owned()], vec![])));
    assert!(all.problems().is_empty());
}

#[test]
fn what_is_no_pod_changes_nothing_and_is_told() {
    let mut all = listed([object(1, |_| {})], Some("require"));
    let broken = object(1, |pod| pod["status"]["podIP"] = json!("nowhere"));
    all.take_pod(Change::Apply(broken));
    assert_eq!(said(&all), Some((vec!["shop/web-1".to_owned()], vec![])));
    let problem = all.problems()["shop/web-1"].to_string();
    assert_eq!(problem, "the pod shop/web-1 has `nowhere` for an address");
    assert!(
        all.take_pod(Change::Apply(object(1, |pod| pod["status"]["podIP"] = json!("10.0.0.1"))))
    );
    assert!(all.problems().is_empty());
}

#[test]
fn what_an_earlier_agent_knew_is_good_until_more_is_known() {
    let known = listed([object(1, |_| {}), object(2, labelled("prefer"))], None).known();
    let mut all = Pods::new(rules(), Some(known.clone()));
    let expected = Some((vec!["shop/web-2".to_owned()], vec![uid(1)]));
    assert_eq!(said(&all), expected);
    assert_eq!(all.known(), known);
    // One list alone tells too little.
    list_pods(&mut all, [object(3, |_| {})]);
    assert_eq!(said(&all), expected);
    list_namespaces(&mut all, Some("require"));
    assert_eq!(said(&all), Some((vec!["shop/web-3".to_owned()], vec![])));
}

/// Otherwise a restart of the agent would forget it, and the pod would be held.
#[test]
fn a_decision_that_stays_for_want_of_a_better_one_outlives_the_agent() {
    let mut all = listed([object(1, |_| {})], Some("require"));
    all.take_namespace(Change::Apply(namespace_object("shop", Some("typo"))));
    let mut next = Pods::new(rules(), Some(all.known()));
    list_pods(&mut next, [object(1, |_| {})]);
    list_namespaces(&mut next, Some("typo"));
    assert_eq!(said(&next), Some((vec!["shop/web-1".to_owned()], vec![])));
}

#[test]
fn the_order_in_which_pods_were_heard_of_does_not_matter() {
    let one = listed([object(1, |_| {}), object(2, |_| {})], Some("require"));
    let other = listed([object(2, |_| {}), object(1, |_| {})], Some("require"));
    assert_eq!(said(&one), said(&other));
}
