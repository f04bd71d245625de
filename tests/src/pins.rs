//! The pins of one agent instance in the BPF file system.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use crate::netns::must_succeed;

const BPFFS: &str = "/sys/fs/bpf";

/// `BPF_OBJ_GET` and `BPF_LINK_DETACH` of `linux/bpf.h`.
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_DETACH: libc::c_long = 34;

/// Mounts the BPF file system where systemd would have; once, and for good.
pub fn ensure_bpffs() {
    static MOUNT: Once = Once::new();
    MOUNT.call_once(|| {
        let mounts = fs::read_to_string("/proc/mounts").expect("/proc/mounts");
        if !mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS)) {
            must_succeed(Command::new("mount").args(["-t", "bpf", "bpf", BPFFS]));
        }
    });
}

/// Directory of an instance's pins.
pub fn directory(instance: &str) -> PathBuf {
    Path::new(BPFFS).join("sheath").join(instance)
}

/// Every pin of an instance, sorted; empty where there is none.
pub fn list(instance: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(&directory(instance), &mut found);
    found.sort();
    found
}

/// The pins whose file name contains `part`.
pub fn named(instance: &str, part: &str) -> Vec<PathBuf> {
    list(instance)
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(part)))
        .collect()
}

/// Removes the pins of all maps, as an administrator with `rm` does. Returns what was there.
pub fn remove_maps(instance: &str) -> Vec<PathBuf> {
    let is_map = |path: &PathBuf| path.parent().is_some_and(|dir| dir.ends_with("maps"));
    let maps: Vec<_> = list(instance).into_iter().filter(is_map).collect();
    for pin in &maps {
        fs::remove_file(pin).expect("removing a pin");
    }
    maps
}

/// Detaches a pinned link, as an administrator with `bpftool link detach` does: the pin stays,
/// the program runs no longer.
///
/// # Errors
/// When the pin is not a link, or of a kind that cannot be detached.
pub fn detach(pin: &Path) -> io::Result<()> {
    let path = std::ffi::CString::new(pin.to_str().expect("a pin's path")).unwrap();
    // The start of `union bpf_attr` for each command, as `linux/bpf.h` lays it out.
    let mut get = [0u64; 16];
    get[0] = path.as_ptr() as u64;
    let fd = bpf(BPF_OBJ_GET, &get)?;
    // SAFETY: the kernel just made this descriptor for us.
    let link = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) };
    let mut detach = [0u64; 16];
    detach[0] = u64::from(u32::try_from(link.as_raw_fd()).unwrap());
    bpf(BPF_LINK_DETACH, &detach)?;
    Ok(())
}

fn bpf(command: libc::c_long, attributes: &[u64; 16]) -> io::Result<libc::c_long> {
    // SAFETY: the attributes outlive the call, their length is passed, and the one pointer in
    // them is a C string the caller holds.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            libc::c_long::try_from(size_of_val(attributes)).unwrap(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else {
            found.push(path);
        }
    }
}
