//! Which process of the host is the kubelet, whose probes come to pods in the clear.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::cgroups;
use super::pod_settings::PodRoot;
use crate::sys::namespaces::hosts_processes;

/// How the kubelet's program and its process are called: by itself; with all of MicroK8s, or of k3s, in one process. The name of
/// a process is what comes first in `comm`.
const NAMES: [(&str, &str); 3] =
    [("kubelet", "kubelet"), ("kubelite", "kubelite"), ("k3s", "k3s-")];

/// A kubelet that runs here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeletProcess {
    pub pid: u32,
    /// From the cgroup v2 root.
    pub cgroup: PathBuf,
}

/// Why the kubelet is not known.
#[derive(Debug, thiserror::Error)]
pub enum NoKubelet {
    #[error(
        "no kubelet runs here that is root's, in the node's namespaces and outside of pods; name its cgroup in kubernetes.kubelet, or write `none`"
    )]
    Missing,
    #[error(
        "several kubelets run here, in {}; name the cgroup of one in kubernetes.kubelet", Paths(.0)
    )]
    Several(BTreeSet<PathBuf>),
    #[error("the host's processes cannot be looked at: {0}")]
    Io(#[from] io::Error),
}

struct Paths<'p>(&'p BTreeSet<PathBuf>);

impl fmt::Display for Paths<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<_> = self.0.iter().map(|path| cgroups::shown(path)).collect();
        f.write_str(&paths.join(" and "))
    }
}

/// Looks for the kubelet: a process with its name and its program, of root, in the host's namespaces of processes and mounts and in the
/// agent's of the network, and in no pod. Where a node is a container itself, its kubelet has mounts of its own. A pod may call a process of its own what it likes.
///
/// # Errors
/// If there is none, or there are some in different cgroups.
pub fn find(pods: &PodRoot) -> Result<KubeletProcess, NoKubelet> {
    let mut found: Vec<KubeletProcess> = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Whatever ends meanwhile is none.
        if let Ok(Some(process)) = look_at(pid, pods) {
            found.push(process);
        }
    }
    let paths: BTreeSet<_> = found.iter().map(|process| process.cgroup.clone()).collect();
    match paths.len() {
        0 | 1 => found.into_iter().min_by_key(|process| process.pid).ok_or(NoKubelet::Missing),
        _ => Err(NoKubelet::Several(paths)),
    }
}

fn look_at(pid: u32, pods: &PodRoot) -> io::Result<Option<KubeletProcess>> {
    let file = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
    let comm = fs::read_to_string(file("comm"))?;
    // Most processes are told by this alone.
    if !has_its_name(&comm) {
        return Ok(None);
    }
    let program = fs::read_link(file("exe"))?;
    let is_shared = |kind: &str, with: &[String]| -> io::Result<bool> {
        Ok(fs::metadata(file(&format!("ns/{kind}")))?.ino() == first_namespace(kind, with)?)
    };
    let (host, own) = (hosts_processes(), ["self".to_owned()]);
    let is_here = is_shared("pid", &host)? && is_shared("net", &own)?;
    if !is_kubelet(&comm, &program) || !is_roots(&fs::read_to_string(file("status"))?) || !is_here {
        return Ok(None);
    }
    let cgroup = cgroups::of_process(&pid.to_string())?;
    if !is_shared("mnt", &host)? && !is_beside(&cgroup, pods) {
        return Ok(None);
    }
    let is_in_a_pod = cgroups::is_below(&cgroup, Path::new(pods.as_str()));
    Ok((!is_in_a_pod).then_some(KubeletProcess { pid, cgroup }))
}

/// True for a kubelet of a node that is itself a container: its cgroup and that of its pods are below the container's.
fn is_beside(cgroup: &Path, pods: &PodRoot) -> bool {
    let node = Path::new(pods.as_str()).parent();
    node.is_some_and(|node| node != Path::new("/") && cgroups::is_below(cgroup, node))
}

fn has_its_name(comm: &str) -> bool {
    NAMES.iter().any(|(_, process)| comm.starts_with(process))
}

/// Inode number of a namespace of the first of these processes that may be looked at.
fn first_namespace(kind: &str, processes: &[String]) -> io::Result<u64> {
    let look = |process: &String| fs::metadata(format!("/proc/{process}/ns/{kind}")).ok();
    let found = processes.iter().find_map(look).ok_or(io::ErrorKind::PermissionDenied)?;
    Ok(found.ino())
}

