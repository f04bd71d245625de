//! From a cgroup's id to its directory: the id is a file handle of the cgroup file system (open_by_handle_at(2)).

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// `FILEID_KERNFS` (include/linux/exportfs.h): the handle is the 64-bit id.
const FILEID_KERNFS: libc::c_int = 0xfe;

/// `struct file_handle` with such an id. The kernel reads it byte by byte.
#[repr(C)]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    id: [u8; 8],
}

/// The directory of a cgroup below `mount`, where the cgroup v2 hierarchy is mounted; of one whose path is longer than a
/// system call takes (PATH_MAX), the lowest above it that has a shorter one.
///
/// # Errors
/// `ESTALE` or `NotFound` if there is no such cgroup, or none any more.
pub fn directory(mount: &Path, id: u64) -> io::Result<PathBuf> {
    let mount = File::open(mount)?;
    let mut handle = Handle {
        bytes: size_of::<u64>() as libc::c_uint,
        kind: FILEID_KERNFS,
        id: id.to_ne_bytes(),
    };
    // SAFETY: the handle is live and as long as it says; the descriptor is owned at once.
    let mut directory = unsafe {
        let fd = libc::open_by_handle_at(
            mount.as_raw_fd(),
            (&raw mut handle).cast(),
            libc::O_PATH | libc::O_CLOEXEC,
        );
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    loop {
        match fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())) {
            Err(error) if error.raw_os_error() == Some(libc::ENAMETOOLONG) => {
                directory =
                    openat(&directory, "..", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_cgroup_whose_path_is_too_long_is_known_by_one_above_it() {
        let mount = crate::capture::cgroup_mount().unwrap();
        let top = mount.join(format!("sheath-cgroup-long-{}", std::process::id()));
        fs::create_dir(&top).unwrap();
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let name = "a".repeat(255);
        let mut directories = vec![nix::fcntl::open(&top, flags, Mode::empty()).unwrap()];
        for _ in 0..17 {
            let last = directories.last().unwrap();
            nix::sys::stat::mkdirat(last, name.as_str(), Mode::from_bits_truncate(0o755)).unwrap();
            directories.push(openat(last, name.as_str(), flags, Mode::empty()).unwrap());
        }
        let last = File::from(directories.pop().unwrap());
        let found = directory(&mount, last.metadata().unwrap().ino());
        for directory in directories.iter().rev() {
            let remove = nix::unistd::UnlinkatFlags::RemoveDir;
            nix::unistd::unlinkat(directory, name.as_str(), remove).unwrap();
        }
        fs::remove_dir(&top).unwrap();
        assert!(found.unwrap().starts_with(top.join(name)));
    }

    #[test]
    fn a_cgroup_is_found_by_its_id() {
        let mount = crate::capture::cgroup_mount().unwrap();
        let cgroup = mount.join(format!("sheath-cgroup-id-{}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        let id = fs::metadata(&cgroup).unwrap().ino();
        assert_eq!(directory(&mount, id).unwrap(), cgroup);
        fs::remove_dir(&cgroup).unwrap();
        assert!(directory(&mount, id).is_err());
        let root = fs::metadata(&mount).unwrap().ino();
        assert_eq!(directory(&mount, root).unwrap(), mount);
    }
}
