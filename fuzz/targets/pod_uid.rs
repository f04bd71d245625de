//! Uids of pods, as the API writes them, and paths of cgroups, of which somebody in a container may write the end.
//!
//! What is accepted prints as what reads back the same, and only a path of exactly one of the kubelet's forms is a pod's.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sheath_common::pod_cgroups::{Place, PodPaths};
use sheath_common::pod_uid::PodUid;

/// One of each driver, and one of each that lies deeper.
const ROOTS: [&str; 4] =
    ["/kubepods", "/kubepods.slice", "/node-a/kubepods", "/kubelet.slice/kubelet-kubepods.slice"];

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = str::from_utf8(bytes)
        && let Ok(uid) = text.parse::<PodUid>()
    {
        let uuid = uid.to_string();
        assert!(text == uuid || text == uuid.replace('-', ""));
        assert_eq!(uuid.parse(), Ok(uid));
    }
    for root in ROOTS {
        let paths = PodPaths::below(root).expect("a root");
        check(&paths, root, bytes);
        check(&paths, root, &[root.as_bytes(), bytes].concat());
    }
    if let Ok(root) = str::from_utf8(bytes)
        && let Ok(paths) = PodPaths::below(root)
    {
        for parent in paths.parents() {
            assert_eq!(paths.place(parent), Place::AbovePods);
            assert!(parent.starts_with(bytes));
        }
    }
});

/// A pod's path is written again from what was read of it.
fn check(paths: &PodPaths, root: &str, path: &[u8]) {
    match paths.place(path) {
        Place::Elsewhere => {}
        Place::AbovePods => assert!(paths.parents().any(|parent| parent == path)),
        Place::Pod { uid, is_hash } => {
            let is_slice = root.ends_with(".slice");
            let spelt = match (is_hash, is_slice) {
                (true, _) => uid.to_string().replace('-', ""),
                (false, true) => uid.to_string().replace('-', "_"),
                (false, false) => uid.to_string(),
            };
            let of_class = |parent: &[u8]| {
                let name = parent.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                let name = match name.strip_suffix(b".slice") {
                    Some(name) => [name, b"-pod", spelt.as_bytes(), b".slice"].concat(),
                    None => [b"pod", spelt.as_bytes()].concat(),
                };
                [parent, b"/", name.as_slice()].concat() == path
            };
            assert!(paths.parents().any(of_class));
        }
    }
}
