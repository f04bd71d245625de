//! The kernels that machines boot: Debian's own, from its packages.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result, bail};

use super::disk::{self, Use};
use super::initramfs;
use crate::architecture::Architecture;
use crate::repository::Repository;
use crate::{cache, command, console};

/// A kernel by what its package is called.
#[derive(Debug)]
pub struct Kernel {
    pub name: &'static str,
    /// The suite of Debian.
    pub suite: &'static str,
    /// A package that depends on the suite's newest image of this kind.
    pub package: &'static str,
}

/// By age. Cloud kernels have no drivers for hardware, and are the same otherwise.
pub static KERNELS: [Kernel; 4] = [
    Kernel { name: "6.1", suite: "bookworm", package: "linux-image-cloud-amd64" },
    Kernel { name: "6.12", suite: "trixie", package: "linux-image-cloud-amd64" },
    Kernel { name: "newest", suite: "sid", package: "linux-image-cloud-amd64" },
    // Preemptible everywhere (PREEMPT_RT).
    Kernel { name: "rt", suite: "trixie", package: "linux-image-rt-amd64" },
];

/// The oldest and the newest.
pub fn ends() -> [&'static Kernel; 2] {
    [&KERNELS[0], &KERNELS[2]]
}

/// Has a static shell and what mounts file systems, for the first moments of a machine.
const BUSYBOX: (&str, &str) = ("bookworm", "busybox-static");

