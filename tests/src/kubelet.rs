//! A kubelet as far as cgroups go: it makes those of its pods where the real one does, by either driver (k/k
//! pkg/kubelet/cm/pod_container_manager_linux.go). Written without a look at the agent's own rules.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cgroup::Cgroup;
use crate::config;

/// How cgroups are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Cgroupfs,
    Systemd,
}

/// How deep the root lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// As on a host.
    Flat,
    /// With `cgroupRoot`, as in kind.
    Nested,
}

/// A pod's class of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

pub const LAYOUTS: [(Driver, Depth); 4] = [
    (Driver::Cgroupfs, Depth::Flat),
    (Driver::Cgroupfs, Depth::Nested),
    (Driver::Systemd, Depth::Flat),
    (Driver::Systemd, Depth::Nested),
];

pub const CLASSES: [Qos; 3] = [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort];

/// The cgroups that a kubelet makes when it starts.
pub struct Kubelet {
    driver: Driver,
    /// In the order of [`CLASSES`].
    parents: [Arc<Cgroup>; 3],
    /// What names of slices begin with.
    prefix: &'static str,
}

impl Kubelet {
    /// Starts below a cgroup that stands for the root of the hierarchy.
    pub fn start(top: &Arc<Cgroup>, driver: Driver, depth: Depth) -> Self {
        let (root, prefix) = match (driver, depth) {
            (Driver::Cgroupfs, Depth::Flat) => (top.child("kubepods"), ""),
            (Driver::Cgroupfs, Depth::Nested) => (top.child("kubelet").child("kubepods"), ""),
            (Driver::Systemd, Depth::Flat) => (top.child("kubepods.slice"), "kubepods"),
            (Driver::Systemd, Depth::Nested) => {
                (top.child("kubelet.slice").child("kubelet-kubepods.slice"), "kubelet-kubepods")
            }
        };
        let class = |name: &str| match driver {
            Driver::Cgroupfs => root.child(name),
            Driver::Systemd => root.child(format!("{prefix}-{name}.slice")),
        };
        let parents = [root.clone(), class("burstable"), class("besteffort")];
        Self { driver, parents, prefix }
    }

    /// What the configuration calls the root.
    pub fn root(&self) -> String {
        format!("/{}", self.parents[0].relative())
    }

    /// The agent's settings of it. Nothing is known about pods yet.
    pub fn settings(&self) -> config::Pods {
        config::Pods { root: self.root(), ..config::Pods::default() }
    }

    fn parent(&self, qos: Qos) -> &Arc<Cgroup> {
        &self.parents[qos as usize]
    }

    fn name(&self, qos: Qos, uid: &str) -> String {
        let class = match qos {
            Qos::Guaranteed => "",
            Qos::Burstable => "-burstable",
            Qos::BestEffort => "-besteffort",
        };
        match self.driver {
            Driver::Cgroupfs => format!("pod{uid}"),
            Driver::Systemd => {
                format!("{}{class}-pod{}.slice", self.prefix, uid.replace('-', "_"))
            }
        }
    }

    /// Where a pod's cgroup will be.
    pub fn path(&self, qos: Qos, uid: &str) -> PathBuf {
        self.parent(qos).path().join(self.name(qos, uid))
    }

    /// Makes a pod's cgroup.
    pub fn make_pod(&self, qos: Qos, uid: &str) -> Arc<Cgroup> {
        self.parent(qos).child(self.name(qos, uid))
    }

    /// Makes a pod's cgroup and that of its container, as the runtime does.
    pub fn make_container(&self, qos: Qos, uid: &str) -> Arc<Cgroup> {
        self.make_pod(qos, uid).child(self.container())
    }

    /// What a runtime calls a container's cgroup.
    pub fn container(&self) -> &'static str {
        match self.driver {
            Driver::Cgroupfs => "8f1e0c2d4b6a8f1e0c2d4b6a8f1e0c2d4b6a8f1e0c2d4b6a8f1e0c2d4b6a8f1e",
            Driver::Systemd => {
                "cri-containerd-8f1e0c2d4b6a8f1e0c2d4b6a8f1e0c2d4b6a8f1e0c2d4b6a.scope"
            }
        }
    }
}

static NEXT: AtomicU32 = AtomicU32::new(1);

/// The uid of a pod that the API server has made.
pub fn uid() -> String {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    format!("{number:08x}-9d3e-4a5b-8c7f-{process:012x}")
}

/// The uid of a static pod.
pub fn static_uid() -> String {
    uid().replace('-', "")
}
