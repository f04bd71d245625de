//! The agent as a service of systemd, with the unit that is shipped.

use sheath_tests::vm::machine::SHORT;

use crate::hosts::{FILE, Hosts, wait_protected};

/// A change is in force when `systemctl reload` returns; one that does not fit changes nothing, and says why.
#[track_caller]
pub fn reload(hosts: &mut Hosts) -> String {
    let mark = hosts.wire.mark();
    hosts.assert_served();
    let (client, server) = (hosts.first.client.clone(), hosts.first.server.clone());
    let other = server.replace("example.org/client", "example.org/other");
    assert_ne!(other, server);
    hosts.configure(&client, &other);
    let (before, said) =
        (hosts.answers(), "journalctl --boot --unit client --output cat --lines 3");
    hosts.a.wait_for("a refusal", &format!("{said} | grep -i reset"));
    // The one that may have been under way.
    assert!(hosts.answers() <= before + 1, "served by an agent that allows another");
    hosts.configure(&client, &server);
    hosts.assert_served();
    hosts.b.write(FILE, &format!("{server}nonsense: 1\n"));
    let refused = hosts.b.run("systemctl reload sheath", SHORT);
    assert!(!refused.success(), "{refused:?}");
    let log = hosts.b.must("journalctl --boot --unit sheath --output cat --lines 20");
    assert!(log.contains("nonsense"), "{log}");
    hosts.assert_served();
    hosts.b.write(FILE, &server);
    hosts.b.must("systemctl reload sheath");
    hosts.assert_served();
    hosts.assert_ciphertext(mark);
    String::new()
}

/// While one of them is not there, nothing passes; then everything does.
#[track_caller]
pub fn restart(hosts: &mut Hosts) -> String {
    interrupted(hosts, |hosts| {
        hosts.a.must("systemctl restart sheath");
        hosts.assert_served();
        hosts.b.must("systemctl restart sheath");
    })
}

/// The unit starts it again, and what is pinned holds meanwhile.
#[track_caller]
pub fn kill(hosts: &mut Hosts) -> String {
    interrupted(hosts, |hosts| {
        for machine in [&mut hosts.a, &mut hosts.b] {
            machine.must("systemctl kill --signal KILL --kill-whom main sheath");
        }
        hosts.assert_stranger_refused();
        hosts.assert_served();
        for machine in [&mut hosts.a, &mut hosts.b] {
            let restarts = machine.must("systemctl show --property NRestarts --value sheath");
            assert_ne!(restarts, "0");
        }
    })
}

/// The client is served before and after what is done, a stranger is not, and nothing is on the wire meanwhile.
#[track_caller]
fn interrupted(hosts: &mut Hosts, by: impl FnOnce(&mut Hosts)) -> String {
    let mark = hosts.wire.mark();
    hosts.assert_served();
    by(hosts);
    hosts.assert_served();
    hosts.assert_stranger_refused();
    hosts.assert_unseen(mark);
    String::new()
}

/// The time of the shipped unit is a minute; here it is less.
#[track_caller]
pub fn watchdog(hosts: &mut Hosts) -> String {
    const SHORTER: &str = "/run/systemd/system/sheath.service.d/watchdog.conf";
    let mark = hosts.wire.mark();
    hosts.a.write(SHORTER, "[Service]\nWatchdogSec=10s\n");
    hosts.a.must("systemctl daemon-reload && systemctl restart sheath");
    let restarts = "systemctl show --property NRestarts --value sheath";
    let before = hosts.a.must(restarts);
    hosts.a.must("systemctl kill --signal STOP --kill-whom main sheath");
    hosts.a.wait_for("the watchdog", &format!("test $({restarts}) -gt {before}"));
    let log = hosts.a.must("journalctl --boot --unit sheath --output cat --lines 60");
    assert!(log.contains("atchdog"), "{log}");
    hosts.assert_served();
    wait_protected(&mut hosts.a, "client");
    hosts.assert_unseen(mark);
    hosts.a.must(&format!("rm {SHORTER} && systemctl daemon-reload && systemctl restart sheath"));
    String::new()
}
