use super::*;
use crate::services::testing::{
    arbitrary_service, arbitrary_slice, catalogue, ending, endpoint, name, service, slice,
};
use proptest::prelude::*;

#[test]
fn what_is_as_it_was_told_is_no_change() {
    let mut watched = Watched::default();
    watched.set_service(service("web", "10.96.0.1"));
    assert_eq!(watched.take_changes().len(), 1);
    watched.set_service(service("web", "10.96.0.1"));
    assert_eq!(watched.take_changes(), []);
    watched.remove_service(&name("web"));
    watched.set_service(service("web", "10.96.0.1"));
    assert_eq!(watched.take_changes(), []);
    watched.keep_services(&HashSet::new());
    assert_eq!(watched.take_changes(), [Change::ServiceGone(name("web"))]);
}

#[test]
fn one_endpoint_that_changes_is_told_alone() {
    let mut watched = Watched::default();
    let all = |last| vec![endpoint("10.1.0.1"), endpoint("10.1.0.2"), last];
    watched.set_slice(slice("a", &[("", 80)], all(endpoint("10.1.0.3"))));
    assert!(matches!(watched.take_changes()[..], [Change::Slice(_)]));
    watched.set_slice(slice("a", &[("", 80)], all(ending("10.1.0.3"))));
    let name: SliceName = ("shop".into(), "a".into());
    let changed =
        Change::Endpoints { slice: name.clone(), now: vec![ending("10.1.0.3")], gone: vec![] };
    assert_eq!(watched.take_changes(), [changed]);
    // Other ports are another slice.
    watched.set_slice(slice("a", &[("", 81)], all(ending("10.1.0.3"))));
    assert!(matches!(watched.take_changes()[..], [Change::Slice(_)]));
}

#[derive(Clone, Debug)]
enum Event {
    Service(Service),
    Slice(EndpointSlice),
    RemoveService(u8),
    RemoveSlice(u8),
    /// A list that has only these.
    Listed(u8),
    Told,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        arbitrary_service().prop_map(Event::Service),
        arbitrary_slice().prop_map(Event::Slice),
        (0..3_u8).prop_map(Event::RemoveService),
        (0..3_u8).prop_map(Event::RemoveSlice),
        (0..3_u8).prop_map(Event::Listed),
        Just(Event::Told),
    ]
}

proptest! {
    /// Whoever has taken all changes knows what whoever is told everything knows, also by way of messages.
    #[test]
    fn changes_lead_to_what_there_is(events in prop::collection::vec(event(), 0..40)) {
        let mut watched = Watched::default();
        let (mut follows, mut late) = (catalogue(), catalogue());
        let slice_name = |n: u8| (name("x").namespace, format!("slice-{n}").into());
        let service_name = |n: u8| name(&format!("service-{n}"));
        for event in events.into_iter().chain([Event::Told]) {
            match event {
                Event::Service(service) => watched.set_service(service),
                Event::Slice(slice) => watched.set_slice(slice),
                Event::RemoveService(n) => watched.remove_service(&service_name(n)),
                Event::RemoveSlice(n) => watched.remove_slice(&slice_name(n)),
                Event::Listed(n) => {
                    watched.keep_services(&[service_name(n)].into());
                    watched.keep_slices(&[slice_name(n)].into());
                }
                Event::Told => {
                    // Whoever is told everything just before is told of the same changes.
                    late = catalogue();
                    late.apply(watched.told());
                    let changes = watched.take_changes();
                    for message in crate::services::encode(&changes) {
                        let changes = crate::services::decode(message).unwrap();
                        late.apply(changes.clone());
                        follows.apply(changes);
                    }
                }
            }
        }
        let mut knows = catalogue();
        knows.apply(watched.told());
        let places = |catalogue: &crate::services::Catalogue| {
            let published = catalogue.published();
            published.addresses().collect::<std::collections::BTreeSet<_>>()
        };
        prop_assert_eq!(places(&follows), places(&knows));
        prop_assert_eq!(follows.all_ports(), knows.all_ports());
        let services = |catalogue: &crate::services::Catalogue| {
            let mut services: Vec<_> = catalogue.services().cloned().collect();
            services.sort_by(|one, other| one.name.cmp(&other.name));
            services
        };
        prop_assert_eq!(services(&follows), services(&knows));
        let sorted = |catalogue: &crate::services::Catalogue| {
            let mut slices: Vec<_> = catalogue.slices().cloned().collect();
            slices.sort_by(|one, other| one.name.cmp(&other.name));
            slices
        };
        prop_assert_eq!(sorted(&follows), sorted(&knows));
        prop_assert_eq!((services(&late), sorted(&late)), (services(&knows), sorted(&knows)));
    }
}
