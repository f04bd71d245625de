use super::*;
use crate::desired::{PodUid, Pods};
use proptest::prelude::*;
use std::path::Path;

/// An origin in one of a few files, which come in the order of their numbers.
fn origin(file: usize, index: usize) -> Origin {
    let file: Arc<Path> = Path::new(&format!("{file}.yaml")).into();
    Origin::indexed(&file, "entries", index)
}

fn workload(origin: &Origin, name: &str, cgroup: u64) -> Arc<Workload> {
    let cgroup = CgroupSelector::Id(cgroup);
    Arc::new(Workload { origin: origin.clone(), cgroup, ..Workload::testing(name) })
}

fn peer(origin: &Origin, destinations: &[&str]) -> Arc<Peer> {
    let destination = |text: &&str| Destination::parse(text).unwrap();
    let destinations = destinations.iter().map(destination).collect();
    let origin = origin.clone();
    Arc::new(Peer { origin, destinations, spiffe_ids: Vec::new(), pins: Vec::new() })
}

fn external_peer(origin: &Origin, name: &str, places: &[&str]) -> Arc<ExternalPeer> {
    let peer = ExternalPeer::testing(name, places);
    Arc::new(ExternalPeer { origin: origin.clone(), ..peer })
}

/// Everything that putting together decides about.
fn shown((desired, conflicts): &(Desired, Vec<Conflict>)) -> (Vec<String>, Vec<Conflict>) {
    let workloads =
        desired.workloads.iter().map(|w| format!("{} {} {}", w.name, w.origin, w.cgroup));
    let peers = desired.peers.iter().map(|p| format!("{} {:?}", p.origin, p.destinations));
    let external = desired.external_peers.iter();
    let external = external.map(|p| format!("{} {} {:?}", p.name, p.origin, p.places));
    let mut conflicts = conflicts.clone();
    conflicts.sort();
    (workloads.chain(peers).chain(external).collect(), conflicts)
}

#[test]
fn of_two_workloads_with_one_name_the_first_counts_and_the_other_is_told() {
    let [first, second] = [origin(0, 7), origin(1, 0)];
    let one = Desired { workloads: vec![workload(&first, "web", 1)], ..Desired::default() };
    let more = vec![workload(&second, "web", 2), workload(&origin(1, 1), "db", 3)];
    let other = Desired { workloads: more, ..Desired::default() };
    let (all, conflicts) = Desired::merged([&other, &one]);
    let names: Vec<_> = all.workloads.iter().map(|w| (w.name.as_str(), w.origin.clone())).collect();
    assert_eq!(names, [("web", first.clone()), ("db", origin(1, 1))]);
    let what = "the workload `web`".to_owned();
    assert_eq!(conflicts, [Conflict { what, kept: first, ignored: second }]);
}

#[test]
fn agents_share_a_place_and_an_external_peer_has_it_alone() {
    let of_agents =
        |origin, at: &[&str]| Desired { peers: vec![peer(&origin, at)], ..Desired::default() };
    let one = of_agents(origin(0, 0), &["10.0.0.1:80", "10.0.0.2:80"]);
    let same = of_agents(origin(2, 0), &["10.0.0.1:80", "10.0.0.3:80"]);
    let external = Desired {
        external_peers: vec![
            external_peer(&origin(1, 0), "early", &["10.0.0.1:80", "10.0.0.3:80", "a.example"]),
            external_peer(&origin(1, 1), "late", &["10.0.0.4:80", "a.example"]),
        ],
        ..Desired::default()
    };
    let (all, conflicts) = Desired::merged([&external, &same, &one]);
    let at = |destinations: &[Destination]| -> Vec<_> {
        destinations.iter().map(ToString::to_string).collect()
    };
    let peers: Vec<_> = all.peers.iter().map(|peer| at(&peer.destinations)).collect();
    // The external peer comes before the second entry, and after the first.
    assert_eq!(peers, [vec!["10.0.0.1/32:80", "10.0.0.2/32:80"], vec!["10.0.0.1/32:80"]]);
    let places = |index: usize| -> Vec<_> {
        all.external_peers[index].places.iter().map(ToString::to_string).collect()
    };
    assert_eq!(places(0), ["10.0.0.3/32:80", "a.example"]);
    assert_eq!(places(1), ["10.0.0.4/32:80"]);
    assert_eq!(conflicts.len(), 3);
}

