//! What machines for arm64 boot: Debian's kernels, with an initramfs that is all they have.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::architecture::Architecture;
use crate::repository::Repository;
use crate::vm::initramfs::{self, Recipe};
use crate::vm::kernels::{self, Kernel};
use crate::{cache, console, workspace};

/// By age. Of pages, most kernels for arm64 have those of 4 KiB, and others those of 16 KiB.
pub static KERNELS: [Kernel; 3] = [
    Kernel { name: "6.1", suite: "bookworm", package: "linux-image-cloud-arm64" },
    Kernel { name: "6.12", suite: "trixie", package: "linux-image-cloud-arm64" },
    Kernel { name: "16k", suite: "trixie", package: "linux-image-arm64-16k" },
];

/// Runs what [`super::SCENARIO`] is, and takes the power away.
const INIT: &str = r#"#!/bin/busybox sh
B=/bin/busybox
$B mount -t devtmpfs devtmpfs /dev
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
$B --install -s /bin
for module in $($B cat /modules/order); do $B insmod /modules/$module; done
PATH=/bin sh /bin/scenario
$B poweroff -f
"#;

/// Modules that nobody loads when they are needed, as kmod is not there.
const RECIPE: Recipe =
    Recipe { init: INIT, modules: &[("veth", true), ("inet_diag", true), ("tcp_diag", true)] };

/// Sees to it that a directory has `vmlinuz` and `initramfs` of a kernel. Returns it.
///
/// # Errors
/// When the packages cannot be had, or are not built as they used to be.
pub fn ensure(home: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let [init, modules] = RECIPE.parts();
    let made_of = ["1", kernel.suite, kernel.package, &init, &modules];
    let dir = home.join(format!("kernel-{}-{}", kernel.name, cache::digest(&made_of)));
    if dir.exists() {
        return Ok(dir);
    }
    console::step(&format!("kernel {} for arm64", kernel.name), || {
        let repository = Repository::open(home, kernel.suite, Architecture::Arm64)?;
        let (_, packages) = kernels::packages(&repository, kernel.package)?;
        cache::made(&dir, |dir| {
            let names: Vec<&str> = packages.iter().map(String::as_str).collect();
            let tree = repository.unpack(&names, &dir.join("kernel"))?;
            let release = kernels::take(&tree, dir)?;
            let shell = kernels::shell(home, Architecture::Arm64, dir)?;
            let modules = dir.join(kernels::MODULES).join(release);
            initramfs::write(&RECIPE, &shell, &modules, &dir.join("initramfs"))?;
            kernels::tidy(dir)
        })
    })?;
    Ok(dir)
}

/// Writes the initramfs of a machine with an agent and a script. Returns it.
///
/// # Errors
/// When something cannot be read or written.
pub fn furnish(kernel: &Path, agent: &Path, script: &str) -> Result<PathBuf> {
    let program = fs::read(agent).with_context(|| format!("cannot read {}", agent.display()))?;
    let dir = workspace::target_dir().join("arm64");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let file = dir.join("initramfs");
    let more: [(&str, &[u8]); 2] = [("bin/sheath", &program), ("bin/scenario", script.as_bytes())];
    initramfs::write_with(&kernel.join("initramfs"), &more, &file)?;
    Ok(file)
}
