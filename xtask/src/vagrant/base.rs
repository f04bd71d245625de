//! `cargo xtask vagrant-box`: a box for the libvirt provider, of the packages that the tests' machines have.
//!
//! It is a directory in a tar archive (<https://vagrant-libvirt.github.io/vagrant-libvirt/boxes.html>): a disk with one file
//! system, and beside it the kernel, which libvirt hands to the machine itself. So there is no boot loader to install, which
//! would take a loop device of the machine that this runs on.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::guest;
use crate::prerequisites::Need;
use crate::vm::disk::{self, Use};
use crate::vm::kernels::{self, KERNELS};
use crate::vm::{initramfs, root};
use crate::{cache, command, console, install, workspace};

/// The kernel of the suite that the root is of.
const KERNEL: &str = "6.12";

/// What the box tells Vagrant of its machines. `/box` is [`INIT`]; the names of interfaces are those that the network is
/// set up by.
const VAGRANTFILE: &str = r#"Vagrant.configure("2") do |config|
  config.vm.provider :libvirt do |libvirt|
    libvirt.kernel = File.expand_path("vmlinuz", __dir__)
    libvirt.initrd = File.expand_path("initrd", __dir__)
    libvirt.cmd_line = "rdinit=/box net.ifnames=0 console=ttyS0 quiet systemd.show_status=false"
    # An emulated processor does not have the faults that these are against, and they slow it down.
    libvirt.cmd_line += " mitigations=off no5lvl" if ENV["SHEATH_LIBVIRT_DRIVER"] == "qemu"
  end
end
"#;

/// What runs first: as the tests' machines begin, but with one disk.
const INIT: (&str, &str) = (
    "box",
    r#"#!/bin/busybox sh
B=/bin/busybox
$B mount -t devtmpfs devtmpfs /dev
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
for module in $($B cat /modules/order); do $B insmod /modules/$module; done
tries=0
until [ -b /dev/vda ] || [ $tries = 100 ]; do $B sleep 0.1; tries=$((tries + 1)); done
$B mount -t ext4 /dev/vda /root
for tree in dev proc sys; do $B mount --move /$tree /root/$tree; done
exec $B switch_root /root /sbin/init
"#,
);

/// Sees to it that there is a box. Returns it.
///
/// # Errors
/// When packages cannot be had, or something that makes it fails.
pub fn ensure() -> Result<PathBuf> {
    ensure!(std::env::consts::ARCH == "x86_64", "boxes can be made on x86_64 alone");
    ensure!(install::is_root(), "only root can unpack Debian's packages with their owners");
    install::ensure(&[Need::Vm, Need::Box])?;
    let home = cache::home("vm")?;
    let parts = cache::locked(&home, || parts(&home))?;
    let file = workspace::target_dir().join("vagrant/sheath.box");
    console::step("box", || archive(&parts, &file))?;
    Ok(file)
}

/// What the archive consists of, kept in the cache.
fn parts(home: &Path) -> Result<PathBuf> {
    let names = [KERNEL.to_owned()];
    let [kernel] = kernels::named(&KERNELS, &names)?[..] else {
        unreachable!("one name, one kernel")
    };
    let kernel_dir = kernels::ensure(home, kernel, false)?;
    let version = fs::read_to_string(kernel_dir.join("version"))
        .context("cannot read the kernel's version")?;
    let dir = home.join(format!("box-{}", key(&version)));
    if dir.exists() {
        return Ok(dir);
    }
    console::step("the box's disk, from Debian packages", || {
        cache::made(&dir, |dir| {
            let (tree, raw) = (dir.join("tree"), dir.join("root.ext4"));
            fill(&tree, &dir.join("apt.conf"), &kernel_dir)?;
            disk::write(&tree, &raw, Use::Root)?;
            convert(&raw, &dir.join("box.img"))?;
            fs::copy(kernel_dir.join("vmlinuz"), dir.join("vmlinuz"))
                .context("cannot copy the kernel")?;
            // For the kernel's parameter `rdinit`.
            let init = [(INIT.0, INIT.1.as_bytes())];
            initramfs::write_with(&kernel_dir.join("initramfs"), &init, &dir.join("initrd"))?;
            let size = fs::metadata(&raw).context("cannot read the disk")?.len();
            fs::write(dir.join("metadata.json"), metadata(size))
                .and_then(|()| fs::write(dir.join("Vagrantfile"), VAGRANTFILE))
                .and_then(|()| fs::remove_file(&raw))
                .and_then(|()| fs::remove_file(dir.join("apt.conf")))
                .and_then(|()| fs::remove_dir_all(&tree))
                .context("cannot finish the box")
        })
    })?;
    Ok(dir)
}

