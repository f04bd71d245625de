use sheath_common::workload::OutboundMode;

use super::*;
use crate::capture::supervisor::samples::{CGROUP, listener, workload};

#[test]
fn a_workload_is_awaited_on_its_ports_where_the_network_comes() {
    let mut config = desired::Workload::clone(&workload().config);
    for (at, declared, every) in [
        ("0.0.0.0:80", true, true),
        ("[::]:81", true, true),
        ("10.0.0.1:80", true, true),
        ("127.0.0.1:80", false, false),
        ("[::1]:80", false, false),
        ("0.0.0.0:9", false, true),
    ] {
        let all = [listener("/manager", at)];
        assert_eq!(is_awaited_by(&config, &all), declared, "{at}");
        let ports = std::mem::take(&mut config.inbound.ports);
        assert_eq!(is_awaited_by(&config, &all), every, "{at}");
        config.inbound.ports = ports;
    }
}

#[test]
fn where_it_listens_says_its_own_sockets_alone() {
    let mut workload = workload();
    workload.sight(&BTreeSet::from([3]));
    let mut note = |cgroup, at| {
        let all = [listener(cgroup, at)];
        workload.note_listeners([(3, &all[..])].into_iter());
        workload.listens_at(3, 80).cloned()
    };
    assert_eq!(note("/other", "10.0.0.9:80"), None);
    assert_eq!(note("/web", "10.0.0.1:9"), None, "not declared");
    let known = Some(BTreeSet::from(["10.0.0.1".parse().unwrap()]));
    assert_eq!(note("/web/worker", "10.0.0.1:80"), known);
    assert_eq!(note("/other", "10.0.0.9:80"), known);
}

#[test]
fn what_the_kernel_has_recorded_is_reset_once_more_where_protection_has_changed() {
    let mut config = desired::Workload::clone(&workload().config);
    config.existing = Existing::Reset;
    let same = workload().reconfigured(config.clone().into());
    assert!(!same.cgroup(CGROUP).unwrap().must_reset());
    config.inbound.mode = InboundMode::Permissive;
    let changed = workload().reconfigured(config.into());
    assert!(changed.cgroup(CGROUP).unwrap().must_reset());
}

#[test]
fn who_passes_through_is_looked_at_again() {
    const OWN: u64 = 1;
    let mut workload = workload();
    assert!(!workload.may_be_passing(OWN));
    workload.sight(&BTreeSet::from([OWN]));
    assert!(workload.may_be_passing(OWN));
    assert!(!workload.has_stayed_in(OWN));
    let cgroup = workload.cgroups.get_mut(&CGROUP).unwrap();
    *cgroup = EnrolledCgroup::new("/web".into(), false);
    cgroup.sight(&BTreeSet::from([OWN]), Instant::now() - STAY);
    assert!(!workload.may_be_passing(OWN));
    assert!(workload.has_stayed_in(OWN));
}

#[test]
fn another_configuration_matters_to_capture_if_it_has_to_do_otherwise() {
    let web = workload();
    let changed = |change: fn(&mut desired::Workload)| {
        let mut config = desired::Workload::clone(web.config());
        change(&mut config);
        !web.is_as(&config)
    };
    assert!(!changed(|_| {}));
    assert!(!changed(|config| config.inbound.allow.clear()));
    assert!(!changed(|config| config.inbound.probe_ports.extend([8080])));
    assert!(changed(|config| config.inbound.ports.push(82)));
    assert!(changed(|config| config.inbound.addresses = ["10.0.0.1".parse().unwrap()].into()));
    assert!(changed(|config| config.inbound.activator = None));
    assert!(changed(|config| config.inbound.mode = InboundMode::Permissive));
    assert!(changed(|config| config.outbound.mode = OutboundMode::Require));
    assert!(changed(|config| config.existing = Existing::Reset));
    assert!(changed(|config| config.cgroup = desired::CgroupSelector::Id(7)));
}