/// The kernels of these names among those that there are; all for none.
///
/// # Errors
/// When there is no such kernel; names those that there are.
pub fn named(all: &'static [Kernel], names: &[String]) -> Result<Vec<&'static Kernel>> {
    if names.is_empty() {
        return Ok(all.iter().collect());
    }
    let named = |name: &String| {
        all.iter().find(|kernel| kernel.name == *name).with_context(|| {
            let names: Vec<&str> = all.iter().map(|kernel| kernel.name).collect();
            format!("no kernel `{name}`; there are {}", names.join(", "))
        })
    };
    names.iter().map(named).collect()
}

/// Sees to it that a directory has `vmlinuz`, `initramfs`, `modules.ext4` and `version` (release, package, its version and its
/// suite) of a kernel. Returns it.
///
/// # Errors
/// When the packages cannot be had, or are not built as they used to be.
pub fn ensure(home: &Path, kernel: &Kernel, update: bool) -> Result<PathBuf> {
    let [init, modules] = initramfs::MACHINE.parts();
    let made_of = ["1", kernel.suite, kernel.package, &init, &modules];
    let dir = home.join(format!("kernel-{}-{}", kernel.name, cache::digest(&made_of)));
    if dir.exists() && !update {
        return Ok(dir);
    }
    console::step(&format!("kernel {}", kernel.name), || {
        let repository = Repository::open(home, kernel.suite, Architecture::Amd64)?;
        let (version, packages) = packages(&repository, kernel.package)?;
        let old = fs::read_to_string(dir.join("version")).unwrap_or_default();
        if old.split_whitespace().any(|word| word == version) {
            return Ok(());
        }
        if dir.exists() {
            fs::remove_dir_all(&dir).context("cannot remove the old kernel")?;
        }
        cache::made(&dir, |dir| {
            let names: Vec<&str> = packages.iter().map(String::as_str).collect();
            let tree = repository.unpack(&names, &dir.join("kernel"))?;
            let release = take(&tree, dir)?;
            let shell = shell(home, Architecture::Amd64, dir)?;
            let modules = dir.join(MODULES);
            let place = modules.join(&release);
            initramfs::write(&initramfs::MACHINE, &shell, &place, &dir.join("initramfs"))?;
            disk::write(&modules, &dir.join("modules.ext4"), Use::Data)?;
            tidy(dir)?;
            let origin = format!("{release} {} {version} {}\n", packages[0], kernel.suite);
            fs::write(dir.join("version"), origin).context("cannot write the kernel's version")
        })
    })?;
    Ok(dir)
}

/// Version and names of the packages that make up the kernel that `package` depends on: the image, and in newer suites what that
/// depends on of the same release (the kernel itself, its modules, what describes them).
///
/// # Errors
/// When there are no such packages.
pub fn packages(repository: &Repository, package: &str) -> Result<(String, Vec<String>)> {
    const IMAGE: &str = "linux-image-";
    let (_, names) = repository.describe(package)?;
    let image = names.into_iter().find(|name| name.starts_with(IMAGE));
    let image = image.with_context(|| format!("{package} depends on no image"))?;
    let (version, names) = repository.describe(&image)?;
    let release = image.trim_start_matches(IMAGE).to_owned();
    let parts = names.into_iter().filter(|name| name.ends_with(&release));
    Ok((version, [image].into_iter().chain(parts).collect()))
}

/// Where [`take`] leaves modules, by the kernel's release: depmod looks for them there.
pub const MODULES: &str = "modules/lib/modules";

/// Takes the kernel (`vmlinuz`) and its modules ([`MODULES`]) out of what the packages have. Returns the kernel's release.
///
/// # Errors
/// When the packages are not built as they used to be.
pub fn take(tree: &Path, dir: &Path) -> Result<String> {
    let modules = ["lib/modules", "usr/lib/modules"].map(|dir| tree.join(dir));
    let modules = modules.into_iter().find(|dir| dir.is_dir()).context("no modules")?;
    let release = only_entry(&modules)?;
    let modules = modules.join(&release);
    // Newer packages have the kernel beside its modules.
    let images = [tree.join(format!("boot/vmlinuz-{release}")), modules.join("vmlinuz")];
    let image = images.into_iter().find(|file| file.is_file());
    let image = image.with_context(|| format!("no kernel {release} in its package"))?;
    fs::rename(image, dir.join("vmlinuz")).context("cannot keep the kernel")?;
    let place = dir.join(MODULES);
    fs::create_dir_all(&place)
        .and_then(|()| fs::rename(modules, place.join(&release)))
        .context("cannot keep the modules")?;
    let mut depmod = command::plain("depmod");
    command::run(depmod.arg("--basedir").arg(dir.join("modules")).arg(&release))?;
    Ok(release)
}

/// Unpacks a static shell. Returns it.
///
/// # Errors
/// When it cannot be had.
pub fn shell(home: &Path, architecture: Architecture, dir: &Path) -> Result<PathBuf> {
    let (suite, package) = BUSYBOX;
    let repository = Repository::open(home, suite, architecture)?;
    let tree = repository.unpack(&[package], &dir.join("busybox"))?;
    let shell = ["bin/busybox", "usr/bin/busybox"].map(|path| tree.join(path));
    shell.into_iter().find(|path| path.is_file()).context("no busybox")
}

/// Removes what the parts of a machine were made of.
///
/// # Errors
/// When it cannot be removed.
pub fn tidy(dir: &Path) -> Result<()> {
    for left in ["kernel", "busybox", "modules"] {
        fs::remove_dir_all(dir.join(left)).with_context(|| format!("cannot remove {left}"))?;
    }
    Ok(())
}

/// The name of the only thing in a directory.
fn only_entry(dir: &Path) -> Result<String> {
    let cannot = || format!("cannot read {}", dir.display());
    let names = fs::read_dir(dir).with_context(cannot)?.map(|entry| Ok(entry?.file_name()));
    let names: Vec<OsString> = names.collect::<io::Result<_>>().with_context(cannot)?;
    match &names[..] {
        [name] => Ok(name.display().to_string()),
        _ => bail!("one kernel was expected in {}: {names:?}", dir.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_is_not_there_is_refused_with_those_that_are() {
        assert_eq!(named(&KERNELS, &[]).unwrap().len(), KERNELS.len());
        assert_eq!(ends().map(|kernel| kernel.name), ["6.1", "newest"]);
        assert_eq!(named(&KERNELS, &["rt".to_owned()]).unwrap()[0].name, "rt");
        let error = named(&KERNELS, &["5.4".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("6.1, 6.12"), "{error}");
    }
}
