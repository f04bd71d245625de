//! kube-proxy's rules as a table: its documented behaviour, and the cases of its own test (`pkg/proxy/topology_test.go`).

use super::*;
use crate::services::testing::{
    Placed, at, conditioned, ending, endpoint, here, hinted, node, unready,
};

type Case<'c> = (&'c str, Option<&'c str>, Vec<Placed>, &'c [&'c str], &'c [&'c str]);

/// The endpoints that kube-proxy would send clients to, of a tier.
fn first(tiers: &Tiers) -> Vec<String> {
    let first = tiers.iter().next().unwrap_or_default();
    first.iter().map(|backend| backend.at.ip().to_string()).collect()
}

fn endpoints(all: &[Placed]) -> Endpoints<'_> {
    all.iter().map(|(address, endpoint)| (SocketAddr::new(*address, 80), endpoint)).collect()
}

fn zoned(number: u8, zones: &[&str]) -> Placed {
    hinted(endpoint(&format!("10.0.0.{number}")), zones, &[])
}

/// The zone of the node, endpoints, and whom clients are sent to: by traffic policy Cluster, and by Local.
fn cases() -> Vec<Case<'static>> {
    let (a, b) = (Some("zone-a"), Some("zone-b"));
    vec![
        ("no endpoints", a, vec![], &[], &[]),
        ("ready ones", a, vec![unready("10.0.0.1"), endpoint("10.0.0.2")], &["10.0.0.2"], &[]),
        ("none is ready", a, vec![unready("10.0.0.1")], &[], &[]),
        (
            "some are on this node",
            a,
            vec![here(endpoint("10.0.0.1")), endpoint("10.0.0.2")],
            &["10.0.0.1", "10.0.0.2"],
            &["10.0.0.1"],
        ),
        ("none is on this node", a, vec![endpoint("10.0.0.1")], &["10.0.0.1"], &[]),
        (
            "one that ends is not called while another is ready",
            a,
            vec![ending("10.0.0.1"), endpoint("10.0.0.2")],
            &["10.0.0.2"],
            &[],
        ),
        (
            "all end: those that answer",
            a,
            vec![here(ending("10.0.0.1")), ending("10.0.0.2"), unready("10.0.0.3")],
            &["10.0.0.1", "10.0.0.2"],
            &["10.0.0.1"],
        ),
        (
            "each policy falls back by itself",
            a,
            vec![endpoint("10.0.0.1"), here(ending("10.0.0.2"))],
            &["10.0.0.1"],
            &["10.0.0.2"],
        ),
        (
            "one that ends and does not answer is never called",
            a,
            vec![conditioned(endpoint("10.0.0.1"), false, false, true)],
            &[],
            &[],
        ),
        (
            "not ready but published: `ready` is all that counts",
            a,
            vec![conditioned(endpoint("10.0.0.1"), true, false, true)],
            &["10.0.0.1"],
            &[],
        ),
        (
            "hints for zones",
            a,
            vec![zoned(1, &["zone-a"]), zoned(2, &["zone-b"]), zoned(3, &["zone-c", "zone-a"])],
            &["10.0.0.1", "10.0.0.3"],
            &[],
        ),
        (
            "policy Local ignores hints",
            a,
            vec![here(zoned(1, &["zone-b"])), zoned(2, &["zone-a"])],
            &["10.0.0.2"],
            &["10.0.0.1"],
        ),
        ("the node has no zone", None, vec![zoned(1, &["zone-a"])], &["10.0.0.1"], &[]),
        ("no hint for this zone", b, vec![zoned(1, &["zone-a"])], &["10.0.0.1"], &[]),
        (
            "a hint is missing",
            a,
            vec![zoned(1, &["zone-a"]), zoned(2, &["zone-b"]), endpoint("10.0.0.3")],
            &["10.0.0.1", "10.0.0.2", "10.0.0.3"],
            &[],
        ),
        (
            "a hint is missing for one that is not ready",
            a,
            vec![zoned(1, &["zone-a"]), zoned(2, &["zone-b"]), unready("10.0.0.3")],
            &["10.0.0.1"],
            &[],
        ),
        (
            "none of the zone is ready",
            a,
            vec![hinted(unready("10.0.0.1"), &["zone-a"], &[]), zoned(2, &["zone-b"])],
            &["10.0.0.2"],
            &[],
        ),
        (
            "hints for nodes come before those for zones",
            a,
            vec![
                hinted(endpoint("10.0.0.1"), &["zone-a"], &["node-a"]),
                hinted(endpoint("10.0.0.2"), &["zone-a"], &["node-b"]),
            ],
            &["10.0.0.1"],
            &[],
        ),
        (
            "no hint for this node: the zone's",
            a,
            vec![
                hinted(endpoint("10.0.0.1"), &["zone-a"], &["node-b"]),
                hinted(endpoint("10.0.0.2"), &["zone-b"], &["node-c"]),
            ],
            &["10.0.0.1"],
            &[],
        ),
        (
            "a hint for nodes is missing: the zone's",
            a,
            vec![
                hinted(endpoint("10.0.0.1"), &["zone-a"], &["node-a"]),
                hinted(endpoint("10.0.0.2"), &["zone-b"], &[]),
            ],
            &["10.0.0.1"],
            &[],
        ),
        (
            "one without any hint: all",
            a,
            vec![hinted(endpoint("10.0.0.1"), &["zone-a"], &["node-a"]), endpoint("10.0.0.2")],
            &["10.0.0.1", "10.0.0.2"],
            &[],
        ),
        (
            "those that end have hints as well, which do not count",
            a,
            vec![
                hinted(ending("10.0.0.1"), &["zone-b"], &[]),
                hinted(ending("10.0.0.2"), &["zone-a"], &[]),
            ],
            &["10.0.0.1", "10.0.0.2"],
            &[],
        ),
    ]
}

#[test]
fn clients_are_sent_where_kube_proxy_sends_them() {
    for (case, zone, all, cluster, local) in cases() {
        let node = Node { zone: zone.map(Into::into), ..node() };
        let endpoints = endpoints(&all);
        assert_eq!(first(&Tiers::anywhere(&endpoints, &node)), cluster, "{case}");
        assert_eq!(first(&Tiers::on_node(&endpoints, &node)), local, "{case}: Local");
    }
}

#[test]
fn what_is_preferred_gives_way_where_it_may_not_be_used() {
    let all =
        [zoned(1, &["zone-a"]), zoned(2, &["zone-b"]), ending("10.0.0.3"), unready("10.0.0.4")];
    let endpoints = endpoints(&all);
    let tiers = Tiers::anywhere(&endpoints, &node());
    let tiers: Vec<Vec<_>> = tiers.iter().map(|tier| tier.iter().map(|b| b.at).collect()).collect();
    let [one, two, three] = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"].map(at);
    assert_eq!(tiers, [vec![one], vec![one, two], vec![three]]);
}

#[test]
fn policy_local_never_gives_way_to_other_nodes() {
    let all = [
        here(endpoint("10.0.0.1")),
        endpoint("10.0.0.2"),
        here(ending("10.0.0.3")),
        ending("10.0.0.4"),
    ];
    let tiers = Tiers::on_node(&endpoints(&all), &node());
    let all: Vec<_> = tiers.iter().flatten().map(|backend| backend.at.ip().to_string()).collect();
    assert_eq!(all, ["10.0.0.1", "10.0.0.3"]);
}