/// By the name of a process and the path of its program. One that was replaced while it runs is ` (deleted)` (proc_pid_exe(5)).
fn is_kubelet(comm: &str, program: &Path) -> bool {
    let program = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let program = program.strip_suffix(" (deleted)").unwrap_or(program);
    NAMES.iter().any(|(name, process)| program == *name && comm.starts_with(process))
}

/// By `/proc/<pid>/status`: the real, effective, saved and file system user.
fn is_roots(status: &str) -> bool {
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    users.is_some_and(|users| users.split_whitespace().eq(["0"; 4]))
}

/// Names of the processes directly in a cgroup, but for the kubelet, by its number or else by its name, and what it has started: they
/// may call pods as it may.
///
/// # Errors
/// If the cgroup cannot be looked at.
pub fn others(mount: &Path, cgroup: &Path, kubelet: Option<u32>) -> io::Result<Vec<String>> {
    let text = fs::read_to_string(cgroups::join(mount, cgroup).join("cgroup.procs"))?;
    let pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let name = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    let is_named = |pid: &u32| name(*pid).is_some_and(|comm| has_its_name(&comm));
    let kubelet = kubelet.or_else(|| pids.iter().copied().find(is_named));
    let others = pids.into_iter().filter(|pid| kubelet.is_none_or(|it| !is_from(*pid, it)));
    Ok(others.filter_map(name).map(|name| name.trim_end().to_owned()).collect())
}

/// True if a process is `ancestor`, or was started by it or by one that was.
fn is_from(pid: u32, ancestor: u32) -> bool {
    const DEEPEST: usize = 32;
    let parents = std::iter::successors(Some(pid), |pid| parent(*pid));
    parents.take(DEEPEST).any(|pid| pid == ancestor)
}

/// By `/proc/<pid>/status`.
fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelet_with_mounts_of_its_own_is_beside_its_pods() {
        let is_beside =
            |cgroup: &str, root: &str| is_beside(Path::new(cgroup), &PodRoot::new(root).unwrap());
        assert!(is_beside(
            "/docker/0/kubelet.slice/kubelet.service",
            "/docker/0/kubelet.slice/kubelet-kubepods.slice"
        ));
        assert!(!is_beside("/docker/1/kubelet", "/docker/0/kubepods"));
        // There any container of the host's would be.
        assert!(!is_beside("/docker/1/kubelet", "/kubepods"));
    }

    #[test]
    fn a_kubelet_is_known_by_its_name_and_its_program() {
        for (comm, program, expected) in [
            ("kubelet\n", "/usr/bin/kubelet", true),
            ("kubelet\n", "/usr/bin/kubelet (deleted)", true),
            ("kubelite\n", "/snap/microk8s/1/kubelite", true),
            ("k3s-server\n", "/var/lib/rancher/k3s/data/current/bin/k3s", true),
            ("k3s-agent\n", "/usr/local/bin/k3s", true),
            // The same program, as somebody uses it.
            ("kubectl\n", "/usr/local/bin/k3s", false),
            ("kubelet\n", "/usr/bin/python3", false),
            ("bash\n", "/usr/bin/kubelet", false),
            ("kubelet\n", "/usr/bin/kubelet2", false),
        ] {
            assert_eq!(is_kubelet(comm, Path::new(program)), expected, "{comm} {program}");
        }
    }

    #[test]
    fn a_kubelet_is_roots_in_every_respect() {
        assert!(is_roots("Name:\tkubelet\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n"));
        for status in ["Uid:\t0\t1000\t0\t0\n", "Uid:\t1000\t0\t0\t0\n", "Uid:\t0\n", "Gid:\t0\n"] {
            assert!(!is_roots(status), "{status}");
        }
    }

    #[test]
    fn children_are_told_from_others() {
        let own = std::process::id();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (is_child, is_other) = (is_from(child.id(), own), is_from(own, child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_child && !is_other);
    }

    #[test]
    fn no_kubelet_is_told_with_what_to_do() {
        assert!(NoKubelet::Missing.to_string().contains("kubernetes.kubelet"));
        let several = NoKubelet::Several(["/a".into(), "/b\n".into()].into());
        assert!(several.to_string().contains("in /a and /b\\n;"), "{several}");
    }
}
