//! The cgroups of pods that there are on the host, found by the kubelet's own rules (`common/src/pod_cgroups.rs`).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sheath_common::pod_cgroups::Place;
use sheath_common::pod_uid::PodUid;

use super::cgroups::{WorkloadCgroup, children, join, unless_gone};
use super::pod_settings::PodRoot;

/// A pod's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodCgroup {
    pub uid: PodUid,
    /// The uid is written as a static pod's.
    pub is_hash: bool,
    pub cgroup: WorkloadCgroup,
}

/// The cgroups of all pods of a kubelet that there are now.
///
/// # Errors
/// If the hierarchy cannot be read, for want of descriptors for instance. That is not the same as finding nothing.
pub fn find(mount: &Path, root: &PodRoot) -> io::Result<Vec<PodCgroup>> {
    let mut found = Vec::new();
    for parent in root.parents() {
        for name in children(&join(mount, parent))? {
            let path = parent.join(name);
            let Place::Pod { uid, is_hash } = root.place(&path) else {
                continue;
            };
            if let Some(metadata) = unless_gone(fs::metadata(join(mount, &path)))? {
                let cgroup = WorkloadCgroup { id: metadata.ino(), path };
                found.push(PodCgroup { uid, is_hash, cgroup });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::cgroup_mount;

    const UID: &str = "0a1b2c3d-4e5f-4789-8abc-def012345678";

    #[test]
    fn pods_are_found_where_the_kubelet_makes_them_and_nowhere_else() {
        let mount = cgroup_mount().unwrap();
        let top = format!("/sheath-pods-{}", std::process::id());
        let root = PodRoot::new(&format!("{top}/kubepods")).unwrap();
        assert_eq!(find(&mount, &root).unwrap(), []);
        let hash = UID.replace('-', "").replace('0', "1");
        let paths = [
            "kubepods/burstable/other".to_owned(),
            format!("kubepods/pod{UID}/0123/pod{UID}"),
            format!("kubepods/besteffort/pod{hash}"),
            format!("pod{UID}"),
        ];
        for path in &paths {
            fs::create_dir_all(join(&mount, format!("{top}/{path}"))).unwrap();
        }
        let found = find(&mount, &root);
        for path in paths.iter().flat_map(|path| Path::new(path).ancestors()) {
            let _ = fs::remove_dir(join(&mount, Path::new(&top).join(path)));
        }
        for path in ["kubepods/burstable", "kubepods/besteffort", "kubepods", ""] {
            let _ = fs::remove_dir(join(&mount, Path::new(&top).join(path)));
        }
        let found = found.unwrap();
        let seen: Vec<_> = found.iter().map(|pod| (pod.uid, pod.is_hash)).collect();
        assert_eq!(seen, [(UID.parse().unwrap(), false), (hash.parse().unwrap(), true)]);
    }
}
