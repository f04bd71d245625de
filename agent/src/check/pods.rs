//! What makes the pods of a kubelet impossible to recognise.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Finding;
use crate::capture::{PodRoot, cgroup_directory, cgroup_mount};
use crate::config::Config;
use crate::sys::files;

/// Where a kubelet's pods usually are: by the systemd driver, by the other, and both in kind.
const USUAL: [&str; 4] =
    ["/kubepods.slice", "/kubepods", "/kubelet.slice/kubelet-kubepods.slice", "/kubelet/kubepods"];

/// Looks for the pods' root, and at the kubelet.
pub fn pods(config: &Config) -> Vec<Finding> {
    let (Some(settings), Ok(mount)) = (&config.pods, cgroup_mount()) else {
        return Vec::new();
    };
    let mut findings = vec![root(&settings.root, &mount)];
    findings.extend(kubelets().iter().filter(|kubelet| kubelet.makes_no_pod_cgroups()).map(|_| {
        Finding::error(
            "pods",
            "the kubelet makes no cgroups for pods (cgroupsPerQOS: false)",
            "set cgroupsPerQOS to true and drain the node: no pod can be recognised without its cgroup",
        )
    }));
    findings
}

fn root(root: &PodRoot, mount: &Path) -> Finding {
    let text = root.as_str();
    if cgroup_directory(mount, text).is_dir() {
        return Finding::ok("pods", format!("pods are below {text}"));
    }
    if is_in_v1(Path::new("/sys/fs/cgroup"), mount, text) {
        return Finding::error(
            "pods",
            format!("the kubelet's {text} is in cgroup v1 hierarchies alone"),
            "boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1)",
        );
    }
    let is_there = |path: &&str| cgroup_directory(mount, path).is_dir();
    let advice = match USUAL.into_iter().find(is_there) {
        Some(other) => format!("pods seem to be below {other}: set capture.pods.root to that"),
        None => "set capture.pods.root to the cgroup that the kubelet has made (its cgroupRoot, and `kubepods` or `kubepods.slice` \
                 below that), and see that the kubelet runs"
            .to_owned(),
    };
    Finding::error("pods", format!("there is no cgroup {text}"), advice)
}

/// True if one of the hierarchies below `all`, other than that of cgroup v2, has a cgroup.
fn is_in_v1(all: &Path, v2: &Path, path: &str) -> bool {
    let hierarchies = fs::read_dir(all).into_iter().flatten().flatten().map(|entry| entry.path());
    all != v2
        && hierarchies.filter(|one| one != v2).any(|one| cgroup_directory(&one, path).is_dir())
}

/// A kubelet that runs here.
struct Kubelet {
    pid: u32,
    /// As it was started.
    arguments: Vec<PathBuf>,
}

/// The part of a kubelet's configuration that matters (KubeletConfiguration, kubelet.config.k8s.io/v1beta1).
#[derive(Debug, Default, Deserialize)]
struct KubeletConfiguration {
    #[serde(rename = "cgroupsPerQOS")]
    cgroups_per_qos: Option<bool>,
}

fn kubelets() -> Vec<Kubelet> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name == b"kubelet\n"))
        .filter_map(|pid: u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let arguments = line.split(|byte| *byte == 0).map(OsStr::from_bytes);
            Some(Kubelet { pid, arguments: arguments.map(PathBuf::from).collect() })
        })
        .collect()
}

impl Kubelet {
    /// By its command line, which outdoes its configuration file.
    fn makes_no_pod_cgroups(&self) -> bool {
        if let Some(value) = self.value_of("--cgroups-per-qos") {
            return value == Path::new("false");
        }
        let Some(path) = self.value_of("--config") else {
            return false;
        };
        let root = PathBuf::from(format!("/proc/{}/root", self.pid));
        let path = root.join(path.strip_prefix("/").unwrap_or(path));
        files::read_text(&path, files::CONFIGURATION).is_ok_and(|text| turns_off(&text))
    }

    /// A flag's value, in the same argument or the next.
    fn value_of(&self, flag: &str) -> Option<&Path> {
        let mut arguments = self
            .arguments
            .iter()
            .rev()
            .scan(None, |next, argument| Some((argument, next.replace(argument))));
        arguments.find_map(|(argument, next)| {
            let rest = argument.as_os_str().as_bytes().strip_prefix(flag.as_bytes())?;
            match rest.strip_prefix(b"=") {
                Some(value) => Some(Path::new(OsStr::from_bytes(value))),
                None => next.filter(|_| rest.is_empty()).map(PathBuf::as_path),
            }
        })
    }
}

fn turns_off(configuration: &str) -> bool {
    serde_saphyr::from_str::<KubeletConfiguration>(configuration)
        .is_ok_and(|configuration| configuration.cgroups_per_qos == Some(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    fn kubelet(arguments: &[&str]) -> Kubelet {
        Kubelet { pid: 0, arguments: arguments.iter().map(PathBuf::from).collect() }
    }

    #[test]
    fn a_kubelet_without_cgroups_for_pods_is_recognised() {
        for (arguments, expected) in [
            (&["kubelet", "--cgroups-per-qos=false"][..], true),
            (&["kubelet", "--cgroups-per-qos", "false", "--v=2"], true),
            (&["kubelet", "--cgroups-per-qos=true"], false),
            (&["kubelet", "--cgroups-per-qos-else=false"], false),
            (&["kubelet", "--config", "/nowhere.yaml"], false),
            (&["kubelet"], false),
        ] {
            assert_eq!(kubelet(arguments).makes_no_pod_cgroups(), expected, "{arguments:?}");
        }
        assert_eq!(kubelet(&["--config=/a", "--x"]).value_of("--config"), Some(Path::new("/a")));
        let file = "kind: KubeletConfiguration\ncgroupsPerQOS: false\nclusterDNS: [10.0.0.1]\n";
        assert!(turns_off(file));
        assert!(!turns_off("kind: KubeletConfiguration\n"));
        assert!(!turns_off("cgroupsPerQOS: true\n"));
    }

    #[test]
    fn a_root_that_is_not_there_is_an_error_and_the_one_in_v1_is_named() {
        let all = tempfile::tempdir().unwrap();
        let [v1, v2] = ["memory", "unified"].map(|name| all.path().join(name));
        let pods = PodRoot::new("/node-a/kubepods").unwrap();
        fs::create_dir_all(v1.join("node-a/kubepods")).unwrap();
        fs::create_dir_all(&v2).unwrap();
        assert!(is_in_v1(all.path(), &v2, pods.as_str()));
        assert!(!is_in_v1(all.path(), &v2, "/kubepods"));
        // Pure v2 has nothing but itself there.
        assert!(!is_in_v1(all.path(), all.path(), pods.as_str()));
        let missing = root(&pods, &v2);
        assert_eq!(missing.level, Level::Error);
        assert!(missing.advice.contains("cgroupRoot"), "{missing:?}");
        fs::create_dir_all(v2.join("kubepods")).unwrap();
        assert!(root(&pods, &v2).advice.contains("below /kubepods:"));
        fs::create_dir_all(v2.join("node-a/kubepods")).unwrap();
        assert_eq!(root(&pods, &v2).level, Level::Ok);
    }
}
