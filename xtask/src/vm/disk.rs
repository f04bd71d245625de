//! Disks of machines: a file with one ext4 file system, made from a directory without mounting anything.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::command;

/// What a disk is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Written by machines, which may lose power at any time: with a journal, and room.
    Root,
    /// Read only.
    Data,
}

/// Room on a root beside what is in it, in bytes. The file has holes where nothing is.
const ROOM: u64 = 2 << 30;
/// The same of a disk with data: what the file system itself needs.
const SLACK: u64 = 16 << 20;

/// Writes a disk with what is in a directory, with its owners.
///
/// # Errors
/// When the directory cannot be read, or mkfs.ext4 fails.
pub fn write(dir: &Path, disk: &Path, kind: Use) -> Result<()> {
    let content = size(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let room = if kind == Use::Root { ROOM } else { SLACK };
    let file = File::create(disk).with_context(|| format!("cannot create {}", disk.display()))?;
    file.set_len(content + content / 8 + room)
        .with_context(|| format!("cannot write {}", disk.display()))?;
    let mut mkfs = command::plain("mkfs.ext4");
    mkfs.args(["-q", "-F", "-m", "0"]);
    // Sums of metadata are calculated by the emulated processor, and find faults of hardware.
    let features = if kind == Use::Root { "^metadata_csum" } else { "^metadata_csum,^has_journal" };
    mkfs.args(["-O", features, "-d"]).arg(dir).arg(disk);
    command::run(&mut mkfs)
}

/// Bytes that the files take in blocks of 4 KiB, each with an inode.
fn size(dir: &Path) -> std::io::Result<u64> {
    const BLOCK: u64 = 4096;
    let mut bytes = BLOCK;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += BLOCK;
        bytes += if metadata.is_dir() {
            size(&entry.path())?
        } else {
            metadata.size().next_multiple_of(BLOCK)
        };
    }
    Ok(bytes)
}
