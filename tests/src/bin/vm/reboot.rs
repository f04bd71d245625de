//! Machines that lose their power under traffic. Pinned programs are in memory, so they are gone: what protects workloads then is
//! the order in which units start.

use std::thread;
use std::time::Duration;

use sheath_tests::vm::machine::SHORT;

use crate::hosts::{FILE, Hosts, PORT, SERVER, client_unit, wait_protected};

/// How a unit says that it must not run without Sheath, and goes on when the agent is restarted.
const BEHIND: &str = "Wants=sheath.service\nAfter=sheath.service\nAssertPathExistsGlob=/sys/fs/bpf/sheath/default/v*/links/connect6";

#[track_caller]
pub fn client(hosts: &mut Hosts) -> String {
    hosts.use_readme();
    hosts.a.write("/etc/systemd/system/client.service", &client_unit(BEHIND, &hosts.secret));
    hosts.a.must("systemctl daemon-reload && systemctl restart client && sync");
    hosts.assert_served();
    let mark = hosts.wire.mark();
    let took = hosts.a.power_cycle();
    hosts.a.wait_running();
    hosts.assert_served();
    wait_protected(&mut hosts.a, "client");
    hosts.assert_ciphertext(mark);
    format!("back after {:.0} s", took.as_secs_f64())
}

/// A stranger tries all the time; the client is served before and after.
#[track_caller]
pub fn server(hosts: &mut Hosts) -> String {
    hosts.use_readme();
    hosts.b.must("sync");
    hosts.assert_served();
    let mark = hosts.wire.mark();
    let stranger = format!(
        "for i in $(seq 400); do curl --silent --connect-timeout 1 --max-time 5 {SERVER}; sleep 0.2; done"
    );
    let limit = Duration::from_secs(300);
    let stranger = hosts.a.begin(&format!("timeout 180 sh -c '{stranger}'"), limit);
    let took = hosts.b.power_cycle();
    hosts.b.wait_running();
    hosts.assert_served();
    wait_protected(&mut hosts.b, "web");
    hosts.a.must("pkill --full 'se[q] 400' || :");
    let seen = hosts.a.end(&stranger);
    assert!(!seen.stdout.contains(&hosts.secret), "{seen:?}");
    hosts.assert_unseen(mark);
    format!("back after {:.0} s", took.as_secs_f64())
}

/// Sheath starts before the network does, so whoever starts before Sheath has no network yet.
#[track_caller]
pub fn out_of_order(hosts: &mut Hosts) -> String {
    hosts.use_readme();
    let before = "DefaultDependencies=no\nAfter=local-fs.target systemd-journald.socket\nBefore=sheath.service";
    hosts.a.write("/etc/systemd/system/client.service", &client_unit(before, &hosts.secret));
    hosts.a.must("systemctl daemon-reload && systemctl reenable client && sync");
    let mark = hosts.wire.mark();
    hosts.a.power_cycle();
    hosts.a.wait_running();
    let started = |unit: &str| {
        format!("systemctl show --property ActiveEnterTimestampMonotonic --value {unit}")
    };
    let order = format!("test $({}) -lt $({})", started("client"), started("sheath"));
    hosts.a.must(&order);
    hosts.assert_served();
    hosts.assert_ciphertext(mark);
    let early = hosts
        .a
        .must("journalctl --boot --unit client --output cat | grep -c -v PLAINTEXT-MARKER || :");
    hosts.a.write("/etc/systemd/system/client.service", &client_unit(BEHIND, &hosts.secret));
    hosts
        .a
        .must("systemctl daemon-reload && systemctl reenable client && systemctl restart client");
    format!("{early} calls failed before Sheath was ready")
}

/// Where the network is up before Sheath, as one that the initramfs has set up, the order of units alone protects.
#[track_caller]
pub fn early_network(hosts: &mut Hosts) -> String {
    const UNIT: &str = "/etc/systemd/system/early-network.service";
    hosts.use_readme();
    let unit = "[Unit]\nDefaultDependencies=no\nAfter=local-fs.target\nBefore=sheath.service\n\
        [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -e /usr/local/lib/tests-network\n\
        [Install]\nWantedBy=sysinit.target\n";
    hosts.a.write(UNIT, unit);
    hosts.a.write("/etc/systemd/system/client.service", &client_unit(BEHIND, &hosts.secret));
    hosts.a.must("systemctl daemon-reload && systemctl enable early-network && systemctl reenable client && sync");
    let mark = hosts.wire.mark();
    hosts.a.power_cycle();
    hosts.a.wait_running();
    hosts.assert_served();
    hosts.assert_ciphertext(mark);
    hosts.a.must("systemctl disable early-network");
    String::new()
}

/// Should the agent not start, nor do those who require it.
#[track_caller]
pub fn broken(hosts: &mut Hosts) -> String {
    hosts.use_readme();
    hosts.a.write("/etc/systemd/system/client.service", &client_unit(BEHIND, &hosts.secret));
    let text = hosts.first.client.clone();
    hosts.a.write(FILE, &format!("{text}nonsense: 1\n"));
    hosts.a.must("systemctl daemon-reload && sync");
    let mark = hosts.wire.mark();
    hosts.a.power_cycle();
    let state = hosts.a.run("systemctl is-system-running --wait", SHORT).stdout;
    assert_eq!(state.trim(), "degraded");
    thread::sleep(Duration::from_secs(5));
    let states = hosts.a.run("systemctl is-active sheath client", SHORT).stdout;
    assert!(!states.lines().any(|state| state == "active"), "{states}");
    hosts.assert_unseen(mark);
    assert_eq!(hosts.wire.since(mark).attempts(|to| to.port() == PORT).len(), 0);
    hosts.a.write(FILE, &text);
    hosts.a.must("systemctl start sheath client");
    hosts.assert_served();
    String::new()
}
