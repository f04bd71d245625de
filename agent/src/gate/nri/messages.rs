//! What of `nri.pkg.api.v1alpha1` is used (containerd/nri, `pkg/api/api.proto`, v0.12). Fields that are not here are passed over
//! when they are read: containers above all, of which the gate needs nothing.

use prost::Message;

/// The service that the runtime offers, and the one that it calls.
pub const RUNTIME: &str = "nri.pkg.api.v1alpha1.Runtime";
pub const PLUGIN: &str = "nri.pkg.api.v1alpha1.Plugin";

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Empty {}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct RegisterPluginRequest {
    #[prost(string, tag = "1")]
    pub plugin_name: String,
    /// Two digits. Plugins are called in ascending order.
    #[prost(string, tag = "2")]
    pub plugin_idx: String,
    #[prost(string, tag = "3")]
    pub nri_version: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct ConfigureRequest {
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    #[prost(string, tag = "3")]
    pub runtime_version: String,
    /// In milliseconds, as the next.
    #[prost(int64, tag = "4")]
    pub registration_timeout: i64,
    #[prost(int64, tag = "5")]
    pub request_timeout: i64,
    #[prost(string, tag = "6")]
    pub nri_version: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct ConfigureResponse {
    /// A bit for each [`Event`].
    #[prost(int32, tag = "2")]
    pub events: i32,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct SynchronizeRequest {
    #[prost(message, repeated, tag = "1")]
    pub pods: Vec<PodSandbox>,
    #[prost(bool, tag = "3")]
    pub more: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct SynchronizeResponse {
    /// Must be what the request said, or the runtime takes it that the plugin knows no requests in parts.
    #[prost(bool, tag = "2")]
    pub more: bool,
}

/// RunPodSandboxRequest, and those for the other things that happen to a sandbox.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SandboxRequest {
    #[prost(message, optional, tag = "1")]
    pub pod: Option<PodSandbox>,
}

/// What NRI before 0.11 says in place of calls of their own, and still says to plugins that do not know these.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StateChangeEvent {
    #[prost(int32, tag = "1")]
    pub event: i32,
    #[prost(message, optional, tag = "2")]
    pub pod: Option<PodSandbox>,
}

/// Those of `Event` that are about a sandbox and that the plugin wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Run = 1,
    Stop = 2,
    Remove = 3,
}

impl Event {
    pub const ALL: [Self; 3] = [Self::Run, Self::Stop, Self::Remove];

    /// What the plugin wants to be asked about: `EventMask` in `pkg/api/event.go`.
    #[must_use]
    pub fn mask() -> i32 {
        Self::ALL.iter().map(|event| 1 << (*event as i32 - 1)).sum()
    }
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct PodSandbox {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub uid: String,
    #[prost(string, tag = "4")]
    pub namespace: String,
    #[prost(string, tag = "7")]
    pub runtime_handler: String,
    #[prost(message, optional, tag = "8")]
    pub linux: Option<LinuxPodSandbox>,
    #[prost(uint32, tag = "9")]
    pub pid: u32,
    #[prost(string, repeated, tag = "10")]
    pub ips: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct LinuxPodSandbox {
    #[prost(string, tag = "3")]
    pub cgroup_parent: String,
    #[prost(message, repeated, tag = "5")]
    pub namespaces: Vec<LinuxNamespace>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct LinuxNamespace {
    /// `network` for the one that is of interest.
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(string, tag = "2")]
    pub path: String,
}
