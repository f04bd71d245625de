//! A sandbox as the runtime describes it, read into one that the agent can use.

use std::path::{Path, PathBuf};

use super::messages::PodSandbox;
use crate::gate::{PodName, Sandbox, SandboxError, SandboxId};
use crate::sys::netns::NetworkNamespace;

/// Addresses of a pod: one for each family, and somewhat more.
const MAX_IPS: usize = 16;

/// The longest path, in bytes.
const MAX_PATH: usize = 4096;

/// # Errors
/// If it has no id, or its pod no uid, namespace or name.
pub fn sandbox(pod: PodSandbox, own: &NetworkNamespace) -> Result<Sandbox, SandboxError> {
    let linux = pod.linux.unwrap_or_default();
    let paths = linux.namespaces.iter().filter(|namespace| namespace.kind == "network");
    let path = paths.map(|namespace| namespace.path.as_str()).find(|path| !path.is_empty());
    let pid = (pod.pid > 0).then_some(pod.pid);
    let is_short = |text: &String| text.len() <= MAX_PATH;
    Ok(Sandbox {
        id: SandboxId::new(&pod.id)?,
        uid: pod.uid.parse()?,
        pod: PodName::new(&pod.namespace, &pod.name)?,
        runtime_handler: Some(pod.runtime_handler).filter(is_short).unwrap_or_default(),
        cgroup_parent: Some(linux.cgroup_parent).filter(is_short).unwrap_or_default(),
        is_empty: false,
        pid,
        namespace: open(path, pid, own),
        ips: pod.ips.iter().take(MAX_IPS).filter_map(|ip| ip.parse().ok()).collect(),
    })
}

/// The sandbox's namespace. The process is there while the runtime asks, and is how one in the host's network is known.
fn open(path: Option<&str>, pid: Option<u32>, own: &NetworkNamespace) -> Option<NetworkNamespace> {
    let path = path.filter(|path| path.len() <= MAX_PATH && path.starts_with('/'));
    let of_process = pid.map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")));
    let paths = path.map(Path::new).into_iter().chain(of_process.as_deref());
    let open = |path: &Path| {
        let opened = NetworkNamespace::open_named(path, own);
        opened.inspect_err(|error| tracing::debug!(path = %path.display(), %error, "sandbox"))
    };
    paths.map(open).find_map(Result::ok)
}
