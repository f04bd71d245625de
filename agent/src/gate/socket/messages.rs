//! What is said over the gate socket.

use serde::{Deserialize, Serialize};

use super::super::reason::Reason;
use super::super::sandbox::{PodName, Sandbox, SandboxError, SandboxId};
use crate::sys::netns::NetworkNamespace;

/// Of the protocol.
const VERSION: u32 = 1;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Request {
    pub v: u32,
    pub op: Operation,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<AskedSandbox>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Operation {
    /// May it start? Waits for a while.
    Admit,
    /// Would it be admitted now?
    Check,
    /// It has stopped.
    Gone,
    /// Is there an agent?
    Status,
}

/// A sandbox, as CNI describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AskedSandbox {
    pub id: String,
    pub uid: String,
    pub namespace: String,
    pub name: String,
}

impl Request {
    #[must_use]
    pub fn new(op: Operation, sandbox: Option<AskedSandbox>) -> Self {
        Self { v: VERSION, op, sandbox }
    }

    #[must_use]
    pub fn is_understood(&self) -> bool {
        self.v == VERSION
    }
}

impl AskedSandbox {
    /// # Errors
    /// If it is no sandbox of a pod.
    pub fn with(self, namespace: Option<NetworkNamespace>) -> Result<Sandbox, SandboxError> {
        Ok(Sandbox {
            id: SandboxId::new(&self.id)?,
            uid: self.uid.parse()?,
            pod: PodName::new(&self.namespace, &self.name)?,
            // CNI does not say.
            runtime_handler: String::new(),
            cgroup_parent: String::new(),
            is_empty: true,
            pid: None,
            namespace,
            ips: Vec::new(),
        })
    }
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    pub v: u32,
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Answer {
    #[must_use]
    pub fn yes() -> Self {
        Self { v: VERSION, ok: true, reason: None, message: None }
    }

    #[must_use]
    pub fn no(reason: Reason, message: String) -> Self {
        Self { v: VERSION, ok: false, reason: Some(reason), message: Some(message) }
    }

    #[must_use]
    pub fn is_understood(&self) -> bool {
        self.v == VERSION
    }
}
