//! A small world, in which objects meet one another often.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{Caller, Cluster, Named, Subject};
use crate::desired::{Destination, Existing};
use crate::kubernetes::Protection;
use crate::objects::Proved;
use crate::objects::model::authorization_policy::{Account, Rule};
use crate::objects::model::workload_policy::{Inbound, Outbound};
use crate::objects::model::{
    AuthorizationPolicy, IdentityTemplate, Labels, Object, ObjectName, Selector, WorkloadPolicy,
};
use crate::objects::schema::authorization_policy::Action;
use crate::objects::schema::selector as written;
use crate::objects::schema::workload_policy::{InboundMode, OutboundMode, Probes};
use crate::spiffe::{IdPattern, SpiffeId};
use crate::trust::Pin;
use crate::x509::Fingerprint;

/// More than there are in policies.
pub const PORTS: std::ops::RangeInclusive<u16> = 1..=5;

pub fn cluster() -> Cluster {
    Cluster {
        domain: "example.org".parse().unwrap(),
        template: IdentityTemplate::default(),
        system_namespace: "sheath-system".into(),
    }
}

/// A pod.
#[derive(Clone, Debug)]
pub struct Pod {
    namespace: &'static str,
    app: &'static str,
    pub label: Protection,
}

impl Pod {
    pub fn subject<'p>(&'p self, labels: &'p Labels, cluster: &'p Cluster) -> Subject<'p> {
        Subject { namespace: self.namespace, labels, label: self.label, cluster }
    }
}

pub fn labels(pod: &Pod) -> Labels {
    BTreeMap::from([("app".to_owned(), pod.app.to_owned())])
}

pub fn pods() -> impl Strategy<Value = Pod> {
    let label = select(vec![Protection::False, Protection::Prefer, Protection::Require]);
    (select(vec!["a", "b"]), select(vec!["x", "y"]), label)
        .prop_map(|(namespace, app, label)| Pod { namespace, app, label })
}

fn selector() -> impl Strategy<Value = Option<Selector>> {
    let of = |app: &str| {
        let match_labels = BTreeMap::from([("app".to_owned(), app.into())]);
        let spec = written::Selector { match_labels, match_expressions: Vec::new() };
        Selector::parse(&spec).unwrap()
    };
    option::of(select(vec![of("x"), of("y")]))
}

fn modes() -> impl Strategy<Value = InboundMode> {
    select(vec![InboundMode::Disabled, InboundMode::Permissive, InboundMode::Strict])
}

fn inbound() -> impl Strategy<Value = Inbound> {
    (modes(), btree_set(1..=4_u16, 0..3), btree_map(1..=4_u16, modes(), 0..3)).prop_map(
        |(mode, ports, port_modes)| {
            let port_modes = port_modes.into_iter().filter(|(port, _)| !ports.contains(port));
            Inbound { mode, port_modes: port_modes.collect(), ports, tls: None }
        },
    )
}

fn outbound() -> impl Strategy<Value = Outbound> {
    let to = |text: &str| Destination::parse(text).unwrap();
    let all = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.0.0.0/8:80",
        "10.1.2.3:80",
        "10.1.2.3:81",
        "fd00::/8",
    ];
    let mode = select(vec![OutboundMode::Disabled, OutboundMode::Prefer, OutboundMode::Require]);
    (mode, vec(select(all.map(to).to_vec()), 0..4)).prop_map(|(mode, bypass)| match mode {
        OutboundMode::Disabled => Outbound { mode, bypass: Vec::new() },
        mode => Outbound { mode, bypass },
    })
}

/// Addresses and ports on either side of each border between those.
pub fn destinations() -> Vec<(IpAddr, u16)> {
    let addresses = ["10.1.2.3", "10.1.2.4", "10.2.0.1", "11.0.0.1", "fd00::1"];
    let addresses = addresses.map(|text| text.parse::<IpAddr>().unwrap());
    addresses.into_iter().flat_map(|address| [80, 81].map(|port| (address, port))).collect()
}

