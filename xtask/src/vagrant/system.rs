//! A system in which Vagrant is installed, with libvirt and QEMU: a directory with Debian packages, and a program that runs
//! commands in it. So nothing is installed on the machine, and nothing of the machine is seen by what runs there.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::prerequisites::Need;
use crate::vm::root;
use crate::{cache, console, install, workspace};

/// The last suite of Debian that has Vagrant.
const SUITE: &str = "bookworm";

const PACKAGES: [&str; 13] = [
    "curl",
    "dnsmasq-base",
    "iproute2",
    "iptables",
    "libvirt-clients",
    "libvirt-daemon-driver-qemu",
    "libvirt-daemon-system",
    "openssh-client",
    "qemu-system-x86",
    "qemu-utils",
    "tcpdump",
    "vagrant",
    "vagrant-libvirt",
];

/// Runs commands in it.
const ENTER: &str = include_str!("enter.sh");

/// Path and content.
const FILES: [(&str, &str); 4] = [
    ("/usr/local/bin/with-libvirtd", WITH_LIBVIRTD),
    ("/usr/local/bin/VBoxManage", VBOXMANAGE),
    ("/etc/libvirt/qemu.conf", QEMU),
    ("/etc/libvirt/libvirtd.conf", "auth_unix_rw = \"none\"\nunix_sock_group = \"root\"\n"),
];

/// What stands for VirtualBox, which Debian does not have: Vagrant asks it for its version before it reads what a Vagrantfile
/// says of that provider. It can do nothing else.
const VBOXMANAGE: &str = "#!/bin/sh
[ \"$*\" = --version ] && echo 7.0.20r163906
";

/// Nobody else is there: neither users nor a service manager.
const QEMU: &str = "user = \"root\"
group = \"root\"
security_driver = \"none\"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = \"file\"
";

const WITH_LIBVIRTD: &str = "#!/bin/sh
# Runs a command beside libvirt's daemon.
set -eu
mkdir -p /var/log/libvirt /var/lib/libvirt/images
libvirtd --daemon
tries=0
until virsh --quiet --connect qemu:///system version >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 200 ] || { echo 'libvirtd does not answer' >&2; exit 1; }
    sleep 0.3
done
exec \"$@\"
";

/// Sees to it that there is the system, and that `target/tools/vagrant` has the program that runs commands in it. Returns that.
///
/// # Errors
/// When packages cannot be had, or mmdebstrap fails.
pub fn ensure() -> Result<PathBuf> {
    let home = cache::home("vagrant")?;
    let dir = home.join(key());
    if !dir.exists() {
        ensure!(install::is_root(), "only root can unpack Debian's packages with their owners");
        install::ensure(&[Need::Vagrant])?;
        cache::locked(&home, || if dir.exists() { Ok(()) } else { make(&dir) })?;
    }
    let tools = workspace::tools_dir().join("vagrant");
    let enter = tools.join("enter");
    enterable(&dir, &tools, &enter).with_context(|| format!("cannot fill {}", tools.display()))?;
    Ok(enter)
}

/// What is there already may be in use.
fn enterable(dir: &Path, tools: &Path, enter: &Path) -> io::Result<()> {
    fs::create_dir_all(tools)?;
    let link = tools.join("system");
    if fs::read_link(&link).ok().as_deref() != Some(dir) {
        let _ = fs::remove_file(&link);
        symlink(dir, &link)?;
    }
    if fs::read(enter).ok().as_deref() != Some(ENTER.as_bytes()) {
        let new = tools.join("enter.new");
        fs::write(&new, ENTER)?;
        fs::set_permissions(&new, Permissions::from_mode(0o755))?;
        fs::rename(new, enter)?;
    }
    Ok(())
}

/// What stands for the recipe.
fn key() -> String {
    let mut parts = vec!["1", SUITE];
    parts.extend(PACKAGES);
    parts.extend(FILES.iter().flat_map(|(path, content)| [*path, *content]));
    cache::digest(&parts)
}

fn make(dir: &Path) -> Result<()> {
    console::step("a system with Vagrant and libvirt, from Debian packages", || {
        cache::made(dir, |dir| {
            let (tree, settings) = (dir.join("tree"), dir.join("apt.conf"));
            let recipe = root::Recipe { suite: SUITE, packages: &PACKAGES, finish: "true" };
            root::bootstrap(&recipe, &tree, &settings)?;
            root::add(&tree, &FILES, &[])?;
            for (program, _) in FILES.iter().filter(|(path, _)| path.contains("/bin/")) {
                let program = tree.join(program.trim_start_matches('/'));
                fs::set_permissions(&program, Permissions::from_mode(0o755))
                    .with_context(|| format!("cannot make {} a program", program.display()))?;
            }
            // Where what is written is mounted, in a namespace of its own.
            fs::create_dir(dir.join("mnt")).context("cannot create a directory")?;
            fs::remove_file(&settings).context("cannot remove apt's settings")
        })
    })
}
