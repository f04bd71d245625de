//! The Debian package on whole hosts, which is how both got Sheath: upgraded under traffic, removed, purged.

use sheath_tests::vm::machine::{Machine, SHORT};

use crate::hosts::{FILE, Hosts, PORT, SERVER, wait_protected};

/// Where a machine has it.
pub const PACKAGE: &str = "/opt/sheath/clone/target/package/sheath_*.deb";

/// A client's unit that asks on one connection for as long as it lasts.
const ONE_CONNECTION: &str = "/run/systemd/system/client.service.d/one-connection.conf";

/// Each agent gives way to the one of the package: no call fails, and a live connection goes on.
#[track_caller]
pub fn upgrade(hosts: &mut Hosts) -> String {
    hosts.use_readme();
    let mark = hosts.wire.mark();
    // The server ends a connection after a thousand requests.
    let talk = format!(
        "exec 3<>/dev/tcp/10.0.2.1/{PORT}; \
         while printf \"GET / HTTP/1.1\\r\\nHost: web\\r\\nX-Secret: {}\\r\\n\\r\\n\" >&3; do \
         while read -t 60 -r line <&3 || exit 1; do case \"$line\" in PLAINTEXT-MARKER*) break;; esac; done; echo \"$line\"; sleep 1; done",
        hosts.secret
    );
    hosts.a.write("/run/talk", &talk);
    hosts.a.write(ONE_CONNECTION, "[Service]\nExecStart=\nExecStart=/bin/bash /run/talk\n");
    hosts.a.must("systemctl daemon-reload && systemctl restart client");
    hosts.assert_served();
    let process = main_process(&mut hosts.a, "client");
    for is_server in [false, true] {
        let machine = if is_server { &mut hosts.b } else { &mut hosts.a };
        let before = main_process(machine, "sheath");
        let said = machine.must(&format!("dpkg --install {PACKAGE} 2>&1"));
        assert!(said.contains(&format!("has taken over from process {before}")), "{said}");
        assert_ne!(main_process(machine, "sheath"), before);
        hosts.assert_served();
    }
    // The script would have ended with its connection.
    assert_eq!(main_process(&mut hosts.a, "client"), process, "the live connection has ended");
    hosts.assert_stranger_refused();
    hosts.a.must(&format!(
        "rm {ONE_CONNECTION} && systemctl daemon-reload && systemctl restart client"
    ));
    hosts.assert_served();
    hosts.assert_unseen(mark);
    String::new()
}

/// What was protected is refused, until the package is there again.
#[track_caller]
pub fn removal(hosts: &mut Hosts) -> String {
    hosts.use_readme();
    hosts.assert_served();
    let mark = hosts.wire.mark();
    hosts
        .b
        .must("dpkg --remove sheath && test -e /sys/fs/bpf/sheath/default && ! command -v sheath");
    let before = hosts.answers();
    hosts.assert_stranger_refused();
    let last = "journalctl --boot --unit client --output cat --lines 1";
    hosts.a.wait_for("a refusal", &format!("{last} | grep '^curl: '"));
    // The one that may have been under way.
    assert!(hosts.answers() <= before + 1, "served without an agent");
    hosts.b.must(&format!("dpkg --install {PACKAGE}"));
    wait_protected(&mut hosts.b, "web");
    hosts.assert_served();
    hosts.assert_unseen(mark);
    String::new()
}

/// Nothing is left in the kernel, and what was protected speaks in the clear. What somebody has written stays.
#[track_caller]
pub fn purge(hosts: &mut Hosts) -> String {
    hosts.use_readme();
    hosts.assert_served();
    hosts.b.must("dpkg --purge sheath && ! test -e /sys/fs/bpf/sheath && ! test -e /run/sheath");
    let call = format!("curl --silent --show-error --max-time 20 {SERVER}");
    let ended = hosts.a.run(&call, SHORT);
    assert!(ended.success() && ended.stdout.contains(&hosts.secret), "{ended:?}");
    hosts.b.must(&format!("test -e {FILE} && dpkg --install {PACKAGE}"));
    wait_protected(&mut hosts.b, "web");
    hosts.assert_served();
    hosts.assert_stranger_refused();
    String::new()
}

/// The main process of a unit.
#[track_caller]
fn main_process(machine: &mut Machine, unit: &str) -> String {
    let process = machine.must(&format!("systemctl show --property MainPID --value {unit}"));
    assert_ne!(process, "0", "{unit} does not run");
    process
}
