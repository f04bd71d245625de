use sheath_common::verdict::Known as Told;

use super::*;
use crate::kubernetes::ServicePort;
use crate::services::testing::{
    at, catalogue, ending, endpoint, here, hinted, name, node, service, slice, sticky,
};

const VIP: &str = "10.96.0.1";

fn put(service: Service) -> Change {
    Change::Service(Arc::new(service))
}

fn part(slice: EndpointSlice) -> Change {
    Change::Slice(Arc::new(slice))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn served(catalogue: &Catalogue, text: &str) -> Option<Arc<Served>> {
    match catalogue.published().at(at(text)) {
        Some(Frontend::Served(served)) => Some(served.clone()),
        _ => None,
    }
}

fn backends(catalogue: &Catalogue, text: &str) -> Vec<String> {
    let served = served(catalogue, text);
    let served = served.iter().flat_map(|served| served.tiers.iter().next().unwrap_or_default());
    served.map(|backend| backend.at.to_string()).collect()
}

#[test]
fn a_service_is_at_each_of_its_addresses_and_ports() {
    let mut catalogue = catalogue();
    let mut web = service("web", VIP);
    web.cluster.insert("fd00::1".parse().unwrap());
    web.external.insert("203.0.113.1".parse().unwrap());
    web.balancers.insert("198.51.100.1".parse().unwrap());
    web.ports.insert(ServicePort { port: 443, name: "tls".into() });
    let changed = catalogue.apply([
        put(web),
        part(slice("a", &[("", 8080), ("tls", 8443)], vec![endpoint("10.1.0.1")])),
        part(slice("b", &[("", 8080)], vec![endpoint("fd00:1::1")])),
    ]);
    assert_eq!(changed.len(), 4);
    for (text, reach, expected) in [
        ("10.96.0.1:80", Reach::Cluster, &["10.1.0.1:8080"][..]),
        ("10.96.0.1:443", Reach::Cluster, &["10.1.0.1:8443"]),
        ("[fd00::1]:80", Reach::Cluster, &["[fd00:1::1]:8080"]),
        ("[fd00::1]:443", Reach::Cluster, &[]),
        ("203.0.113.1:80", Reach::External, &["10.1.0.1:8080"]),
        ("198.51.100.1:443", Reach::Balancer, &["10.1.0.1:8443"]),
    ] {
        assert_eq!(served(&catalogue, text).unwrap().reach, reach, "{text}");
        assert_eq!(backends(&catalogue, text), expected, "{text}");
    }
    assert!(served(&catalogue, "10.96.0.1:81").is_none());
}

#[test]
fn changes_are_published_where_they_are_some() {
    let mut catalogue = catalogue();
    let web = || put(service("web", VIP));
    let of = |endpoints| part(slice("a", &[("", 80)], endpoints));
    assert_eq!(catalogue.apply([web()]), [ip(VIP)].into());
    assert_eq!(catalogue.apply([web()]), [].into());
    assert_eq!(catalogue.apply([of(vec![endpoint("10.1.0.1")])]), [ip(VIP)].into());
    let before = catalogue.published();
    // One that ends is not called while another is there.
    assert_eq!(catalogue.apply([of(vec![endpoint("10.1.0.1")])]), [].into());
    assert!(Arc::ptr_eq(&before, &catalogue.published()));
    let changed = catalogue.apply([of(vec![endpoint("10.1.0.1"), ending("10.1.0.2")])]);
    assert_eq!(changed, [ip(VIP)].into());
    assert_eq!(backends(&catalogue, "10.96.0.1:80"), ["10.1.0.1:80"]);
    let gone = Change::SliceGone(("shop".into(), "a".into()));
    assert_eq!(catalogue.apply([gone]), [ip(VIP)].into());
    assert!(backends(&catalogue, "10.96.0.1:80").is_empty());
    let gone = Change::ServiceGone(name("web"));
    assert_eq!(catalogue.apply([gone]), [ip(VIP)].into());
    assert!(catalogue.published().is_empty() && catalogue.services.is_empty());
}

#[test]
fn endpoints_of_a_slice_change_one_by_one() {
    let mut catalogue = catalogue();
    catalogue.apply([
        put(service("web", VIP)),
        part(slice("a", &[("", 80)], vec![endpoint("10.1.0.1"), endpoint("10.1.0.2")])),
    ]);
    let change = |slice: &str, now, gone: &str| Change::Endpoints {
        slice: ("shop".into(), slice.into()),
        now,
        gone: vec![gone.parse().unwrap()],
    };
    let changed = catalogue.apply([change("a", vec![endpoint("10.1.0.3")], "10.1.0.1")]);
    assert_eq!(changed, [ip(VIP)].into());
    assert_eq!(backends(&catalogue, "10.96.0.1:80"), ["10.1.0.2:80", "10.1.0.3:80"]);
    let unknown = catalogue.apply([change("b", vec![endpoint("10.1.0.4")], "10.1.0.2")]);
    assert_eq!(unknown, [].into());
    let slices: Vec<_> = catalogue.slices().map(|slice| slice.endpoints.len()).collect();
    assert_eq!((catalogue.services().count(), slices), (1, vec![2]));
}

#[test]
fn slices_may_come_before_their_service_and_go_to_another() {
    let mut catalogue = catalogue();
    catalogue.apply([part(slice("a", &[("", 80)], vec![endpoint("10.1.0.1")]))]);
    catalogue.apply([put(service("web", VIP)), put(service("other", "10.96.0.2"))]);
    assert_eq!(backends(&catalogue, "10.96.0.1:80"), ["10.1.0.1:80"]);
    let mut moved = slice("a", &[("", 80)], vec![endpoint("10.1.0.1")]);
    moved.service = name("other");
    catalogue.apply([part(moved)]);
    assert!(backends(&catalogue, "10.96.0.1:80").is_empty());
    assert_eq!(backends(&catalogue, "10.96.0.2:80"), ["10.1.0.1:80"]);
}

#[test]
fn policy_local_holds_at_cluster_addresses_alone() {
    let mut catalogue = catalogue();
    let mut web = Service { is_node_local: true, ..service("web", VIP) };
    web.external.insert("203.0.113.1".parse().unwrap());
    let endpoints = vec![here(endpoint("10.1.0.1")), endpoint("10.1.0.2")];
    catalogue.apply([put(web), part(slice("a", &[("", 80)], endpoints))]);
    assert_eq!(backends(&catalogue, "10.96.0.1:80"), ["10.1.0.1:80"]);
    assert_eq!(backends(&catalogue, "203.0.113.1:80"), ["10.1.0.1:80", "10.1.0.2:80"]);
}

#[test]
fn the_zone_of_the_node_may_change() {
    let mut catalogue = catalogue();
    let endpoints = vec![
        hinted(endpoint("10.1.0.1"), &["zone-a"], &[]),
        hinted(endpoint("10.1.0.2"), &["zone-b"], &[]),
    ];
    catalogue.apply([put(service("web", VIP)), part(slice("a", &[("", 80)], endpoints))]);
    assert_eq!(backends(&catalogue, "10.96.0.1:80"), ["10.1.0.1:80"]);
    catalogue.apply([Change::Node(Node { zone: Some("zone-b".into()), ..node() })]);
    assert_eq!(backends(&catalogue, "10.96.0.1:80"), ["10.1.0.2:80"]);
}

#[test]
fn nobody_takes_the_address_of_another_service() {
    let mut catalogue = catalogue();
    let mut thief = service("thief", "10.96.0.2");
    thief.external.insert(VIP.parse().unwrap());
    catalogue.apply([put(thief.clone()), put(service("web", VIP))]);
    assert_eq!(served(&catalogue, "10.96.0.1:80").unwrap().service, name("web"));
    // Not even while the other has none.
    catalogue.apply([Change::ServiceGone(name("web"))]);
    assert_eq!(served(&catalogue, "10.96.0.1:80").unwrap().reach, Reach::External);
    let mut other = service("other", "10.96.0.3");
    other.external.insert(VIP.parse().unwrap());
    catalogue.apply([put(other)]);
    let published = catalogue.published();
    let claimed = published.at(at("10.96.0.1:80"));
    assert_eq!(claimed, Some(&Frontend::Claimed(name("other"), name("thief"))));
    // One of them gives up.
    catalogue.apply([Change::ServiceGone(name("other"))]);
    assert_eq!(served(&catalogue, "10.96.0.1:80").unwrap().service, name("thief"));
}

#[test]
fn affinity_that_ends_and_begins_is_another() {
    let mut catalogue = catalogue();
    let number = |catalogue: &Catalogue| {
        served(catalogue, "10.96.0.1:80").unwrap().stickiness.map(|s| s.number)
    };
    catalogue.apply([put(sticky(service("web", VIP), 60))]);
    let first = number(&catalogue).unwrap();
    catalogue.apply([put(sticky(service("web", VIP), 90))]);
    assert_eq!(number(&catalogue), Some(first), "only the time is another");
    catalogue.apply([put(service("web", VIP))]);
    assert_eq!(number(&catalogue), None);
    catalogue.apply([put(sticky(service("web", VIP), 60))]);
    assert_ne!(number(&catalogue).unwrap(), first);
}

#[test]
fn source_ranges_are_for_load_balancers_of_their_family() {
    let mut catalogue = catalogue();
    let mut web = service("web", VIP);
    web.cluster.insert("fd00::1".parse().unwrap());
    web.external.insert("203.0.113.1".parse().unwrap());
    web.balancers.extend(["198.51.100.1".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
    web.balancer_clients.insert("10.1.0.0/16".parse().unwrap());
    catalogue.apply([put(web)]);
    let is_guarded = |text| !served(&catalogue, text).unwrap().clients.is_empty();
    assert!(is_guarded("198.51.100.1:80"));
    for text in ["10.96.0.1:80", "203.0.113.1:80", "[fd00::2]:80"] {
        assert!(!is_guarded(text), "{text}");
    }
}

#[test]
fn all_that_there_is_takes_the_place_of_what_was_known() {
    let mut catalogue = catalogue();
    let old = slice("a", &[("", 80)], vec![endpoint("10.1.0.1")]);
    catalogue.apply([
        put(sticky(service("web", VIP), 60)),
        put(service("gone", "10.96.0.9")),
        part(old.clone()),
    ]);
    let kept = served(&catalogue, "10.96.0.1:80").unwrap();
    let services = vec![Arc::new(sticky(service("web", VIP), 60))];
    let changed = catalogue.replace(services.clone(), vec![Arc::new(old)]);
    assert_eq!(changed, [ip("10.96.0.9")].into());
    assert_eq!(served(&catalogue, "10.96.0.1:80").unwrap(), kept, "its clients are remembered");
    let changed = catalogue.replace(services, Vec::new());
    assert_eq!(changed, [ip(VIP)].into());
    assert!(backends(&catalogue, "10.96.0.1:80").is_empty());
}

fn told(catalogue: &Catalogue, address: &str) -> Vec<(u16, Told)> {
    let ports = catalogue.ports_at(&[ip(address)].into());
    ports.iter().flat_map(|(_, ports)| ports.iter().copied()).collect()
}

#[test]
fn the_kernel_refuses_where_nobody_answers() {
    let mut catalogue = catalogue();
    let mut web = service("web", VIP);
    web.ports.insert(ServicePort { port: 443, name: "tls".into() });
    web.foreign.insert(ip("192.0.2.1"));
    let mut thief = service("thief", "10.96.0.2");
    thief.external.insert(ip(VIP));
    thief.ports = [ServicePort { port: 81, name: "".into() }].into();
    catalogue.apply([
        put(web),
        put(thief),
        part(slice("a", &[("", 80)], vec![endpoint("10.1.0.1")])),
    ]);
    let expected = [(80, Told::PROTECT), (81, Told::REFUSE), (443, Told::REFUSE)];
    assert_eq!(told(&catalogue, VIP), expected);
    assert_eq!(told(&catalogue, "192.0.2.1"), [(80, Told::REFUSE), (443, Told::REFUSE)]);
    let closed: Vec<_> = catalogue.published().notes().closed.keys().copied().collect();
    assert_eq!(closed, [ip(VIP), ip("192.0.2.1")]);
    // They give up what is not theirs.
    let web = service("web", VIP);
    let changed = catalogue.apply([put(web), Change::ServiceGone(name("thief"))]);
    assert_eq!(changed, ["10.96.0.1", "10.96.0.2", "192.0.2.1"].map(ip).into());
    assert!(catalogue.published().notes().closed.is_empty());
}

#[test]
fn a_service_is_bypassed_by_its_name_at_the_addresses_that_it_was_given() {
    let bypassed = ["shop/dns:53", "shop/gone"].map(|text| text.parse().unwrap());
    let mut catalogue = catalogue().bypassing(bypassed.into());
    let places = |catalogue: &Catalogue| -> Vec<Vec<SocketAddr>> {
        let published = catalogue.published();
        published.notes().bypassed.iter().map(|(_, places)| places.clone()).collect()
    };
    assert_eq!(places(&catalogue), [vec![], vec![]]);
    let dns = |address: &str| {
        let mut dns = service("dns", address);
        dns.ports = [(53, "dns"), (9153, "metrics")]
            .map(|(port, name)| ServicePort { port, name: name.into() })
            .into();
        // Whoever may write it cannot have others bypassed.
        dns.external.insert(ip("10.96.0.2"));
        dns.balancers.insert(ip("198.51.100.1"));
        put(dns)
    };
    catalogue.apply([dns(VIP), put(service("web", "10.96.0.2"))]);
    assert_eq!(told(&catalogue, VIP), [(53, Told::BYPASS), (9153, Told::REFUSE)]);
    for other in ["10.96.0.2", "198.51.100.1"] {
        assert!(told(&catalogue, other).iter().all(|(_, known)| *known == Told::REFUSE), "{other}");
    }
    assert_eq!(places(&catalogue), [vec![at("10.96.0.1:53")], vec![]]);
    // It is made anew.
    let changed = catalogue.apply([dns("10.96.0.9")]);
    assert!(changed.contains(&ip("10.96.0.9")));
    assert_eq!(told(&catalogue, "10.96.0.9")[0], (53, Told::BYPASS));
    assert!(told(&catalogue, VIP).is_empty());
    catalogue.apply([Change::ServiceGone(name("dns"))]);
    assert_eq!(places(&catalogue), [vec![], vec![]]);
}

#[test]
fn what_there_is_no_room_for_is_closed_and_told() {
    let mut catalogue = catalogue();
    let most = crate::services::room::Limits::default().of_namespace.places;
    let big = |number: usize, created| {
        let mut big = service(&format!("big-{number}"), &format!("10.96.1.{number}"));
        big.external.insert(ip(&format!("203.0.113.{number}")));
        big.ports =
            (1..=1000).map(|port| ServicePort { port, name: format!("p{port}").into() }).collect();
        Service { created, ..big }
    };
    let fit = most / 2000;
    let changes = (1..=fit + 1).map(|number| put(big(number, number as u64)));
    catalogue.apply(changes);
    let newest = format!("10.96.1.{}", fit + 1);
    assert_eq!(told(&catalogue, &newest), [(0, Told::REFUSE)]);
    assert!(told(&catalogue, &format!("203.0.113.{}", fit + 1)).is_empty());
    assert_eq!(told(&catalogue, "10.96.1.1").len(), 1000);
    let without: Vec<_> = catalogue.published().notes().without_room.iter().cloned().collect();
    assert_eq!(without, [name(&format!("big-{}", fit + 1))]);
    // Another one goes, and there is room.
    catalogue.apply([Change::ServiceGone(name("big-1"))]);
    assert_eq!(told(&catalogue, &newest).len(), 1000);
    assert!(catalogue.published().notes().without_room.is_empty());
}
