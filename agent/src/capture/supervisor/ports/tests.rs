use std::collections::BTreeSet;
use std::time::Instant;

use super::*;
use crate::capture::cgroups::WorkloadCgroup;
use crate::capture::supervisor::enrolled_cgroup::STAY;
use crate::capture::supervisor::samples::{CGROUP, listener, named};
use crate::desired;

const OWN: u64 = 1;
const ELSEWHERE: u64 = 2;

/// A workload that is in a namespace, and listens as `listeners` say.
fn living(name: &str, inode: u64, listeners: &[OwnedSocket]) -> WorkloadState {
    let mut workload = named(name);
    workload.sight(&BTreeSet::from([inode]));
    workload.note_listeners([(inode, listeners)].into_iter());
    workload
}

/// A workload that has stayed in a namespace, and of which it is not known where it listens.
fn staying(name: &str, inode: u64) -> WorkloadState {
    let mut workload = named(name);
    let cgroup = WorkloadCgroup { id: CGROUP, path: format!("/{name}").into() };
    let cgroup = workload.enrol(&cgroup, false);
    cgroup.sight(&BTreeSet::from([inode]), Instant::now() - STAY);
    workload
}

fn with_addresses(workload: WorkloadState, addresses: &[&str]) -> WorkloadState {
    let mut config = desired::Workload::clone(workload.config());
    config.inbound.addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    workload.reconfigured(config.into())
}

fn without_ports(workload: WorkloadState) -> WorkloadState {
    let mut config = desired::Workload::clone(workload.config());
    config.inbound.ports.clear();
    workload.reconfigured(config.into())
}

fn assigned(
    inode: u64,
    workloads: &[&WorkloadState],
    listeners: &[OwnedSocket],
) -> (InboundPorts, Vec<(WorkloadId, String)>) {
    assign(NamespaceView { inode, is_own: inode == OWN, listeners }, workloads, &HashMap::new())
}

/// Who has the place; `Others` are not told from nobody by it.
fn owner(ports: &InboundPorts, at: &str) -> Option<WorkloadId> {
    ports.owner(at.parse().unwrap())
}

#[test]
fn a_port_is_the_workloads_before_it_comes_unless_it_lives_elsewhere() {
    let mut web = named("web");
    let id = Some(web.id());
    assert_eq!(owner(&assigned(OWN, &[&web], &[]).0, "10.0.0.1:80"), id);
    assert_eq!(owner(&assigned(ELSEWHERE, &[&web], &[]).0, "10.0.0.1:80"), None);

    let listeners = [listener("/web", "0.0.0.0:80")];
    web = living("web", ELSEWHERE, &listeners);
    web.update_whereabouts(OWN);
    assert_eq!(owner(&assigned(OWN, &[&web], &[]).0, "10.0.0.1:80"), None);
    assert_eq!(owner(&assigned(ELSEWHERE, &[&web], &listeners).0, "10.0.0.1:80"), id);

    let mut config = desired::Workload::clone(named("web").config());
    config.inbound.namespace = NamespaceKind::Own;
    let web = WorkloadState::new(config.into());
    assert_eq!(owner(&assigned(OWN, &[&web], &[]).0, "10.0.0.1:80"), None);
}

#[test]
fn where_the_workload_listens_is_its_own_and_where_somebody_else_does_is_theirs() {
    let listeners = [listener("/web", "10.0.0.1:80"), listener("/other", "10.0.0.9:80")];
    let web = living("web", OWN, &listeners);
    let (ports, problems) = assigned(OWN, &[&web], &listeners);
    assert_eq!(problems, []);
    for (at, expected) in [
        ("10.0.0.1:80", Some(web.id())),
        ("10.0.0.9:80", None),
        ("10.0.0.5:80", Some(web.id())),
        ("[fd00::1]:80", Some(web.id())),
        ("10.0.0.9:81", Some(web.id())),
        ("10.0.0.1:82", None),
    ] {
        assert_eq!(owner(&ports, at), expected, "{at}");
    }
    // Whose a socket is can no longer be told.
    let gone = OwnedSocket { cgroup: None, ..listeners[1].clone() };
    let (ports, _) = assigned(OWN, &[&web], &[listeners[0].clone(), gone]);
    assert_eq!(owner(&ports, "10.0.0.9:80"), Some(web.id()));
    // Where it is not known to listen, nobody else's socket takes the port from it.
    let others = [listener("/other", "10.0.0.9:80")];
    let quiet = staying("web", OWN);
    let (ports, _) = assigned(OWN, &[&quiet], &others);
    assert_eq!(owner(&ports, "10.0.0.9:80"), Some(quiet.id()));
}

#[test]
fn a_workload_that_listens_against_its_declaration_is_served_where_it_has_declared() {
    let listeners = [listener("/web", "10.0.0.2:80")];
    let web = with_addresses(living("web", OWN, &listeners), &["10.0.0.1"]);
    let (ports, _) = assigned(OWN, &[&web], &listeners);
    assert_eq!(owner(&ports, "10.0.0.1:80"), Some(web.id()));
    assert_eq!(owner(&ports, "10.0.0.2:80"), None);
    assert!(ports.has("10.0.0.2".parse().unwrap(), 80), "callers there are reset");
    assert!(!ports.has("10.0.0.3".parse().unwrap(), 80), "other addresses are other people's");
}

#[test]
fn of_two_that_claim_the_same_port_the_first_has_it_and_the_other_hears_of_it() {
    let listeners = [listener("/web", "0.0.0.0:80"), listener("/db", "0.0.0.0:80")];
    let (web, db) = (living("web", OWN, &listeners), living("db", OWN, &listeners));
    let (ports, problems) = assigned(OWN, &[&web, &db], &listeners);
    assert_eq!(owner(&ports, "10.0.0.1:80"), Some(web.id()));
    let told: Vec<_> = problems.iter().map(|(id, _)| *id).collect();
    assert_eq!(told, [db.id()]);
    assert!(problems[0].1.contains("another workload has"), "{}", problems[0].1);
}

#[test]
fn every_port_is_a_workloads_in_a_namespace_of_its_own_and_refused_in_the_agents() {
    let listeners = [listener("/web", "0.0.0.0:9")];
    let web = without_ports(living("web", ELSEWHERE, &listeners));
    let (ports, problems) = assigned(ELSEWHERE, &[&web], &listeners);
    assert_eq!(problems, []);
    assert_eq!(owner(&ports, "10.0.0.1:4711"), Some(web.id()));

    let here = without_ports(staying("web", OWN));
    let (ports, problems) = assigned(OWN, &[&here], &listeners);
    assert_eq!(owner(&ports, "10.0.0.1:9"), None);
    assert!(ports.has("10.0.0.1".parse().unwrap(), 9), "callers are reset");
    assert!(!ports.has("10.0.0.1".parse().unwrap(), 10));
    assert!(problems[0].1.contains("ports: [9]"), "{}", problems[0].1);
}

#[test]
fn an_activator_stands_for_the_workload_where_the_workload_has_ports() {
    let web = named("web");
    let activators = HashMap::from([(web.id(), 42)]);
    let of = |inode| {
        let view = NamespaceView { inode, is_own: inode == OWN, listeners: &[] };
        assign(view, &[&web], &activators).0.activator(web.id())
    };
    assert_eq!(of(OWN), Some(42));
    assert_eq!(of(ELSEWHERE), None);
}