fn workload_policy() -> impl Strategy<Value = Object> {
    let probes = option::of(select(vec![Probes::Auto, Probes::Refuse]));
    let existing = option::of(select(vec![Existing::Keep, Existing::Reset]));
    (selector(), option::of(inbound()), option::of(outbound()), probes, existing).prop_map(
        |(selector, inbound, outbound, probes, existing)| {
            Object::WorkloadPolicy(WorkloadPolicy { selector, inbound, outbound, probes, existing })
        },
    )
}

const IDS: [&str; 5] = [
    "spiffe://example.org/ns/a/sa/one",
    "spiffe://example.org/ns/a/sa/two",
    "spiffe://example.org/ns/b/sa/one",
    "spiffe://example.org/elsewhere",
    "spiffe://example.com/ns/a/sa/one",
];

fn digest(text: &str) -> Fingerprint {
    Fingerprint::of(text.as_bytes())
}

fn rule() -> impl Strategy<Value = Rule> {
    let any = |domain: &str| IdPattern::AnyOf(domain.parse().unwrap());
    let exact = |id: &str| IdPattern::from(id.parse::<SpiffeId>().unwrap());
    let ids: Vec<_> =
        IDS.map(exact).into_iter().chain(["example.org", "example.com"].map(any)).collect();
    let account = (option::of(select(vec!["a", "b"])), select(vec!["one", "two"]));
    let account = account.prop_map(|(namespace, name)| Account {
        namespace: namespace.map(Into::into),
        name: name.into(),
    });
    let pins = vec![Pin::Certificate(digest("cert 1")), Pin::Spki(digest("key 2"))];
    let ranges =
        ["10.0.0.0/8", "10.1.0.0/16", "fd00::/8"].map(|text| text.parse::<IpNet>().unwrap());
    // Each list is empty more often than not, or no caller would ever be named.
    (
        prop_oneof![3 => Just(Vec::new()), 2 => vec(select(ids), 1..3)],
        prop_oneof![3 => Just(Vec::new()), 2 => vec(account, 1..3)],
        prop_oneof![3 => Just(Vec::new()), 2 => vec(select(["a", "b"].map(Arc::<str>::from).to_vec()), 1..3)],
        prop_oneof![4 => Just(Vec::new()), 1 => vec(select(pins), 1..3)],
        prop_oneof![3 => Just(Vec::new()), 1 => vec(select(ranges.to_vec()), 1..3)],
    )
        .prop_map(|(ids, accounts, namespaces, pins, ranges)| Rule {
            ids,
            accounts,
            namespaces,
            pins,
            ranges,
        })
}

fn authorization_policy() -> impl Strategy<Value = Object> {
    let action = select(vec![Action::Allow, Action::Deny, Action::Audit]);
    (selector(), btree_set(1..=4_u16, 0..3), action, vec(rule(), 1..3)).prop_map(
        |(selector, ports, action, rules)| {
            Object::AuthorizationPolicy(AuthorizationPolicy { selector, ports, action, rules })
        },
    )
}

/// Callers of every kind.
pub fn callers() -> Vec<Caller> {
    let mut proved = vec![None];
    for (number, id) in IDS.iter().map(Some).chain([None]).enumerate() {
        let certificate = digest(&format!("cert {}", number % 3));
        let spki = digest(&format!("key {}", number % 3));
        let id = id.map(|id| id.parse::<SpiffeId>().unwrap());
        for is_client in [false, true] {
            proved.push(Some(Proved { id: id.clone(), certificate, spki, is_client }));
        }
    }
    let addresses =
        ["10.1.2.3", "192.0.2.1", "fd00::1"].map(|text| text.parse::<IpAddr>().unwrap());
    let with = |proved: Option<Proved>| {
        addresses.map(move |address| Caller { proved: proved.clone(), address })
    };
    proved.into_iter().flat_map(with).collect()
}

/// Up to six objects of each of the kinds that policies are made of, in no order.
pub fn all_objects() -> impl Strategy<Value = Vec<Named>> {
    let name = || {
        (select(vec!["a", "b"]), select(vec!["p", "q", "r"]))
            .prop_map(|(namespace, name)| ObjectName::new(namespace, name))
    };
    let policies = btree_map(name(), workload_policy(), 0..6);
    let authorizations = btree_map(name(), authorization_policy(), 0..5);
    (policies, authorizations)
        .prop_map(|(one, other)| one.into_iter().chain(other).collect::<Vec<_>>())
        .prop_shuffle()
}
