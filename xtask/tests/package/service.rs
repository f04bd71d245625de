//! A package's life on a host that has systemd: a real one that is told by the real maintainer scripts, the shipped unit with its
//! hardening, and a real agent, whose programs refuse what they are told to refuse.
//!
//! Only the first process of a PID namespace is a manager of the system, and the agent has to see the host's processes. So this is
//! a manager of a user's, root's, at the address where the system's is looked for, with the directories of the system's units.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::made::MADE;
use crate::root::Root;

/// Starts the manager for the root `$1`. `$2` is the name of its cgroup, and of a directory of the host's bpffs: an agent takes
/// no other, and may have nothing to do with those of others. Removes both when its stdin is closed.
const MANAGE: &str = r#"
root=$1 name=$2
v2=$(findmnt --noheadings --output TARGET --types cgroup2 | head -n 1)
clean_up() {
    echo 1 >"$v2/$name/cgroup.kill" || true
    wait
    # A cgroup goes when nobody is in it any more, and a hybrid hierarchy has another one of that name.
    for try in 1 2 3 4 5 6 7 8 9 10; do
        find /sys/fs/cgroup -maxdepth 2 -name "$name" -exec find {} -depth -type d -delete \; 2>/dev/null || true
        [ -n "$(find /sys/fs/cgroup -maxdepth 2 -name "$name")" ] || break
        sleep 0.1
    done
    rm -rf "/sys/fs/bpf/$name"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM
mkdir "$v2/$name" "$v2/$name/manager" "$v2/$name/work"
mkdir -m 0700 "/sys/fs/bpf/$name"
mount --bind "/sys/fs/bpf/$name" "$root/sys/fs/bpf"
ip link set lo up
# None of this machine's units.
for units in /usr/lib/systemd/system /etc/systemd/system; do
    mount -t tmpfs -o mode=0755 tmpfs "$root$units"
done
mkdir -p "$root/run/systemd/system/sheath.service.d" "$root/run/config/systemd"
ln -s /etc/systemd/system "$root/run/config/systemd/user"
printf '[Unit]\n' >"$root/usr/lib/systemd/system/basic.target"
# There is no journal.
printf '[Service]\nStandardOutput=append:/sheath.log\nStandardError=inherit\n' \
    >"$root/run/systemd/system/sheath.service.d/log.conf"
(
    echo 0 >"$v2/$name/manager/cgroup.procs"
    export HOME=/root XDG_RUNTIME_DIR=/run XDG_CONFIG_HOME=/run/config
    export SYSTEMD_UNIT_PATH=/run/config/systemd/user:/run/systemd/system:/usr/lib/systemd/system
    exec chroot "$root" /lib/systemd/systemd --user --unit=basic.target --log-target=console
) </dev/null >"$root/manager.log" 2>&1 &
while [ ! -S "$root/run/systemd/private" ]; do sleep 0.1; done
echo "$v2/$name"
read -r _ || true
"#;

/// Longer than anything takes on a busy machine.
const GENEROUS: Duration = Duration::from_secs(60);

/// A root with systemd, and the package installed, with something to protect.
struct Host {
    // First, as it has to end before the root goes.
    manager: Manager,
    root: Root,
}

impl Host {
    #[track_caller]
    fn new() -> Self {
        let root = Root::new();
        let manager = Manager::start(&root);
        root.put(&MADE.package, "/sheath.deb");
        root.sh("dpkg --unpack /sheath.deb
             umask 077
             sheath ca init --dir /var/lib/sheath/ca --trust-domain example.org");
        let configuration = format!(
            "trustDomain: example.org
node: a
identity: {{ ca: {{ dir: /var/lib/sheath/ca }} }}
capture: {{ cgroup: /{name} }}
workloads:
  - name: work
    select: {{ cgroup: /{name}/work }}
    spiffeId: spiffe://example.org/work
    outbound: {{ mode: require }}
",
            name = manager.name
        );
        root.sh(&format!("umask 077; printf '%s' '{configuration}' >/etc/sheath/sheath.yaml"));
        let host = Self { manager, root };
        host.sh("dpkg --configure sheath");
        host
    }

    /// As [`Root::sh`]; what fails says what systemd and the agent have said.
    #[track_caller]
    fn sh(&self, script: &str) -> String {
        let run = || self.root.try_sh(&format!("export SYSTEMD_IGNORE_CHROOT=1\n{script}"));
        run().unwrap_or_else(|said| panic!("{script}: {said}\n{}", self.logs()))
    }

    fn logs(&self) -> String {
        let tail = "tail -n 40 /manager.log /sheath.log 2>&1 || true";
        self.root.try_sh(tail).unwrap_or_default()
    }

    /// Of the unit, as systemd shows it.
    #[track_caller]
    fn property(&self, name: &str) -> String {
        let show = format!("systemctl show --property {name} --value sheath.service");
        self.sh(&show).trim().to_owned()
    }

    #[track_caller]
    fn main_process(&self) -> u32 {
        assert_eq!(self.property("ActiveState"), "active", "{}", self.logs());
        self.property("MainPID").parse().unwrap()
    }

    /// The workload cannot reach anybody without an identity.
    #[track_caller]
    fn assert_refused(&self) {
        let said = self.connect();
        assert!(said.contains("Operation not permitted"), "{said}\n{}", self.logs());
    }

    /// What is said to a connection of the workload, in a namespace without routes.
    #[track_caller]
    fn connect(&self) -> String {
        self.root.sh(&format!(
            "echo 0 >{}/work/cgroup.procs
             bash -c 'exec 3<>/dev/tcp/192.0.2.1/80' || true",
            self.manager.cgroup
        ))
    }

    #[track_caller]
    fn assert_ends(&self, process: u32) {
        let until = Instant::now() + GENEROUS;
        while Path::new(&format!("/proc/{process}")).exists() {
            assert!(Instant::now() < until, "{process} runs\n{}", self.logs());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Makes another package of this one, with a change to its tree, in which the shell stands.
    #[track_caller]
    fn remake(&self, change: &str) {
        self.sh(&format!(
            "rm -rf /tree; dpkg-deb --raw-extract /sheath.deb /tree
             (cd /tree; {change})
             dpkg-deb --root-owner-group -Znone --build /tree /other.deb"
        ));
    }
}

struct Manager {
    process: Child,
    stdin: Option<ChildStdin>,
    name: String,
    /// Its cgroup's directory.
    cgroup: String,
}

impl Manager {
    #[track_caller]
    fn start(root: &Root) -> Self {
        // As an agent does that is the first one on a host.
        let mut mounted = Command::new("findmnt");
        if !mounted.args(["--types", "bpf", "/sys/fs/bpf"]).output().unwrap().status.success() {
            let mount = ["-t", "bpf", "-o", "nosuid,nodev,noexec,mode=0700", "bpf", "/sys/fs/bpf"];
            // Another test may be quicker.
            let _ = Command::new("mount").args(mount).status();
        }
        let name = format!("sheath-package-{}", root.name());
        let mut command = root.outside("sh");
        command.args(["-euc", MANAGE, "sh"]).arg(root.path()).arg(&name);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("running a shell");
        let mut cgroup = String::new();
        let stdout = process.stdout.take().expect("the manager's words");
        BufReader::new(stdout).read_line(&mut cgroup).expect("the manager's words");
        assert!(cgroup.starts_with('/'), "no systemd: {cgroup}");
        let stdin = process.stdin.take();
        Self { process, stdin, name, cgroup: cgroup.trim().to_owned() }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.process.wait();
    }
}

#[test]
fn an_update_puts_the_new_agent_in_the_place_of_the_old_one() {
    let host = Host::new();
    let first = host.main_process();
    host.assert_refused();

    let said = host.sh("dpkg --install /sheath.deb");
    let second = host.main_process();
    let words = format!("process {second} has taken over from process {first}");
    assert!(said.contains(&words), "{said}\n{}", host.logs());
    assert_eq!(host.sh(&format!("readlink /proc/{second}/exe")).trim(), "/usr/bin/sheath");
    host.assert_refused();
    host.assert_ends(first);
    assert_eq!(host.main_process(), second);
    assert_eq!(host.property("NRestarts"), "0");
    host.sh("systemctl reload sheath");

    // systemd looks after it as after one that it has started itself.
    host.sh(&format!("kill -9 {second}"));
    host.assert_ends(second);
    let until = Instant::now() + GENEROUS;
    while host.property("ActiveState") != "active" {
        host.assert_refused();
        assert!(Instant::now() < until, "{}", host.logs());
    }
    assert_eq!(host.property("NRestarts"), "1");
    // Also when it ends while the agent before still gives its connections away.
    host.sh("sheath replace; kill -9 $(systemctl show --property MainPID --value sheath.service)");
    let until = Instant::now() + GENEROUS;
    while host.property("NRestarts") != "2" || host.property("ActiveState") != "active" {
        host.assert_refused();
        assert!(Instant::now() < until, "{}", host.logs());
    }

    // And with an end of both.
    let before = host.main_process();
    host.sh("sheath replace");
    let after = host.main_process();
    assert_ne!(after, before);
    host.sh("systemctl stop sheath");
    host.assert_ends(before);
    host.assert_ends(after);
    // systemd has waited for its end, as for one that it has started itself: live connections have `timeouts.drain`.
    let state = (host.property("ActiveState"), host.property("Result"));
    assert_eq!((&*state.0, &*state.1), ("inactive", "success"), "{}", host.logs());
    host.assert_refused();
    let said = host.sh("dpkg --install /sheath.deb");
    assert!(!said.contains("has taken over"), "{said}");
    host.main_process();
}

#[test]
fn an_update_that_fails_leaves_the_agent_alone() {
    let host = Host::new();
    let agent = host.main_process();
    let assert_goes_on = || {
        assert_eq!(host.main_process(), agent);
        host.assert_refused();
    };

    host.remake(
        "mv usr/bin/sheath usr/bin/sheath.real
         printf '%s\\n' '#!/bin/sh' '[ \"$1\" != run ] || exit 1' 'exec /usr/bin/sheath.real \"$@\"' >usr/bin/sheath
         chmod 755 usr/bin/sheath",
    );
    let said = host.sh("dpkg --install /other.deb");
    assert!(said.contains("has ended before it served"), "{said}");
    assert!(said.contains("the one before goes on"), "{said}");
    assert_goes_on();

    // The new package cannot be unpacked, or its own script fails.
    for script in ["preinst", "postinst"] {
        host.remake(&format!(
            "printf '#!/bin/sh\\nexit 1\\n' >DEBIAN/{script}; chmod 755 DEBIAN/{script}"
        ));
        host.sh("! dpkg --install /other.deb");
        assert_goes_on();
    }
    // Where the administrator wants no service to be touched.
    host.sh(
        "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d
         dpkg --install /sheath.deb",
    );
    assert_goes_on();
    host.sh("rm /usr/sbin/policy-rc.d");

    // Nobody but root may have put there what is started.
    host.sh("chown 65534 /usr/bin/sheath");
    let said = host.sh("! sheath replace");
    assert!(said.contains("belongs to the user 65534"), "{said}");
    host.sh("chown root /usr/bin/sheath");
    let said = host.sh("! setpriv --reuid 65534 --clear-groups sheath replace");
    assert!(said.contains("are you root?"), "{said}");
    assert_goes_on();

    let said = host.sh("dpkg --install /sheath.deb");
    assert!(said.contains(&format!("has taken over from process {agent}")), "{said}");
}

#[test]
fn what_was_protected_is_refused_when_the_package_is_removed_and_free_when_it_is_purged() {
    let host = Host::new();
    let agent = host.main_process();
    host.sh("dpkg --remove sheath");
    host.assert_ends(agent);
    host.assert_refused();

    // Not the administrator's wish any more, and so not started.
    host.sh("dpkg --install /sheath.deb");
    let agent = host.main_process();
    host.sh("systemctl disable --now sheath");
    host.assert_ends(agent);
    let said = host.sh("dpkg --install /sheath.deb");
    assert!(said.contains("disabled"), "{said}");
    assert_eq!(host.property("ActiveState"), "inactive");
    host.sh("systemctl enable --now sheath");
    let agent = host.main_process();

    let said = host.sh("dpkg --purge sheath");
    assert!(said.contains("what was protected is refused from now on"), "{said}");
    host.assert_ends(agent);
    let said = host.connect();
    assert!(said.contains("Network is unreachable"), "{said}");
    host.sh("test ! -e /sys/fs/bpf/sheath && test ! -e /run/sheath");
    host.sh("test -e /etc/sheath/sheath.yaml && test -e /var/lib/sheath/ca");
}
