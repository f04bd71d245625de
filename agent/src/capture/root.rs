//! The cgroup that the programs are attached to.

use std::path::{Path, PathBuf};

use super::cgroups;

/// The cgroup that the programs attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaptureRoot {
    /// The root of the cgroup v2 hierarchy.
    Auto,
    /// A cgroup below it, as `/a/b`.
    Below(String),
}

impl CaptureRoot {
    /// Its directory below the mount point of the hierarchy.
    #[must_use]
    pub fn directory(&self, mount: &Path) -> PathBuf {
        match self {
            Self::Auto => mount.to_owned(),
            Self::Below(path) => cgroups::join(mount, path),
        }
    }

    /// True if a cgroup, or all that a pattern matches, lies below it. The programs see nothing outside of it.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        match self {
            Self::Auto => true,
            Self::Below(root) => {
                path.strip_prefix(root.as_str()).is_some_and(|rest| rest.starts_with('/'))
            }
        }
    }
}
