//! What the gate learns of a pod's sandbox.

use std::fmt;
use std::net::IpAddr;

use sheath_common::pod_uid::{HASH_LEN, NoPodUid, PodUid};

use crate::sys::netns::NetworkNamespace;

/// The longest uid of a static pod, in bytes: with `pod` in front it is the name of a directory.
const LONGEST_UID: usize = 252;

/// A pod's sandbox, as the runtime describes it. A pod can have one after the other.
#[derive(Clone, Debug)]
pub struct Sandbox {
    pub id: SandboxId,
    pub uid: PodUid,
    pub pod: PodName,
    /// The runtime class's handler; empty for the runtime's default.
    pub runtime_handler: String,
    /// The pod's cgroup as the kubelet named it, where the runtime says so.
    pub cgroup_parent: String,
    /// Nothing runs in it yet, as where CNI makes its network: capture sees a namespace by those who are in it.
    pub is_empty: bool,
    /// The process that holds the sandbox, where the runtime says so.
    pub pid: Option<u32>,
    /// Held open from the moment on at which the runtime asked.
    pub namespace: Option<NetworkNamespace>,
    /// Empty where the runtime does not say so.
    pub ips: Vec<IpAddr>,
}

impl Sandbox {
    /// True if a uid, as the runtime says it, is none that the API server gives: a file of the node makes the pod. Its uid is 32 digits
    /// of the kubelet's, or whatever the manifest says (k/k pkg/kubelet/config/common.go, `applyDefaults`). Nobody is asked about such a
    /// pod: the API server may be one, and what is needed for a decision another.
    #[must_use]
    pub fn is_static(uid: &str) -> bool {
        let is_plain = |c: u8| c.is_ascii_graphic() && c != b'/';
        let may_be = (1..=LONGEST_UID).contains(&uid.len()) && uid.bytes().all(is_plain);
        may_be && (uid.len() == HASH_LEN as usize || uid.parse::<PodUid>().is_err())
    }

    /// True if it is known to share the node's network namespace, which is the agent's own.
    #[must_use]
    pub fn is_host_network(&self) -> bool {
        self.namespace.as_ref().is_some_and(NetworkNamespace::is_own)
    }
}

/// Name and namespace of a pod, for people. Not what a pod is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodName {
    namespace: Box<str>,
    name: Box<str>,
}

impl PodName {
    /// # Errors
    /// If these cannot be names of a namespace and a pod.
    pub fn new(namespace: &str, name: &str) -> Result<Self, SandboxError> {
        // The longest DNS label, and the longest DNS name (Kubernetes, "Object Names and IDs").
        if !is_name(namespace, 63) || namespace.contains('.') {
            return Err(SandboxError::Namespace);
        }
        if !is_name(name, 253) {
            return Err(SandboxError::Name);
        }
        Ok(Self { namespace: namespace.into(), name: name.into() })
    }

    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

fn is_name(text: &str, longest: usize) -> bool {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.';
    !text.is_empty() && text.len() <= longest && text.bytes().all(allowed)
}

/// What a runtime calls a sandbox: with containerd and CRI-O 64 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SandboxId(Box<str>);

impl SandboxId {
    /// # Errors
    /// If it is not what CNI allows a container id to be (its specification, "Parameters"), or longer than 128 bytes.
    pub fn new(text: &str) -> Result<Self, SandboxError> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
        let begins = text.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric());
        if !begins || text.len() > 128 || !text.bytes().all(allowed) {
            return Err(SandboxError::Id);
        }
        Ok(Self(text.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why what was described is no sandbox of a pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SandboxError {
    #[error("it has no id that a runtime would give")]
    Id,
    #[error("it has no uid of a pod: {0}")]
    Uid(#[from] NoPodUid),
    #[error("its name is not that of a pod")]
    Name,
    #[error("its namespace has a name that no namespace of Kubernetes can have")]
    Namespace,
    #[error("its network namespace cannot be opened: {0}")]
    NetworkNamespace(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn static_pods_have_uids_that_the_api_server_does_not_give() {
        let uuid = "0a1b2c3d-4e5f-4789-8abc-def012345678";
        let hash = uuid.replace('-', "");
        let (upper, long) = (uuid.to_uppercase(), "a".repeat(252));
        for uid in [hash.as_str(), "apiserver", "1", upper.as_str(), long.as_str()] {
            assert!(Sandbox::is_static(uid), "{uid}");
        }
        let longer = long.clone() + "a";
        for uid in [uuid, "", "a b", "../x", "a\n", "\u{e9}", longer.as_str()] {
            assert!(!Sandbox::is_static(uid), "{uid}");
        }
    }

    #[test]
    fn names_and_ids_are_what_kubernetes_and_cni_allow() {
        let pod = PodName::new("shop", "web-7d9.x").unwrap();
        assert_eq!(pod.to_string(), "shop/web-7d9.x");
        let long = "a".repeat(254);
        for (namespace, name) in [
            ("", "web"),
            ("shop", ""),
            ("a.b", "web"),
            ("shop", "we/b"),
            ("shop", "we\nb"),
            ("Shop", "web"),
            ("shop", &long),
            (&long[..64], "web"),
        ] {
            assert!(PodName::new(namespace, name).is_err(), "{namespace}/{name}");
        }
        assert_eq!(SandboxId::new("0a_b.c-d").unwrap().as_str(), "0a_b.c-d");
        for id in ["", "-a", "a/b", "a\n", &long] {
            assert_eq!(SandboxId::new(id), Err(SandboxError::Id), "{id}");
        }
    }
}
