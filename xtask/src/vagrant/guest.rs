//! What a machine of Vagrant has beside the packages of the tests' machines
//! (<https://developer.hashicorp.com/vagrant/docs/boxes/base>): a way in for Vagrant, and addresses by DHCP.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, Result};

/// Beside those of the tests' machines. Without udev, systemd-networkd waits for it.
pub const PACKAGES: [&str; 3] = ["openssh-server", "sudo", "udev"];

/// Run when the packages are installed: Vagrant's user. The keys that the package made would be those of all machines.
pub const FINISH: &str = "chroot \"$1\" useradd --create-home --uid 1000 --shell /bin/bash vagrant \
                          && rm -f \"$1\"/etc/ssh/ssh_host_*";

/// The user whom [`FINISH`] makes, and its group.
const USER: u32 = 1000;

/// Path and content.
pub const FILES: [(&str, &str); 9] = [
    (AUTHORIZED_KEYS, KEY),
    ("/etc/sudoers.d/vagrant", "vagrant ALL=(ALL) NOPASSWD: ALL\n"),
    ("/etc/ssh/sshd_config.d/vagrant.conf", SSHD),
    ("/etc/systemd/system/ssh.service.d/host-key.conf", HOST_KEY),
    ("/etc/systemd/network/80-management.network", MANAGEMENT),
    ("/etc/hostname", "sheath\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    // Each machine makes its own, without a first boot (machine-id(5)): by it leases of DHCP are told apart.
    ("/etc/machine-id", ""),
    // Emulated processors are slow.
    (
        "/etc/systemd/system.conf.d/slow.conf",
        "[Manager]\nDefaultTimeoutStartSec=300s\nDefaultTimeoutStopSec=120s\n",
    ),
];

/// Path and where it leads.
pub const LINKS: [(&str, &str); 2] = [
    ("/etc/systemd/system/default.target", "/usr/lib/systemd/system/multi-user.target"),
    (
        "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
        "/usr/lib/systemd/system/systemd-networkd.service",
    ),
];

const AUTHORIZED_KEYS: &str = "/home/vagrant/.ssh/authorized_keys";

/// Everybody has the private part; `vagrant up` puts a new key in its place. As in `keys/vagrant.pub` of Vagrant.
const KEY: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzIw+niNltGEFHzD8+\
v1I2YJ6oXevct1YeS0o9HZyN1Q9qgCgzUFtdOKLv6IedplqoPkcmF0aYet2PkEDo3MlTBckFXPITAMzF8dJSIFo9D8HfdOV0IAdx4O7PtixWKn5y2hMNG0zQ\
PyUecp4pzC6kivAIhyfHilFR61RGL+GPXQ2MWZWFYbAGjyiYJnAmCP3NOTd0jMZEnDkbUvxhMmBYSdETk1rRgm+R4LOzFUGaHqHDLKLX+FIPKcF96hrucXzc\
WyLbIbEgE98OHlnVYCzRdK8jlqm8tehUc9c9WhQ== vagrant insecure public key
";

const SSHD: &str = "PasswordAuthentication no\nUseDNS no\nHostKey /etc/ssh/ssh_host_ecdsa_key\n";

/// Made by each machine, before sshd looks for it. One of the kinds that every client of Vagrant knows.
const HOST_KEY: &str = "[Service]
ExecStartPre=
ExecStartPre=/bin/sh -c 'test -s /etc/ssh/ssh_host_ecdsa_key || ssh-keygen -q -t ecdsa -N \"\" -f /etc/ssh/ssh_host_ecdsa_key'
ExecStartPre=/usr/sbin/sshd -t
";

/// The network by which Vagrant reaches the machine is its first. Where systemd-networkd runs, Vagrant has it set up the others.
const MANAGEMENT: &str = "[Match]
Name=eth0

[Network]
DHCP=ipv4

[DHCPv4]
ClientIdentifier=mac
";

/// Gives the user what is the user's.
///
/// # Errors
/// When it is not there.
pub fn own(tree: &Path) -> Result<()> {
    let keys = tree.join(AUTHORIZED_KEYS.trim_start_matches('/'));
    let dir = keys.parent().context("a directory")?;
    for (path, mode) in [(&*keys, 0o600), (dir, 0o700)] {
        fs::set_permissions(path, Permissions::from_mode(mode))
            .and_then(|()| chown(path, Some(USER), Some(USER)))
            .with_context(|| format!("cannot give away {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_one_line_of_an_authorized_keys() {
        let fields: Vec<&str> = KEY.trim_end().splitn(3, ' ').collect();
        assert_eq!(fields.len(), 3);
        assert_eq!(KEY.lines().count(), 1);
        // A key of 2048 bits with the exponent 35: 277 bytes.
        assert_eq!(fields[1].len(), 372);
        assert!(fields[1].ends_with("=="));
    }

    #[test]
    fn machines_do_not_share_what_tells_them_apart() {
        assert!(FILES.contains(&("/etc/machine-id", "")));
        assert!(FINISH.contains("rm -f \"$1\"/etc/ssh/ssh_host_*"));
    }
}
