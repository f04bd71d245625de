//! What a machine of the tests has beside Debian's packages: the way in for the tests, and a network.

/// Services of packages that a test starts itself when it wants them.
pub const DISABLED: [&str; 9] = [
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "nginx.service",
    "nftables.service",
    "redis-server.service",
    "getty@tty1.service",
];

/// Units that take seconds of an emulated processor each, for what nobody uses in a machine.
pub const MASKED: [&str; 6] = [
    "ldconfig.service",
    "modprobe@configfs.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "systemd-journal-catalog-update.service",
];

/// Path and content.
pub const FILES: [(&str, &str); 9] = [
    ("/etc/systemd/system/sheath-guest.service", GUEST),
    ("/etc/systemd/system/network.service", NETWORK),
    ("/usr/local/lib/tests-network", ADDRESSES),
    // Not those of where this was made; the kernel's parameters say the name.
    ("/etc/hostname", "host\n"),
    ("/etc/resolv.conf", ""),
    // Both machines have the same root, and no first boot.
    ("/etc/machine-id", "5ea7b0a75ea7b0a75ea7b0a75ea7b0a7\n"),
    // In memory: what is told of a machine that fails is this boot's.
    ("/etc/systemd/journald.conf.d/tests.conf", "[Journal]\nStorage=volatile\nRateLimitBurst=0\n"),
    // Tests wait for units, and emulated processors are slow.
    (
        "/etc/systemd/system.conf.d/tests.conf",
        "[Manager]\nDefaultTimeoutStartSec=300s\nDefaultTimeoutStopSec=120s\n",
    ),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n10.0.1.1 host-a\n10.0.2.1 host-b\n"),
];

/// Path and where it leads.
pub const LINKS: [(&str, &str); 6] = [
    ("/etc/systemd/system/default.target", "/usr/lib/systemd/system/multi-user.target"),
    ("/etc/systemd/system/sysinit.target.wants/sheath-guest.service", "../sheath-guest.service"),
    ("/etc/systemd/system/multi-user.target.wants/network.service", "../network.service"),
    // Nobody logs in, and the serial line is the kernel's.
    ("/etc/systemd/system/serial-getty@.service", "/dev/null"),
    ("/etc/systemd/system/getty.target", "/dev/null"),
    ("/etc/systemd/system/systemd-ask-password-wall.path", "/dev/null"),
];

/// There from early on, so that a boot that fails can be looked at.
const GUEST: &str = "[Unit]
Description=Runs what the tests ask for
DefaultDependencies=no
After=systemd-journald.socket
Conflicts=shutdown.target
Before=shutdown.target

[Service]
ExecStart=/opt/sheath/guest
Restart=always
OOMScoreAdjust=-1000
LimitNOFILE=20000:524288
TasksMax=infinity
";

/// A network as ifupdown and systemd-networkd set it up, in the same place of the order. The machine's number is among the
/// kernel's parameters.
const NETWORK: &str = "[Unit]
Description=The network of the tests
DefaultDependencies=no
Wants=network.target
After=local-fs.target network-pre.target systemd-sysctl.service
Before=network.target shutdown.target
Conflicts=shutdown.target
ConditionKernelCommandLine=sheath.number

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -e /usr/local/lib/tests-network
";

const ADDRESSES: &str = "for word in $(cat /proc/cmdline); do
  case $word in sheath.number=*) n=${word#*=} ;; esac
done
ip link set eth0 up
ip address replace 10.0.$n.1/16 dev eth0
ip address replace fd00::$n:1/64 dev eth0 nodad
";
