//! The pins of one agent instance in the BPF file system.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use crate::netns::must_succeed;

const BPFFS: &str = "/sys/fs/bpf";

/// Of `linux/bpf.h`.
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
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

/// Removes an instance's pins, and with them what they hold in the kernel.
///
/// # Errors
/// When one cannot be removed.
pub fn remove(instance: &str) -> io::Result<()> {
    match fs::remove_dir_all(directory(instance)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
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

/// Entries that take all the room of a hash map whose keys are whole words.
pub struct Filling {
    map: OwnedFd,
    keys: Vec<u64>,
}

/// Fills a pinned map with entries that mean nothing to anybody.
pub fn fill(instance: &str, name: &str) -> Filling {
    let pin = named(instance, name).into_iter().next().expect("a pinned map");
    let mut filling = Filling { map: open(&pin).expect("the map"), keys: Vec::new() };
    // No cgroup has such an id, and no pod such a uid.
    for key in (1_u64 << 62).. {
        match filling.call(BPF_MAP_UPDATE_ELEM, key) {
            Ok(_) => filling.keys.push(key),
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => break,
            Err(error) => panic!("filling {name}: {error}"),
        }
    }
    filling
}

impl Filling {
    /// Makes room again.
    pub fn clear(self) {
        for key in &self.keys {
            // An agent that was started meanwhile has removed what it does not know.
            match self.call(BPF_MAP_DELETE_ELEM, *key) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{error}"),
                _ => {}
            }
        }
    }

    fn call(&self, command: libc::c_long, key: u64) -> io::Result<libc::c_long> {
        // Longer than any key or value.
        let (value, key) = ([0_u64; 8], [key; 8]);
        let mut attributes = [0_u64; 16];
        attributes[0] = u64::from(u32::try_from(self.map.as_raw_fd()).unwrap());
        attributes[1] = key.as_ptr() as u64;
        if command == BPF_MAP_UPDATE_ELEM {
            attributes[2] = value.as_ptr() as u64;
        }
        bpf(command, &attributes)
    }
}

/// How many entries a pinned hash map has.
pub fn count(instance: &str, name: &str) -> usize {
    let pin = named(instance, name).into_iter().next().expect("a pinned map");
    let map = open(&pin).expect("the map");
    // Longer than any key.
    let (mut key, mut next) = ([0_u64; 64], [0_u64; 64]);
    let mut attributes = [0_u64; 16];
    attributes[0] = u64::from(u32::try_from(map.as_raw_fd()).unwrap());
    for found in 0.. {
        attributes[1] = if found == 0 { 0 } else { key.as_ptr() as u64 };
        attributes[2] = next.as_mut_ptr() as u64;
        match bpf(BPF_MAP_GET_NEXT_KEY, &attributes) {
            Ok(_) => key = next,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return found,
            Err(error) => panic!("the keys of {name}: {error}"),
        }
    }
    unreachable!()
}

/// The value of some entry of a pinned hash map, in words.
pub fn some_value(instance: &str, name: &str) -> Option<[u64; 8]> {
    let pin = named(instance, name).into_iter().next().expect("a pinned map");
    let map = open(&pin).expect("the map");
    let (mut key, mut value) = ([0_u64; 64], [0_u64; 8]);
    let mut attributes = [0_u64; 16];
    attributes[0] = u64::from(u32::try_from(map.as_raw_fd()).unwrap());
    attributes[2] = key.as_mut_ptr() as u64;
    bpf(BPF_MAP_GET_NEXT_KEY, &attributes).ok()?;
    attributes[1] = key.as_ptr() as u64;
    attributes[2] = value.as_mut_ptr() as u64;
    bpf(BPF_MAP_LOOKUP_ELEM, &attributes).ok()?;
    Some(value)
}

/// Detaches a pinned link, as an administrator with `bpftool link detach` does: the pin stays,
/// the program runs no longer.
///
/// # Errors
/// When the pin is not a link, or of a kind that cannot be detached.
pub fn detach(pin: &Path) -> io::Result<()> {
    let link = open(pin)?;
    let mut detach = [0u64; 16];
    detach[0] = u64::from(u32::try_from(link.as_raw_fd()).unwrap());
    bpf(BPF_LINK_DETACH, &detach)?;
    Ok(())
}

fn open(pin: &Path) -> io::Result<OwnedFd> {
    let path = std::ffi::CString::new(pin.to_str().expect("a pin's path")).unwrap();
    // The start of `union bpf_attr` for each command, as `linux/bpf.h` lays it out.
    let mut get = [0u64; 16];
    get[0] = path.as_ptr() as u64;
    bpf(BPF_OBJ_GET, &get).map(owned)
}

/// A descriptor that a command has returned.
pub(crate) fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) }
}

pub(crate) fn bpf(command: libc::c_long, attributes: &[u64; 16]) -> io::Result<libc::c_long> {
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
