//! Whose probes would be let through to pods, and who else may call them.

use std::path::Path;

use super::Finding;
use crate::capture::{
    KubeletSetting, NoKubelet, PodSettings, beside_kubelet, cgroup_directory, cgroup_mount,
    find_kubelet, shown_cgroup,
};
use crate::config::Config;

/// Looks for the kubelet.
pub fn kubelet(config: &Config) -> Option<Finding> {
    let (Some(settings), Ok(mount)) = (&config.pods, cgroup_mount()) else {
        return None;
    };
    found(settings, &mount)
}

fn found(settings: &PodSettings, mount: &Path) -> Option<Finding> {
    match &settings.kubelet {
        KubeletSetting::None => None,
        KubeletSetting::Cgroup(path) if cgroup_directory(mount, path).is_dir() => {
            Some(in_cgroup(mount, path, None))
        }
        KubeletSetting::Cgroup(path) => Some(Finding::warning(
            "kubelet",
            format!("there is no cgroup {}, where the kubelet is expected", shown_cgroup(path)),
            "start the kubelet, or correct kubernetes.kubelet.cgroup (`0::` in /proc/<pid>/cgroup of the kubelet): until then its probes of protected pods fail",
        )),
        KubeletSetting::Auto => Some(match find_kubelet(&settings.root) {
            Ok(process) => in_cgroup(mount, &process.cgroup, Some(process.pid)),
            Err(error @ (NoKubelet::Missing | NoKubelet::Several(_))) => Finding::warning(
                "kubelet",
                error.to_string(),
                "until then its probes of protected pods fail",
            ),
            Err(error @ NoKubelet::Io(_)) => {
                Finding::error("kubelet", error.to_string(), "run it as root")
            }
        }),
    }
}

/// What is in the kubelet's cgroup may call the ports of probes as it may.
fn in_cgroup(mount: &Path, path: &Path, kubelet: Option<u32>) -> Finding {
    const SHOWN: usize = 3;
    let cgroup = shown_cgroup(path);
    let others = beside_kubelet(mount, path, kubelet).unwrap_or_default();
    if others.is_empty() {
        return Finding::ok(
            "kubelet",
            format!("probes of the kubelet in {cgroup} are let through to pods"),
        );
    }
    let names = others.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = others.len().saturating_sub(SHOWN);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    Finding::warning(
        "kubelet",
        format!(
            "in the kubelet's cgroup {cgroup} there are also {names}{more}, whose connections to ports of pods' probes are let through as well"
        ),
        "run the kubelet in a cgroup of its own, as its service does",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{PodRoot, UnknownPods};
    use crate::check::Level;
    use std::fs;

    #[test]
    fn a_cgroup_that_is_missing_or_shared_is_told() {
        let mount = tempfile::tempdir().unwrap();
        let settings = |kubelet| PodSettings {
            root: PodRoot::new("/kubepods").unwrap(),
            unknown: UnknownPods::Hold,
            hold_host_network: false,
            kubelet,
        };
        assert_eq!(found(&settings(KubeletSetting::None), mount.path()), None);
        let service = settings(KubeletSetting::Cgroup("/kubelet.service".into()));
        let finding = found(&service, mount.path()).unwrap();
        assert!(finding.found.contains("no cgroup /kubelet.service"), "{finding:?}");
        let cgroup = mount.path().join("kubelet.service");
        fs::create_dir(&cgroup).unwrap();
        fs::write(cgroup.join("cgroup.procs"), "").unwrap();
        assert_eq!(found(&service, mount.path()).unwrap().level, Level::Ok);
        // Whoever it is, it is no kubelet.
        let own = format!("{}\n", std::process::id());
        fs::write(cgroup.join("cgroup.procs"), own.repeat(5)).unwrap();
        let finding = found(&service, mount.path()).unwrap();
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.found.contains("and 2 more"), "{finding:?}");
    }
}
