//! What the runtime says in the environment (CNI specification, "Parameters").

use super::failure::Failure;
use crate::gate::sandbox::SandboxId;
use crate::gate::socket::AskedSandbox;

/// What the plugin is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// The longest CNI_ARGS that is read, in bytes.
const LONGEST_ARGS: usize = 16 << 10;

impl Command {
    /// # Errors
    /// If it is not set, or no command.
    pub fn parse(text: Option<&str>) -> Result<Self, Failure> {
        match text {
            Some("ADD") => Ok(Self::Add),
            Some("DEL") => Ok(Self::Del),
            Some("CHECK") => Ok(Self::Check),
            Some("GC") => Ok(Self::Gc),
            Some("STATUS") => Ok(Self::Status),
            Some("VERSION") => Ok(Self::Version),
            Some(other) => {
                Err(Failure::environment(format!("CNI_COMMAND={other:.40} is not known")))
            }
            None => Err(Failure::environment(
                "CNI_COMMAND is not set: this is a plugin that the container runtime runs; `sheath cni install` adds it to \
                 the runtime's configuration",
            )),
        }
    }
}

/// The sandbox that the environment is about.
///
/// # Errors
/// If a variable that is needed is missing or makes no sense; the message names it.
pub fn sandbox(variable: impl Fn(&str) -> Option<String>) -> Result<AskedSandbox, Failure> {
    let needed = |name: &str| {
        variable(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| Failure::environment(format!("{name} is not set")))
    };
    let id = needed("CNI_CONTAINERID")?;
    SandboxId::new(&id)
        .map_err(|_| Failure::environment(format!("CNI_CONTAINERID={id:.80} is no id")))?;
    let args = pod_args(&needed("CNI_ARGS")?).map_err(Failure::environment)?;
    Ok(AskedSandbox { id, uid: args.uid, namespace: args.namespace, name: args.name })
}

/// What `CNI_ARGS` says about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodArgs {
    pub uid: String,
    pub namespace: String,
    pub name: String,
}

/// Reads `CNI_ARGS`, as `IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=...`.
///
/// # Errors
/// If one of the three is missing or is there twice: then nobody knows who is meant.
pub fn pod_args(text: &str) -> Result<PodArgs, String> {
    if text.len() > LONGEST_ARGS {
        return Err(format!("CNI_ARGS is longer than {LONGEST_ARGS} bytes"));
    }
    let value = |name: &str| {
        let mut values = text
            .split(';')
            .filter_map(|pair| pair.split_once('='))
            .filter_map(|(key, value)| (key == name).then_some(value));
        match (values.next(), values.next()) {
            (Some(value), None) if !value.is_empty() => Ok(value.to_owned()),
            (Some(_), Some(_)) => Err(format!("CNI_ARGS has {name} twice")),
            _ => Err(format!(
                "CNI_ARGS has no {name}: this is no pod, or the runtime is older than containerd 1.5 and CRI-O 1.21; give \
                 containers that are no pods a network without {}",
                super::PLUGIN
            )),
        }
    };
    Ok(PodArgs {
        uid: value("K8S_POD_UID")?,
        namespace: value("K8S_POD_NAMESPACE")?,
        name: value("K8S_POD_NAME")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_named_once_or_not_at_all() {
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=u;X=a=b;;";
        let pod =
            PodArgs { uid: "u".to_owned(), namespace: "shop".to_owned(), name: "web".to_owned() };
        assert_eq!(pod_args(args), Ok(pod));
        for (args, complaint) in [
            ("", "no K8S_POD_UID"),
            ("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=", "no K8S_POD_UID"),
            ("K8S_POD_UID=u;K8S_POD_NAMESPACE=shop", "no K8S_POD_NAME:"),
            ("K8S_POD_UID=u;K8S_POD_UID=v;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b", "K8S_POD_UID twice"),
            (
                "K8S_POD_UID=u;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_NAME=c",
                "K8S_POD_NAME twice",
            ),
        ] {
            let error = pod_args(args).unwrap_err();
            assert!(error.contains(complaint), "{args}: {error}");
        }
        assert!(pod_args(&"x".repeat(LONGEST_ARGS + 1)).is_err());
    }
}