/// What stands for the recipe.
fn key(kernel: &str) -> String {
    let mut parts = vec!["1", kernel, root::MACHINE.suite, guest::FINISH];
    parts.extend(root::MACHINE.packages.iter().chain(&guest::PACKAGES).chain(root::quiet()));
    let texts = guest::FILES.iter().chain(&guest::LINKS);
    parts.extend(texts.flat_map(|(path, content)| [*path, *content]));
    parts.extend([VAGRANTFILE, INIT.1]);
    cache::digest(&parts)
}

fn fill(tree: &Path, settings: &Path, kernel: &Path) -> Result<()> {
    let packages = [root::MACHINE.packages, &guest::PACKAGES].concat();
    let recipe = root::Recipe { packages: &packages, finish: guest::FINISH, ..root::MACHINE };
    root::bootstrap(&recipe, tree, settings)?;
    root::add(tree, &guest::FILES, &guest::LINKS)?;
    guest::own(tree)?;
    // There is no second disk for the kernel's modules.
    let modules = tree.join("usr/lib/modules");
    fs::create_dir_all(&modules).context("cannot create the modules' directory")?;
    let mut debugfs = command::plain("debugfs");
    debugfs.arg("-R").arg(format!("rdump / {}", modules.display()));
    debugfs.arg(kernel.join("modules.ext4")).stderr(Stdio::null());
    command::run(&mut debugfs)?;
    // What mkfs makes beside the files.
    match fs::remove_dir(modules.join("lost+found")) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
    .context("cannot tidy up the modules")?;
    ensure!(
        fs::read_dir(&modules).is_ok_and(|mut releases| releases.next().is_some()),
        "debugfs found no modules in {}",
        kernel.display()
    );
    Ok(())
}

fn convert(raw: &Path, image: &Path) -> Result<()> {
    let mut convert = command::plain("qemu-img");
    command::run(convert.args(["convert", "-f", "raw", "-O", "qcow2"]).arg(raw).arg(image))
}

/// `metadata.json` of a box whose disk has this many bytes. Its unit is the GiB.
fn metadata(size: u64) -> String {
    let virtual_size = size.div_ceil(1 << 30);
    json!({ "provider": "libvirt", "format": "qcow2", "virtual_size": virtual_size }).to_string()
}

fn archive(parts: &Path, file: &Path) -> Result<()> {
    let dir = file.parent().context("a directory")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut tar = command::plain("tar");
    tar.args(["--create", "--sparse", "--numeric-owner", "--owner=0", "--group=0", "--file"]);
    tar.arg(file).arg("--directory").arg(parts);
    command::run(tar.args(["metadata.json", "Vagrantfile", "vmlinuz", "initrd", "box.img"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_fits_into_the_size_that_the_box_tells() {
        for (bytes, size) in [(1, 1), (1 << 30, 1), ((1 << 30) + 1, 2), (2_312_906_240, 3)] {
            let metadata: serde_json::Value = serde_json::from_str(&metadata(bytes)).unwrap();
            assert_eq!(metadata["virtual_size"], size, "{bytes}");
            assert_eq!(metadata["provider"], "libvirt");
            assert_eq!(metadata["format"], "qcow2");
        }
    }

    #[test]
    fn the_script_that_the_kernel_runs_is_the_one_in_the_initramfs() {
        assert!(VAGRANTFILE.contains(&format!("rdinit=/{} ", INIT.0)));
    }

    #[test]
    fn the_kernel_is_one_that_there_is() {
        assert_eq!(
            kernels::named(&KERNELS, &[KERNEL.to_owned()]).unwrap()[0].suite,
            root::MACHINE.suite
        );
    }
}
