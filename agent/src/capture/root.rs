//! The cgroup that the programs are attached to.

use std::path::{Path, PathBuf};

use super::cgroups;

/// The cgroup that the programs attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaptureRoot {
    /// The root of the cgroup v2 hierarchy.
    Auto,
    /// The cgroup that has all pods of a kubelet below it, as `/kubepods.slice`; the root, where the kubelet has not made that yet. What is
    /// attached to the root by others runs after what is attached here.
    Pods(String),
    /// A cgroup below it, as `/a/b`.
    Below(String),
}

impl CaptureRoot {
    /// Its directory below the mount point of the hierarchy.
    #[must_use]
    pub fn directory(&self, mount: &Path) -> PathBuf {
        match self {
            Self::Auto => mount.to_owned(),
            Self::Pods(path) => {
                let pods = cgroups::join(mount, path);
                if pods.is_dir() { pods } else { mount.to_owned() }
            }
            Self::Below(path) => cgroups::join(mount, path),
        }
    }

    /// True if a cgroup, or all that a pattern matches, lies below it. The programs see nothing outside of it.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        match self {
            Self::Auto => true,
            Self::Pods(root) | Self::Below(root) => {
                path.strip_prefix(root.as_str()).is_some_and(|rest| rest.starts_with('/'))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_stands_in_for_the_pods_cgroup_until_there_is_one() {
        let mount = tempfile::tempdir().unwrap();
        let pods = CaptureRoot::Pods("/kubepods.slice".to_owned());
        assert_eq!(pods.directory(mount.path()), mount.path());
        std::fs::create_dir(mount.path().join("kubepods.slice")).unwrap();
        assert_eq!(pods.directory(mount.path()), mount.path().join("kubepods.slice"));
        // What is written is meant, whether it is there or not.
        let below = CaptureRoot::Below("/a".to_owned());
        assert_eq!(below.directory(mount.path()), mount.path().join("a"));
    }

    #[test]
    fn what_is_covered_lies_below() {
        for root in [CaptureRoot::Below("/a/b".to_owned()), CaptureRoot::Pods("/a/b".to_owned())] {
            let covered = ["/a/b/c", "/a/b", "/a/bc", "/a"].map(|path| root.covers(path));
            assert_eq!(covered, [true, false, false, false], "{root:?}");
        }
        assert!(CaptureRoot::Auto.covers("/a"));
    }
}
