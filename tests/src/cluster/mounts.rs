//! What a machine sees of the file system: the host's, but with everything of its own where Kubernetes, containerd and
//! Sheath keep things. All mounts are in a namespace of the machine's, and go with it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use super::state::State;
use crate::binaries;

/// Files below `/proc/sys` that kubelet insists on. They are the whole machine's, so what it reads and writes
/// is a file of the node's own (k/k pkg/kubelet/cm/container_manager_linux.go, setupKernelTunables).
const SYSCTLS: [(&str, &str); 6] = [
    ("kernel/keys/root_maxbytes", "25000000"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
];

/// Directories that are empty when a machine comes up, and in memory.
const EMPTY: [&str; 3] = ["/run", "/opt", "/var/lib"];

/// Directories that are kept in the cluster's directory, which is on a disk: containerd's snapshots cannot be on an
/// overlay, and logs and volumes are big. `/etc` is the host's, with changes of its own.
const KEPT: [(&str, &str); 3] =
    [("/var/lib/containerd", "containerd"), ("/var/lib/kubelet", "kubelet"), ("/var/log", "log")];

/// One of which nothing is covered. In a user namespace nobody may mount a proc who does not see a whole one (fs/namespace.c,
/// mount_too_revealing), and files of the node's `/proc/sys` are covered.
const WHOLE_PROC: &str = "/run/proc";

const CNI_PLUGINS: [&str; 3] = ["host-local", "loopback", "ptp"];

/// The mounts of one machine.
pub struct View {
    dir: PathBuf,
    sysctls: Vec<(PathBuf, PathBuf)>,
}

impl View {
    /// Makes what will be mounted.
    ///
    /// # Errors
    /// When that fails.
    pub fn prepare(machine: &str, state: &State) -> Result<Self> {
        let dir = state.make_dir(machine)?;
        for name in KEPT.iter().map(|(_, name)| *name).chain(["etc/upper", "etc/work"]) {
            state.make_dir(&format!("{machine}/{name}"))?;
        }
        let mut sysctls = Vec::new();
        for (key, value) in SYSCTLS {
            let name = key.replace('/', ".");
            let file = state.write(&format!("{machine}/sysctl/{name}"), &format!("{value}\n"))?;
            let target = Path::new("/proc/sys").join(key);
            if target.exists() {
                sysctls.push((file, target));
            }
        }
        Ok(Self { dir, sysctls })
    }

    /// Mounts everything in the calling thread's own namespace.
    ///
    /// # Errors
    /// When that fails.
    pub fn mount(&self) -> Result<()> {
        // Nothing goes to the host any more, or comes from it.
        propagate("/", MsFlags::MS_PRIVATE)?;
        for at in EMPTY {
            new("tmpfs", at, "mode=0755")?;
        }
        fs::create_dir(WHOLE_PROC).context("cannot create a directory for a proc")?;
        new("proc", WHOLE_PROC, "")?;
        for (at, name) in KEPT {
            fs::create_dir_all(at).with_context(|| format!("cannot create {at}"))?;
            bind(&self.dir.join(name), Path::new(at))?;
        }
        let etc = self.dir.join("etc");
        let layers = format!(
            "lowerdir=/etc,upperdir={},workdir={}",
            etc.join("upper").display(),
            etc.join("work").display()
        );
        new("overlay", "/etc", &layers)?;
        install_cni_plugins().context("cannot install CNI plugins")?;
        for (file, target) in &self.sysctls {
            bind(file, target)?;
        }
        // As systemd has it: pods see mounts that are made later, if they ask for it.
        propagate("/", MsFlags::MS_SHARED)
    }
}

/// The programs that containerd looks for, where it looks for them. Others may be added there.
fn install_cni_plugins() -> std::io::Result<()> {
    let dir = Path::new("/opt/cni/bin");
    fs::create_dir_all(dir)?;
    for name in CNI_PLUGINS {
        std::os::unix::fs::symlink(binaries::cluster_program(name), dir.join(name))?;
    }
    Ok(())
}

fn new(kind: &str, at: &str, options: &str) -> Result<()> {
    mount(Some(kind), at, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("cannot mount {kind} at {at}"))
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("cannot mount {} at {}", from.display(), to.display()))
}

fn propagate(at: &str, how: MsFlags) -> Result<()> {
    mount(None::<&str>, at, None::<&str>, how | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("cannot change how mounts below {at} propagate"))
}
