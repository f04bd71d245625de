//! Where the programs attach: the cgroup to capture, the root of the hierarchy, and tracepoints.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::filesystems::ROOT_CGROUP;
use crate::capture::error::CaptureError;
use crate::sys::bpf::{self, AttachType};

/// Where a program attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The cgroup to capture.
    Cgroup(AttachType),
    /// The root of the hierarchy, needed only if that is not the cgroup to capture.
    Root(AttachType),
    /// The root of the hierarchy, where the kubelet is not seen from the cgroup to capture. Without it, probes are refused and
    /// nothing else is missing.
    Probers(AttachType),
    /// An event of the `cgroup` group.
    Tracepoint(&'static str),
}

/// Paths of what programs attach to.
#[derive(Clone, Debug)]
pub struct TargetPaths {
    /// The cgroup v2 root.
    pub mount: PathBuf,
    /// The cgroup to capture: the same, or below.
    pub cgroup: PathBuf,
    pub tracefs: PathBuf,
    /// The kubelet's probes are let through.
    pub has_probers: bool,
}

/// What programs attach to, opened.
#[derive(Debug)]
pub struct Targets {
    paths: TargetPaths,
    cgroup: File,
    /// The root of the hierarchy, if that is another.
    root: Option<File>,
}

impl Targets {
    /// # Errors
    /// If a cgroup cannot be opened.
    pub fn open(paths: TargetPaths) -> Result<Self, CaptureError> {
        let open = |path: &Path| {
            File::open(path)
                .map_err(|error| CaptureError::NoCaptureRoot { path: path.to_owned(), error })
        };
        let cgroup = open(&paths.cgroup)?;
        let root = (paths.cgroup != paths.mount).then(|| open(&paths.mount)).transpose()?;
        Ok(Self { paths, cgroup, root })
    }

    /// The cgroup to capture.
    pub fn cgroup(&self) -> &File {
        &self.cgroup
    }

    /// The path of the cgroup to capture, which another one may have by now.
    pub fn path(&self) -> &Path {
        &self.paths.cgroup
    }

    /// False if nothing has to be attached there.
    pub fn needs(&self, hook: Hook) -> bool {
        match hook {
            Hook::Root(_) => self.root.is_some(),
            Hook::Probers(_) => self.root.is_some() && self.paths.has_probers,
            Hook::Cgroup(_) | Hook::Tracepoint(_) => true,
        }
    }

    /// Changes over to the new cgroup if the one to capture has been removed and made anew. Returns true if so.
    pub fn follow(&mut self) -> bool {
        let Ok(cgroup) = File::open(&self.paths.cgroup) else {
            return false;
        };
        match (cgroup_id(&cgroup), cgroup_id(&self.cgroup)) {
            (Ok(now), Ok(before)) if now != before => {
                self.cgroup = cgroup;
                true
            }
            _ => false,
        }
    }

    /// Gives a pinned link the program, if the link still holds where it should; `None` if a link must be made. That of
    /// a tracepoint cannot be given another program: it is made anew, and the old one lives until its pin is replaced.
    ///
    /// # Errors
    /// If the kernel refuses; the link keeps the program that it has.
    pub fn adopt(
        &self,
        pin: &Path,
        hook: Hook,
        program: BorrowedFd<'_>,
    ) -> io::Result<Option<OwnedFd>> {
        let target = match hook {
            Hook::Cgroup(_) => cgroup_id(&self.cgroup)?,
            Hook::Root(_) | Hook::Probers(_) => ROOT_CGROUP,
            Hook::Tracepoint(_) => return Ok(None),
        };
        let link = match bpf::open_pin(pin) {
            Ok(link) => link,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if bpf::link_info(link.as_fd())?.target != target {
            return Ok(None);
        }
        bpf::update_link(link.as_fd(), program)?;
        Ok(Some(link))
    }

    /// Attaches a program by a link of its own, which is not pinned yet.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn attach(&self, hook: Hook, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        match hook {
            Hook::Cgroup(attach_type) => {
                bpf::create_link(program, self.cgroup.as_fd(), attach_type)
            }
            Hook::Root(attach_type) | Hook::Probers(attach_type) => {
                let root = self.root.as_ref().ok_or(io::ErrorKind::NotFound)?;
                bpf::create_link(program, root.as_fd(), attach_type)
            }
            Hook::Tracepoint(event) => {
                let id = fs::read_to_string(
                    self.paths.tracefs.join("events/cgroup").join(event).join("id"),
                )?;
                let id = id.trim().parse().map_err(io::Error::other)?;
                bpf::create_tracepoint_link(program, id)
            }
        }
    }

    /// Where a program attaches, for people.
    pub fn shown(&self, hook: Hook) -> String {
        match hook {
            Hook::Cgroup(_) => self.paths.cgroup.display().to_string(),
            Hook::Root(_) | Hook::Probers(_) => self.paths.mount.display().to_string(),
            Hook::Tracepoint(event) => format!("cgroup:{event}"),
        }
    }
}

/// A cgroup's id is the inode number of its directory.
///
/// # Errors
/// That of fstat(2).
pub fn cgroup_id(cgroup: &File) -> io::Result<u64> {
    cgroup.metadata().map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(mount: &Path, cgroup: &str) -> TargetPaths {
        TargetPaths {
            mount: mount.to_owned(),
            cgroup: mount.join(cgroup),
            tracefs: "/t".into(),
            has_probers: true,
        }
    }

    #[test]
    fn the_root_is_needed_only_where_it_is_not_the_cgroup_to_capture() {
        let mount = tempfile::tempdir().unwrap();
        fs::create_dir(mount.path().join("below")).unwrap();
        let hook = Hook::Root(AttachType::CgroupInetSockCreate);
        let probers = Hook::Probers(AttachType::CgroupSockOps);
        assert!(!Targets::open(paths(mount.path(), "")).unwrap().needs(probers));
        let below = paths(mount.path(), "below");
        let podless = TargetPaths { has_probers: false, ..below.clone() };
        assert!(Targets::open(below).unwrap().needs(probers));
        assert!(!Targets::open(podless).unwrap().needs(probers));
        assert!(!Targets::open(paths(mount.path(), "")).unwrap().needs(hook));
        assert!(Targets::open(paths(mount.path(), "below")).unwrap().needs(hook));
        let missing = Targets::open(paths(mount.path(), "missing")).unwrap_err();
        assert!(matches!(missing, CaptureError::NoCaptureRoot { .. }), "{missing}");
    }

    #[test]
    fn a_cgroup_that_is_made_anew_is_followed_once() {
        let mount = tempfile::tempdir().unwrap();
        let path = mount.path().join("below");
        fs::create_dir(&path).unwrap();
        let mut targets = Targets::open(paths(mount.path(), "below")).unwrap();
        assert!(!targets.follow());
        fs::remove_dir(&path).unwrap();
        assert!(!targets.follow(), "there is none to follow");
        fs::create_dir(&path).unwrap();
        assert!(targets.follow());
        assert!(!targets.follow());
        assert_eq!(cgroup_id(targets.cgroup()).unwrap(), fs::metadata(&path).unwrap().ino());
    }
}
