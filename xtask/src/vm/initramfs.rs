//! The initramfs of a machine: it loads the modules that reach the disks, mounts those, and goes on with systemd.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::command;

/// What runs first. Disks are named in the order in which the machine has them. `sheath.probe` asks only whether a kernel
/// runs at all.
const INIT: &str = r#"#!/bin/busybox sh
B=/bin/busybox
$B mount -t devtmpfs devtmpfs /dev
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
for module in $($B cat /modules/order); do $B insmod /modules/$module; done
case " $($B cat /proc/cmdline) " in
*" sheath.probe "*) echo sheath-probe-alive >/dev/console; $B poweroff -f ;;
esac
tries=0
until [ -b /dev/vdc ] || [ $tries = 100 ]; do $B sleep 0.1; tries=$((tries + 1)); done
$B mount -t ext4 -o noatime /dev/vda /root
$B mount -t ext4 -o ro /dev/vdb /root/usr/lib/modules
$B mount -t ext4 -o ro /dev/vdc /root/opt/sheath
for tree in dev proc sys; do $B mount --move /$tree /root/$tree; done
exec $B switch_root /root /sbin/init
"#;

/// What an initramfs is made of, beside a shell.
pub struct Recipe<'a> {
    /// The script that runs first.
    pub init: &'a str,
    /// Modules by name; those that not every kernel has are marked (`false`).
    pub modules: &'a [(&'a str, bool)],
}

/// The initramfs of a machine with disks.
pub const MACHINE: Recipe = Recipe { init: INIT, modules: &MODULES };

const MODULES: [(&str, bool); 7] = [
    ("virtio_pci", true),
    ("virtio_blk", true),
    ("virtio_console", true),
    ("virtio_net", true),
    ("crc32c_generic", false),
    ("crc32c_intel", false),
    ("ext4", true),
];

impl Recipe<'_> {
    /// What stands for it in the key of a cache.
    pub fn parts(&self) -> [String; 2] {
        let names: Vec<&str> = self.modules.iter().map(|(name, _)| *name).collect();
        [self.init.to_owned(), names.join(" ")]
    }
}

/// Writes an initramfs with a shell and modules of a kernel. `modules` is its directory below `/lib/modules`.
///
/// # Errors
/// When a module is missing or cannot be read.
pub fn write(recipe: &Recipe, shell: &Path, modules: &Path, file: &Path) -> Result<()> {
    let known = Known::read(modules)?;
    let mut order = Vec::new();
    for &(name, is_needed) in recipe.modules {
        match known.paths.get(name) {
            Some(path) => known.load(path, &mut order),
            None if known.built_in.contains(name) || !is_needed => {}
            None => bail!("the kernel has no module {name}"),
        }
    }
    let cannot = || format!("cannot write {}", file.display());
    let mut archive = Archive::new(File::create(file).with_context(cannot)?);
    for dir in ["bin", "dev", "proc", "sys", "root", "modules"] {
        archive.directory(dir).with_context(cannot)?;
    }
    archive.console().with_context(cannot)?;
    archive
        .file("bin/busybox", &fs::read(shell).context("cannot read busybox")?)
        .with_context(cannot)?;
    archive.file("init", recipe.init.as_bytes()).with_context(cannot)?;
    for path in &order {
        let content = uncompressed(&modules.join(path))?;
        archive.file(&format!("modules/{}.ko", name(path)), &content).with_context(cannot)?;
    }
    let list: String = order.iter().map(|path| format!("{}.ko\n", name(path))).collect();
    archive.file("modules/order", list.as_bytes()).with_context(cannot)?;
    archive.end().with_context(cannot)
}

/// Writes an initramfs that has more programs and scripts than another one.
///
/// # Errors
/// When the one cannot be read, or the other not written.
pub fn write_with(initramfs: &Path, more: &[(&str, &[u8])], file: &Path) -> Result<()> {
    let cannot = || format!("cannot write {}", file.display());
    let mut to = File::create(file).with_context(cannot)?;
    let mut from =
        File::open(initramfs).with_context(|| format!("cannot read {}", initramfs.display()))?;
    io::copy(&mut from, &mut to).with_context(cannot)?;
    // The kernel reads one archive after the other.
    let mut archive = Archive::new(to);
    for (name, content) in more {
        archive.file(name, content).with_context(cannot)?;
    }
    archive.end().with_context(cannot)
}

/// What depmod says about a kernel's modules.
struct Known {
    /// By name: the path.
    paths: BTreeMap<String, String>,
    /// By path: what is to be loaded before, the last first.
    needs: BTreeMap<String, Vec<String>>,
    built_in: BTreeSet<String>,
}

