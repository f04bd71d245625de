//! What the configuration says of a kubelet's pods as a whole. Which pods there are, and which of them are workloads, is the desired
//! state.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sheath_common::pod_cgroups::{Place, PodPaths, PodRules, RootError};
use sheath_common::pod_uid::PodUid;

/// A kubelet's pods on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSettings {
    pub root: PodRoot,
    pub unknown: UnknownPods,
    /// Held pods are refused connections in the host's network namespace as well.
    pub hold_host_network: bool,
    /// Whose probes are let through to pods.
    pub kubelet: KubeletSetting,
}

impl PodSettings {
    /// In the form of the kernel's map. `host_netns` is the cookie of the host's network namespace.
    #[must_use]
    pub fn rules(&self, host_netns: u64) -> PodRules {
        let holds = self.unknown == UnknownPods::Hold;
        PodRules::new(self.root.paths, host_netns, holds, self.hold_host_network)
    }
}

/// What the configuration says of the kubelet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KubeletSetting {
    /// It is looked for among the host's processes.
    #[default]
    Auto,
    /// It is in the cgroup with this path from the cgroup v2 root, and not in one below.
    Cgroup(PathBuf),
    /// Nobody's probes are let through.
    None,
}

/// What becomes of a pod that nobody has decided about.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum UnknownPods {
    /// Its connections are refused, in both directions, until somebody has.
    #[default]
    Hold,
    /// It is left alone.
    Allow,
}

/// The cgroup that has all pods of a kubelet below it, by its path from the cgroup v2 root, as `/kubepods.slice`.
#[derive(Clone, PartialEq, Eq)]
pub struct PodRoot {
    text: String,
    paths: PodPaths,
}

impl PodRoot {
    /// # Errors
    /// If the text is no such path.
    pub fn new(text: &str) -> Result<Self, RootError> {
        Ok(Self { text: text.to_owned(), paths: PodPaths::below(text)? })
    }

    /// The root that has the pod below it whose cgroup, or one below it, is at this path.
    #[must_use]
    pub fn above(path: &Path) -> Option<Self> {
        let ancestors: Vec<&Path> = path.ancestors().collect();
        // The outermost comes first: a class of pods could be taken for a root.
        let mut candidates =
            ancestors.iter().rev().filter_map(|path| Self::new(path.to_str()?).ok());
        let has_one = |root: &Self| {
            ancestors.iter().any(|path| matches!(root.place(path), Place::Pod { .. }))
        };
        candidates.find(has_one)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What a cgroup is by its path.
    #[must_use]
    pub fn place(&self, path: &Path) -> Place {
        self.paths.place(path.as_os_str().as_bytes())
    }

    /// Paths of the cgroups that have pods directly below them.
    pub fn parents(&self) -> impl Iterator<Item = &Path> {
        self.paths.parents().map(|path| Path::new(OsStr::from_bytes(path)))
    }

    /// True if a cgroup is the pod's, or lies below it.
    #[must_use]
    pub fn has(&self, pod: PodUid, path: &Path) -> bool {
        let is_it = |path: &Path| matches!(self.place(path), Place::Pod { uid, .. } if uid == pod);
        path.ancestors().any(is_it)
    }
}

impl fmt::Debug for PodRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0a1b2c3d-4e5f-4789-8abc-def012345678";

    #[test]
    fn a_pod_has_one_root_above_it_however_its_kubelet_names_cgroups() {
        let systemd = format!("kubepods-besteffort-pod{}.slice", UID.replace('-', "_"));
        for (path, root) in [
            (format!("/kubepods/besteffort/pod{UID}/0123"), Some("/kubepods")),
            (format!("/kubepods/pod{UID}"), Some("/kubepods")),
            (format!("/a/node-1/kubepods/burstable/pod{UID}/0123/x"), Some("/a/node-1/kubepods")),
            (
                format!(
                    "/kubepods.slice/kubepods-besteffort.slice/{systemd}/cri-containerd-0.scope"
                ),
                Some("/kubepods.slice"),
            ),
            (
                format!(
                    "/docker/0123/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-{systemd}/x"
                ),
                Some("/docker/0123/kubelet.slice/kubelet-kubepods.slice"),
            ),
            ("/system.slice/sheath.service".to_owned(), None),
            ("/".to_owned(), None),
        ] {
            let found = PodRoot::above(Path::new(&path));
            assert_eq!(found.as_ref().map(PodRoot::as_str), root, "{path}");
        }
    }

    #[test]
    fn a_process_is_of_a_pod_by_the_whole_path_to_its_cgroup() {
        let root = PodRoot::new("/kubepods").unwrap();
        let uid = UID.parse().unwrap();
        for (path, expected) in [
            (format!("/kubepods/pod{UID}"), true),
            (format!("/kubepods/burstable/pod{UID}/0123/init.scope"), true),
            (format!("/kubepods/burstable/pod{UID}x/0123"), false),
            // What a container may call a cgroup of its own.
            (format!("/kubepods/pod{}/0123/kubepods/pod{UID}", UID.replace('0', "1")), false),
            (format!("/elsewhere/kubepods/pod{UID}"), false),
            ("/kubepods".to_owned(), false),
        ] {
            assert_eq!(root.has(uid, Path::new(&path)), expected, "{path}");
        }
    }
}
