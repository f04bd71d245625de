//! Where the programs attach and how workloads are selected, beyond the cgroup paths and globs of
//! the other scenarios.

use sheath_tests::cgroup::Cgroup;
use sheath_tests::config::Select;
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::names::{marker, unique};
use sheath_tests::pair::{PORT, Pair, Setting, say};
use sheath_tests::place::Place;
use sheath_tests::probe;
use sheath_tests::script::{Job, Origin, Socket, Step};
use sheath_tests::world::{FAMILIES, Family};

/// `capture.cgroup: auto` is the root: a socket is captured wherever it was made.
#[test]
fn capture_auto_attaches_at_the_root() {
    let pair = Pair::with(Setting::Host, |a, b| {
        for config in [a, b] {
            config.capture.cgroup = "auto".to_owned();
        }
    });
    let elsewhere = Place::new(&pair.client.netns, &Cgroup::top(&unique()));
    for family in FAMILIES {
        let tap = pair.world.tap();
        let secret = marker();
        let _echo = pair.serve(family, &[Step::Echo]);
        let seen = pair.connect(pair.target(family), &say(&secret));
        assert_eq!(seen.last().text, secret, "{family:?}: {seen:?}");
        let origin = Origin::BeforeMovingTo(pair.client.cgroup.procs());
        let socket = Socket { origin, ..Socket::default() };
        let job = Job::Client { socket, to: pair.target(family), steps: say(&secret) };
        let seen = probe::run(&elsewhere, &job);
        assert_eq!(seen.last().text, secret, "{family:?}: {seen:?}");
        assert_ciphertext(&tap, PORT, &secret);
    }
}

#[test]
fn a_systemd_unit_is_a_workload() {
    let slice = Cgroup::shared("system.slice");
    let unit = format!("{}.service", unique());
    let service = slice.child(&unit);
    let pair = Pair::with(Setting::Host, |a, _| {
        a.capture.cgroup = "auto".to_owned();
        let mut workload = a.workloads[0].clone();
        workload.name = "unit".to_owned();
        workload.select = Select::SystemdUnit(unit.clone());
        a.workloads.push(workload);
    });
    let place = Place::new(&pair.world.a.netns, &service);
    let tap = pair.world.tap();
    let secret = marker();
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let to = pair.target(Family::V4);
    let seen = probe::run(&place, &sheath_tests::pair::client(to, &say(&secret)));
    assert_eq!(seen.last().text, secret, "{seen:?}");
    assert_ciphertext(&tap, PORT, &secret);
}
