use super::*;
use crate::desired::{Endpoints, Origin, Workload};
use crate::follow::Following;
use proptest::prelude::*;
use rustls_pki_types::DnsName;

/// A discovery that has nothing to say by itself.
#[derive(Debug, PartialEq)]
struct Silent {
    kind: &'static str,
    setting: u8,
}

impl Discovery for Silent {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn follow(self: Arc<Self>, _: Updates) -> Following {
        Box::pin(std::future::pending())
    }
}

fn following(discoveries: &[(&'static str, u8)]) -> Discoveries {
    let mut followed = Discoveries::new(crate::peer::crypto_provider().secure_random);
    followed.follow(&set_up(discoveries));
    followed
}

fn set_up(discoveries: &[(&'static str, u8)]) -> Vec<Arc<dyn Discovery>> {
    let silent = |(kind, setting): &(&'static str, u8)| -> Arc<dyn Discovery> {
        Arc::new(Silent { kind, setting: *setting })
    };
    discoveries.iter().map(silent).collect()
}

/// A snapshot with these workloads, by names that say where they were found.
fn found(kind: &'static str, names: &[&str]) -> Update {
    let workload = |name: &&str| {
        let origin = Origin::Dns(format!("{kind}/{name}").into());
        Arc::new(Workload { origin, ..Workload::testing(name) })
    };
    let workloads = names.iter().map(workload).collect();
    let desired = Desired { workloads, ..Desired::default() };
    Update::Snapshot(Snapshot { desired, problems: Problems::new() })
}

fn names(discoveries: &Discoveries) -> Vec<String> {
    let merged = discoveries.merged(&Desired::default());
    merged.desired.workloads.iter().map(|workload| workload.origin.to_string()).collect()
}

#[tokio::test]
async fn what_was_found_stays_until_another_has_spoken() {
    let mut followed = following(&[("a", 0)]);
    assert!(!followed.all_heard());
    assert!(followed.take(("a", 1, found("a", &["web"]))));
    followed.follow(&set_up(&[("a", 0)]));
    assert!(followed.all_heard(), "it is the same");
    followed.follow(&set_up(&[("a", 1)]));
    assert!(!followed.all_heard());
    assert_eq!(names(&followed), ["DNS of a/web"]);
    assert!(
        !followed.take(("a", 1, found("a", &["late"]))),
        "of one that is not followed any more"
    );
    assert!(followed.take(("a", 2, found("a", &["db"]))));
    assert_eq!(names(&followed), ["DNS of a/db"]);
    followed.follow(&[]);
    assert!(names(&followed).is_empty());
}

#[tokio::test]
async fn a_problem_is_shown_and_changes_nothing_that_is_wanted() {
    let mut followed = following(&[("dns", 0)]);
    let name = DnsName::try_from("a.example").unwrap();
    let addresses = ["10.0.0.1".parse().unwrap()].into();
    let endpoints = Endpoints { origin: Origin::Dns("a.example".into()), name, addresses };
    let desired = Desired { endpoints: vec![Arc::new(endpoints)], ..Desired::default() };
    let snapshot = Snapshot { desired, problems: Problems::new() };
    assert!(followed.take(("dns", 1, Update::Snapshot(snapshot))));
    let error = std::io::Error::other("nobody answers");
    let problems = Problems::from([("a.example".to_owned(), error.into())]);
    assert!(!followed.take(("dns", 1, Update::Problems(problems))));
    let views = followed.views().load_full();
    let expected = NameView {
        name: "a.example".to_owned(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        problem: "nobody answers".to_owned(),
    };
    assert_eq!(*views, Found { names: vec![expected], problems: Vec::new() });
}

#[tokio::test]
async fn a_problem_that_is_no_names_is_shown_with_its_discovery() {
    let mut followed = following(&[("kubernetes", 0)]);
    let error = std::io::Error::other("nobody answers");
    let problems = Problems::from([("pods".to_owned(), error.into())]);
    followed.take(("kubernetes", 1, Update::Problems(problems)));
    let expected = ProblemView {
        discovery: "kubernetes",
        subject: "pods".to_owned(),
        problem: "nobody answers".to_owned(),
    };
    assert_eq!(followed.views().load().problems, [expected]);
}

/// What each of two discoveries says, one snapshot after another.
fn said() -> impl Strategy<Value = Vec<Vec<&'static str>>> {
    let names = prop::collection::vec(prop::sample::select(vec!["web", "db", "cache"]), 0..3);
    prop::collection::vec(names, 1..4)
}

proptest! {
    /// Only the last word of each counts, not who has had it.
    #[test]
    fn the_order_of_arrival_does_not_matter(
        one in said(),
        other in said(),
        turns in prop::collection::vec(any::<bool>(), 8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _guard = runtime.enter();
        let mut mixed = following(&[("a", 0), ("b", 0)]);
        let mut left = [("a", 1, one.iter()), ("b", 2, other.iter())];
        for turn in turns.iter().chain([&false, &false, &false, &false, &true, &true, &true, &true]) {
            let (kind, generation, said) = &mut left[usize::from(*turn)];
            if let Some(names) = said.next() {
                mixed.take((kind, *generation, found(kind, names)));
            }
        }
        let mut plain = following(&[("b", 0), ("a", 0)]);
        plain.take(("b", 1, found("b", other.last().unwrap())));
        plain.take(("a", 2, found("a", one.last().unwrap())));
        prop_assert_eq!(names(&mixed), names(&plain));
    }
}