#[test]
fn what_is_known_of_pods_is_known_if_anybody_knows_it() {
    let uid = |number| PodUid::from_bytes([number; 16]);
    let knows = |pods: &[u8]| Desired {
        pods: Some(Pods { plain: pods.iter().copied().map(uid).collect() }),
        ..Desired::default()
    };
    let merged = |parts: &[&Desired]| Desired::merged(parts.iter().copied()).0.pods;
    let silent = Desired::default();
    assert_eq!(merged(&[&silent, &silent]), None);
    assert_eq!(merged(&[&silent, &knows(&[])]), Some(Pods::default()));
    let both = merged(&[&knows(&[1, 2]), &silent, &knows(&[2, 3])]).unwrap();
    assert_eq!(both.plain, [1, 2, 3].map(uid).into());
}

#[test]
fn the_next_pod_of_a_name_is_another_workload() {
    let pod = |number| {
        let origin = origin(0, usize::from(number));
        let cgroup = CgroupSelector::Pod(PodUid::from_bytes([number; 16]));
        Arc::new(Workload { origin, cgroup, ..Workload::testing("web-0") })
    };
    let part = Desired { workloads: vec![pod(1), pod(2), pod(1)], ..Desired::default() };
    let (all, conflicts) = Desired::merged([&part]);
    assert_eq!((all.workloads.len(), conflicts.len()), (2, 1));
    let keys: Vec<_> = all.keys().collect();
    assert_ne!(keys[0], keys[1]);
}

/// One producer's part: workloads and peers, of few names and places, so that they meet those of others.
fn part(file: usize) -> impl Strategy<Value = Desired> {
    let places = prop::collection::vec(prop::sample::select(vec!["10.0.0.1:80", "10.0.0.2"]), 1..3);
    let names = prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 0..4);
    (names.clone(), names, prop::collection::vec(places.clone(), 0..3), places).prop_map(
        move |(workloads, external, peers, places)| Desired {
            workloads: workloads
                .iter()
                .enumerate()
                .map(|(index, name)| workload(&origin(file, index), name, index as u64))
                .collect(),
            external_peers: external
                .iter()
                .enumerate()
                .map(|(index, name)| external_peer(&origin(file, 100 + index), name, &places))
                .collect(),
            peers: peers
                .iter()
                .enumerate()
                .map(|(index, at)| peer(&origin(file, 200 + index), at))
                .collect(),
            ..Desired::default()
        },
    )
}

proptest! {
    /// What comes out depends on what is wanted, never on who has said it first.
    #[test]
    fn the_order_of_the_parts_does_not_matter(
        parts in (part(0), part(1), part(2)),
        order in Just([0_usize, 1, 2]).prop_shuffle(),
    ) {
        let parts = [&parts.0, &parts.1, &parts.2];
        let shuffled = order.map(|index| parts[index]);
        prop_assert_eq!(shown(&Desired::merged(parts)), shown(&Desired::merged(shuffled)));
    }

    /// Whatever is put together fits together: one of a name, one kind of peer at a place.
    #[test]
    fn what_is_put_together_has_no_conflict_left(parts in (part(0), part(1), part(2))) {
        let (all, _) = Desired::merged([&parts.0, &parts.1, &parts.2]);
        let (again, conflicts) = Desired::merged([&all]);
        prop_assert_eq!(&conflicts, &[]);
        prop_assert_eq!(shown(&(again, Vec::new())), shown(&(all, Vec::new())));
    }
}