impl Known {
    fn read(modules: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = modules.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let mut known =
            Self { paths: BTreeMap::new(), needs: BTreeMap::new(), built_in: BTreeSet::new() };
        for line in read("modules.dep")?.lines() {
            let (path, needs) = line.split_once(':').context("a line of modules.dep")?;
            known.paths.insert(name(path), path.to_owned());
            known
                .needs
                .insert(path.to_owned(), needs.split_whitespace().map(str::to_owned).collect());
        }
        known.built_in = read("modules.builtin")?.lines().map(name).collect();
        Ok(known)
    }

    fn load(&self, path: &str, order: &mut Vec<String>) {
        let needs = self.needs.get(path).into_iter().flatten().rev();
        for path in needs.map(String::as_str).chain([path]) {
            if !order.iter().any(|loaded| loaded == path) {
                order.push(path.to_owned());
            }
        }
    }
}

/// The name of the module in a file. Files may have a minus sign where the name has an underscore.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

fn uncompressed(module: &Path) -> Result<Vec<u8>> {
    let program = match module.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(module).with_context(|| format!("cannot read {}", module.display())),
    };
    let output = command::plain(program).args(["--decompress", "--stdout"]).arg(module).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    anyhow::ensure!(output.status.success(), "{program} cannot read {}", module.display());
    Ok(output.stdout)
}

/// An archive as the kernel reads it (`Documentation/driver-api/early-userspace/buffer-format.rst`): cpio, "newc".
struct Archive {
    to: BufWriter<File>,
    inode: usize,
}

/// Kinds of entries, with everything allowed to root.
const FILE: u32 = 0o100_755;
const DIRECTORY: u32 = 0o040_755;
const DEVICE: u32 = 0o020_600;

impl Archive {
    fn new(to: File) -> Self {
        Self { to: BufWriter::new(to), inode: 0 }
    }

    fn directory(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, DIRECTORY, (0, 0), &[])
    }

    /// Where the kernel opens the first process's standard output.
    fn console(&mut self) -> io::Result<()> {
        self.entry("dev/console", DEVICE, (5, 1), &[])
    }

    fn file(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.entry(name, FILE, (0, 0), content)
    }

    fn end(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.to.flush()
    }

    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        (major, minor): (u32, u32),
        content: &[u8],
    ) -> io::Result<()> {
        self.inode += 1;
        let (size, length) = (content.len(), name.len() + 1);
        // inode, mode, uid, gid, links, time; size, the file system's device, the device that this is; length of the name, sum
        write!(self.to, "070701{:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}", self.inode, 0, 0, 1, 0)?;
        write!(self.to, "{size:08x}{:08x}{:08x}{major:08x}{minor:08x}{length:08x}{:08x}", 0, 0, 0)?;
        const HEADER: usize = 110;
        self.to.write_all(name.as_bytes())?;
        self.to.write_all(&[0; 4][..1 + padding(HEADER + length)])?;
        self.to.write_all(content)?;
        self.to.write_all(&[0; 4][..padding(size)])
    }
}

/// Bytes up to the next multiple of four.
fn padding(length: usize) -> usize {
    length.next_multiple_of(4) - length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_is_loaded_before_it_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let dep =
            "kernel/a-b.ko.xz: kernel/c.ko kernel/d.ko\nkernel/c.ko: kernel/d.ko\nkernel/d.ko:\n";
        fs::write(dir.path().join("modules.dep"), dep).unwrap();
        fs::write(dir.path().join("modules.builtin"), "kernel/e-f.ko\n").unwrap();
        let known = Known::read(dir.path()).unwrap();
        let mut order = Vec::new();
        known.load(&known.paths["c"], &mut order);
        known.load(&known.paths["a_b"], &mut order);
        assert_eq!(order, ["kernel/d.ko", "kernel/c.ko", "kernel/a-b.ko.xz"]);
        assert!(known.built_in.contains("e_f"));
    }

    #[test]
    fn entries_begin_at_multiples_of_four() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x");
        let mut archive = Archive::new(File::create(&file).unwrap());
        archive.directory("dir").unwrap();
        archive.file("dir/file", b"12345").unwrap();
        archive.end().unwrap();
        let bytes = fs::read(&file).unwrap();
        let starts: Vec<_> = bytes.windows(6).enumerate().filter(|(_, w)| w == b"070701").collect();
        assert_eq!(starts.len(), 3);
        assert!(starts.iter().all(|(at, _)| at % 4 == 0), "{starts:?}");
    }
}
