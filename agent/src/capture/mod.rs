//! The capture stage: the BPF programs and their maps, the namespaces they work in, and what they say about an
//! accepted connection.
//!
//! [`Supervisor`] is the only writer of all this. Flows use [`Namespace`] to accept and to dial, and the maps
//! behind it one entry at a time.

mod allocation;
mod cgroups;
mod error;
mod filters;
mod kernel;
mod kernel_view;
mod kubelet;
mod namespace;
mod pod_cgroups;
mod pod_settings;
mod proc;
mod processes;
mod recognition;
mod root;
mod selectors;
mod supervisor;

pub use cgroups::{
    WorkloadCgroup, is_member, join as cgroup_directory, own as own_cgroup, processes,
    shown as shown_cgroup,
};
pub use error::{CaptureError, IdError};
pub use filters::blocked_within as blocked_on_loopback;
pub use kernel::directory::{DirectoryMaps, Step as DirectoryStep};
pub use kernel::filesystems::{cgroup_mount, ensure_bpffs, ensure_tracefs, pins_outlive_the_agent};
pub use kernel::ids::WorkloadIds;
pub use kernel::maps::Maps;
pub use kernel::mounts::{NetworkMount, of_processes as network_mounts};
pub use kernel::pins::Pins;
pub use kernel::prepared::Prepared;
pub use kernel::programs::try_out as try_programs;
pub use kubelet::{NoKubelet, find as find_kubelet, others as beside_kubelet};
pub use namespace::local_leg::{LocalLeg, LocalLegError};
pub use namespace::unreachable::errno_of as unreachable_errno;
pub use namespace::{
    AcceptedInbound, AcceptedOutbound, ClientName, FlowStarter, Listeners, Namespace, Place,
};
pub use pod_settings::{KubeletSetting, PodRoot, PodSettings, UnknownPods};
pub use processes::Processes;
pub use recognition::find as workload_cgroups;
pub use root::CaptureRoot;
pub use supervisor::{
    ConditionsView, InForceView, NamespaceStatus, PodsStatus, ProgramStatus, Protection,
    Reconfiguration, ServedWorkload, StatusView, Supervisor, SupervisorRequest,
    UnprotectedConnection, WorkloadStatus, survey,
};
