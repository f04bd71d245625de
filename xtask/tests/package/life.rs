//! A package's life on a host: installed, updated, removed, purged.

use std::collections::HashSet;

use crate::made::MADE;
use crate::root::Root;

const WANTED: &str = "/etc/systemd/system/multi-user.target.wants/sheath.service";

/// Installs the package, and says what dpkg has said.
#[track_caller]
fn install(root: &Root) -> String {
    root.put(&MADE.package, "/sheath.deb");
    root.sh("dpkg --install /sheath.deb")
}

/// Pins as an agent leaves them. A bpffs has no files but pins, so links stand for what only bpf(2) makes.
#[track_caller]
fn leave_pins(root: &Root, instance: &str) {
    root.sh(&format!(
        "mkdir -p /sys/fs/bpf/sheath/{instance}/v1/links /sys/fs/bpf/sheath/{instance}/v1/maps
         ln -s x /sys/fs/bpf/sheath/{instance}/v1/links/connect_v4
         ln -s x /sys/fs/bpf/sheath/{instance}/v1/maps/WORKLOADS
         mkdir -p /run/sheath/{instance}
         touch /run/sheath/{instance}/lock"
    ));
}

#[test]
fn it_is_installed_enabled_and_as_it_was_made() {
    let root = Root::new();
    install(&root);
    assert_eq!(root.sh("sheath --version").trim(), concat!("sheath ", env!("CARGO_PKG_VERSION")));
    let unit = root.sh(&format!("readlink -f {WANTED}"));
    assert_eq!(unit.trim(), "/usr/lib/systemd/system/sheath.service");
    assert_eq!(root.sh("stat -c '%a %U' /etc/sheath").trim(), "700 root");
    assert_eq!(root.sh("dpkg --verify sheath"), "");
    assert!(
        root.sh("dpkg-query --show --showformat='${Conffiles}' sheath")
            .contains("/etc/default/sheath")
    );
    // Nothing is configured, so nothing says that the host is protected.
    let said = root.sh("sheath check || true");
    assert!(said.contains("/etc/sheath/sheath.yaml"), "{said}");
}

#[test]
fn the_example_is_a_configuration() {
    let root = Root::new();
    install(&root);
    // What this root lacks is an error of its own (status 1). A file that does not fit would be status 2.
    root.sh("umask 077
         sheath ca init --dir /var/lib/sheath/ca --trust-domain example.org
         cp /usr/share/doc/sheath/examples/sheath.yaml /etc/sheath/sheath.yaml
         sheath check || test $? = 1");
}

#[test]
fn an_update_keeps_what_the_administrator_has_changed() {
    let root = Root::new();
    install(&root);
    root.sh("echo SHEATH_NODE=b >>/etc/default/sheath; echo 'node: b' >/etc/sheath/sheath.yaml");
    root.sh("systemctl disable sheath.service");
    install(&root);
    assert!(root.sh("cat /etc/default/sheath").contains("SHEATH_NODE=b"));
    assert_eq!(root.sh("cat /etc/sheath/sheath.yaml"), "node: b\n");
    assert_eq!(root.sh(&format!("test -e {WANTED} || echo disabled")), "disabled\n");
}

#[test]
fn a_package_that_is_removed_leaves_its_workloads_refused_and_one_that_is_purged_does_not() {
    let root = Root::new();
    install(&root);
    root.sh("echo 'node: a' >/etc/sheath/sheath.yaml; mkdir -p /var/lib/sheath/ca");
    leave_pins(&root, "default");
    let said = root.sh("dpkg --remove sheath");
    assert!(said.contains("what was protected is refused from now on"), "{said}");
    root.sh("test ! -e /usr/bin/sheath");
    root.sh("test -L /sys/fs/bpf/sheath/default/v1/links/connect_v4");
    root.sh("test -e /etc/default/sheath");

    root.sh("dpkg --purge sheath");
    root.sh(
        "test ! -e /sys/fs/bpf/sheath && test ! -e /run/sheath && test ! -e /etc/default/sheath",
    );
    root.sh(&format!("test ! -L {WANTED}"));
    // What Sheath has not made: the administrator's words, and keys that nobody could make again.
    root.sh("test -e /etc/sheath/sheath.yaml && test -d /var/lib/sheath/ca");
}

#[test]
fn purged_at_once_it_leaves_nothing() {
    let root = Root::new();
    let files = || root.sh("find /etc /usr /var/lib/systemd -xdev");
    let before = files();
    let before: HashSet<&str> = before.lines().collect();
    install(&root);
    leave_pins(&root, "default");
    root.sh("dpkg --purge sheath");
    root.sh("test ! -e /sys/fs/bpf/sheath && test ! -e /run/sheath && test ! -e /etc/sheath");
    let after = files();
    let left: Vec<&str> = after.lines().filter(|file| !before.contains(file)).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Of a pod, for instance: its pins are all that keeps its programs in the kernel.
#[test]
fn an_agent_of_somebody_else_keeps_its_pins() {
    let root = Root::new();
    install(&root);
    leave_pins(&root, "default");
    leave_pins(&root, "other");
    let lock = root.hold_lock("other");
    let said = root.sh("dpkg --purge sheath");
    assert!(said.contains("an agent of the instance other runs"), "{said}");
    root.sh("test -L /sys/fs/bpf/sheath/other/v1/links/connect_v4 && test -d /run/sheath/other");
    root.sh("test ! -e /sys/fs/bpf/sheath/default && test ! -e /run/sheath/default");
    drop(lock);
}

#[test]
fn what_is_not_roots_is_not_removed_nor_what_it_leads_to() {
    let root = Root::new();
    install(&root);
    root.sh("mkdir -p /srv/elses/v1/links /sys/fs/bpf/sheath
         ln -s /srv/elses /sys/fs/bpf/sheath/x
         chown -h 65534 /sys/fs/bpf/sheath /sys/fs/bpf/sheath/x");
    let said = root.sh("dpkg --purge sheath");
    assert!(said.contains("/sys/fs/bpf/sheath is not root's"), "{said}");
    root.sh("test -d /srv/elses/v1/links && test -L /sys/fs/bpf/sheath/x");
}
