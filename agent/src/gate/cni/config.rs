//! What the runtime says on stdin: the plugin's part of the network's configuration, and the result of the plugins before it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::failure::{Code, Failure};
use crate::gate::sandbox::PodName;

/// Versions of CNI in which a plugin can be chained.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// What is on stdin. The runtime adds keys of its own.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config<'t> {
    #[serde(default)]
    pub cni_version: String,
    #[serde(borrow)]
    pub prev_result: Option<&'t RawValue>,
    #[serde(flatten)]
    pub own: Own,
}

/// Our own keys, as they lie in the network's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Own {
    /// The agent's gate socket.
    pub socket: PathBuf,
    /// Pods that start while no agent answers, or it has not seen them, as `namespace/name`. Whoever may make pods in such a
    /// namespace can take the name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<AllowedPod>,
}

/// The whole name of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AllowedPod(PodName);

impl TryFrom<String> for AllowedPod {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.split_once('/')
            .and_then(|(namespace, name)| PodName::new(namespace, name).ok())
            .map(Self)
            .ok_or_else(|| {
                format!(
                    "`{text:.80}` is not the whole name of a pod; write it like `kube-system/name`, without wildcards"
                )
            })
    }
}

impl std::str::FromStr for AllowedPod {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
    }
}

impl From<AllowedPod> for String {
    fn from(pod: AllowedPod) -> Self {
        pod.0.to_string()
    }
}

impl Own {
    /// True for exactly the pods that are listed.
    #[must_use]
    pub fn allows(&self, namespace: &str, name: &str) -> bool {
        self.allow.iter().any(|pod| (pod.0.namespace(), pod.0.name()) == (namespace, name))
    }
}

impl<'t> Config<'t> {
    /// # Errors
    /// If it is no configuration of this plugin, or of a version that it does not know.
    pub fn parse(text: &'t str) -> Result<Self, Failure> {
        let config: Self = serde_json::from_str(text).map_err(|error| {
            Failure::new(Code::Decoding, "cannot read the network's configuration", error)
        })?;
        if VERSIONS.contains(&config.cni_version.as_str()) {
            return Ok(config);
        }
        Err(Failure::new(
            Code::IncompatibleVersion,
            "incompatible CNI version",
            format!(
                "cniVersion is `{:.20}`; it must be one of {}",
                config.cni_version,
                VERSIONS.join(", ")
            ),
        ))
    }
}
