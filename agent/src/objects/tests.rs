mod cases;
mod reference;
mod strategies;

use proptest::prelude::*;

use super::*;
use crate::kubernetes::Protection;
use model::{Kind, Malformed, Object, ObjectName, Wrong};
use schema::workload_policy::{InboundMode, OutboundMode};
use strategies::{PORTS, all_objects, callers, cluster, destinations, labels, pods};

/// An object with its name.
type Named = (ObjectName, Object);

fn collected(list: &[Named]) -> Objects {
    let mut objects = Objects::default();
    for (name, object) in list {
        objects.put(name.clone(), object.clone());
    }
    objects
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn modes_and_bypasses_are_those_of_the_reference(list in all_objects(), pod in pods()) {
        let cluster = cluster();
        let labels = labels(&pod);
        let subject = pod.subject(&labels, &cluster);
        let effective = Effective::of(&collected(&list), &subject);
        for port in PORTS {
            let expected = reference::inbound(&list, &subject, port);
            prop_assert_eq!(effective.inbound.at(port), expected, "at port {}", port);
        }
        let expected = reference::outbound(&list, &subject);
        prop_assert_eq!(effective.outbound.mode, expected);
        for (address, port) in destinations() {
            let is_meant = |to: &crate::desired::Destination| {
                to.prefix.contains(&address) && to.port.is_none_or(|only| only == port)
            };
            let is_bypassed = effective.outbound.bypass.iter().any(is_meant);
            let expected = reference::is_bypassed(&list, &subject, (address, port));
            prop_assert_eq!(is_bypassed, expected, "{} {}", address, port);
        }
    }

    #[test]
    fn rulings_are_those_of_the_reference(list in all_objects(), pod in pods()) {
        let cluster = cluster();
        let labels = labels(&pod);
        let subject = pod.subject(&labels, &cluster);
        let authorization = Authorization::of(&collected(&list), &subject);
        for caller in callers() {
            for port in PORTS {
                let ruling = authorization.decide(&caller, port);
                let is_allowed = matches!(ruling, Ruling::Allowed(_));
                let expected = reference::may_call(&list, &subject, &caller, port);
                prop_assert_eq!(is_allowed, expected, "{:?} at {}: {:?}", caller, port, ruling);
                // Who may be refused is looked at.
                if !is_allowed && caller.proved.is_none() {
                    prop_assert!(authorization.refuses_somebody(port));
                }
                let audited = authorization.audit(&caller, port);
                let expected = reference::audited(&list, &subject, &caller, port);
                prop_assert_eq!(audited, expected, "{:?} at {}", caller, port);
            }
        }
    }

    #[test]
    fn the_order_in_which_objects_come_does_not_matter(
        (list, shuffled) in all_objects().prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
        pod in pods(),
    ) {
        let cluster = cluster();
        let labels = labels(&pod);
        let subject = pod.subject(&labels, &cluster);
        let [one, other] = [&list, &shuffled].map(|list| collected(list));
        prop_assert_eq!(Effective::of(&one, &subject), Effective::of(&other, &subject));
    }

    #[test]
    fn an_object_that_is_gone_leaves_nothing_behind(list in all_objects(), pod in pods(), at: prop::sample::Index) {
        prop_assume!(!list.is_empty());
        let (name, object) = &list[at.index(list.len())];
        let mut without = collected(&list);
        without.remove(object.kind(), name);
        let others = list.iter().filter(|(other, of)| (other, of.kind()) != (name, object.kind()));
        let others: Vec<_> = others.cloned().collect();
        prop_assert_eq!(&without, &collected(&others));
        // And one that comes, changes nothing when it goes.
        let before = without.clone();
        without.put(name.clone(), object.clone());
        without.remove(object.kind(), name);
        prop_assert_eq!(&without, &before);
        let cluster = cluster();
        let labels = labels(&pod);
        let subject = pod.subject(&labels, &cluster);
        prop_assert_eq!(Effective::of(&without, &subject), Effective::of(&before, &subject));
    }

    #[test]
    fn a_label_is_a_floor_but_for_exceptions(list in all_objects(), pod in pods()) {
        let cluster = cluster();
        let labels = labels(&pod);
        let subject = pod.subject(&labels, &cluster);
        let effective = Effective::of(&collected(&list), &subject);
        let least = match pod.label {
            Protection::Require => (InboundMode::Strict, OutboundMode::Require),
            Protection::Prefer => (InboundMode::Permissive, OutboundMode::Prefer),
            Protection::False => (InboundMode::Disabled, OutboundMode::Disabled),
        };
        prop_assert!(effective.inbound.mode >= least.0 && effective.outbound.mode >= least.1);
        for port in PORTS {
            if !reference::is_exception(&list, &subject, port) {
                prop_assert!(effective.inbound.at(port) >= least.0, "at port {}", port);
            }
        }
    }

    #[test]
    fn what_nobody_can_read_is_strict_and_lets_nobody_in(list in all_objects(), pod in pods(), is_policy: bool) {
        let cluster = cluster();
        let labels = labels(&pod);
        let subject = pod.subject(&labels, &cluster);
        let mut objects = collected(&list);
        let kind = if is_policy { Kind::WorkloadPolicy } else { Kind::AuthorizationPolicy };
        let name = ObjectName::new(subject.namespace, "never-good");
        let malformed = Malformed { kind, name: name.clone(), wrong: Wrong::new("makes no sense") };
        objects.put_malformed(&malformed);
        let effective = Effective::of(&objects, &subject);
        for caller in callers() {
            let ruling = effective.authorization.decide(&caller, 1);
            prop_assert!(matches!(ruling, Ruling::Refused(Refusal::Unread(..))), "{:?}", ruling);
        }
        if is_policy {
            prop_assert!(PORTS.into_iter().all(|port| effective.inbound.at(port) == InboundMode::Strict));
            prop_assert_eq!(effective.outbound.mode, OutboundMode::Require);
            prop_assert!(effective.outbound.bypass.is_empty());
        }
        objects.remove(kind, &name);
        prop_assert_eq!(objects, collected(&list));
    }

    #[test]
    fn what_was_good_before_stays_in_force(list in all_objects(), at: prop::sample::Index) {
        prop_assume!(!list.is_empty());
        let (name, object) = &list[at.index(list.len())];
        let mut objects = collected(&list);
        let wrong = Wrong::new("makes no sense");
        objects.put_malformed(&Malformed { kind: object.kind(), name: name.clone(), wrong });
        prop_assert_eq!(objects, collected(&list));
    }
}
