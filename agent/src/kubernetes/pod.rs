//! Pods, as far as they matter here.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as api;
use serde::{Deserialize, Serialize};
use sheath_common::pod_uid::PodUid;

use super::{Wish, probes};

/// By this annotation the kubelet marks the API's image of a static pod (`pkg/kubelet/types/pod_update.go`).
const MIRROR: &str = "kubernetes.io/config.mirror";
/// What the API server writes where a pod names no service account.
const DEFAULT_ACCOUNT: &str = "default";

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    pub uid: PodUid,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub service_account: Arc<str>,
    /// The node that it is bound to; empty if to none yet.
    pub node: Arc<str>,
    /// Its addresses, none until the kubelet has said them.
    pub addresses: BTreeSet<IpAddr>,
    /// It shares the node's network namespace and addresses.
    pub host_network: bool,
    /// The image of a static pod, which a node has made. It is not the pod that runs: that has another uid.
    pub is_mirror: bool,
    /// Its runtime class, which may stand for a sandbox that is no part of this kernel's cgroups.
    pub runtime_class: Option<Arc<str>>,
    /// What its own label asks for.
    pub wish: Wish,
    pub lifetime: Lifetime,
    /// Ports at which the kubelet calls it.
    pub probe_ports: BTreeSet<u16>,
}

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lifetime {
    /// It runs, or is about to.
    Living,
    /// It was deleted, and may take its time to end.
    Ending,
    /// Its containers have ended and are not started again.
    Over,
}

/// An object of the API that cannot be a pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAPod {
    #[error("a pod without {0}")]
    Lacks(&'static str),
    #[error("the pod {pod} has `{uid}` for a uid")]
    Uid { pod: String, uid: String },
    #[error("the pod {pod} has `{address}` for an address")]
    Address { pod: String, address: String },
}

impl Pod {
    /// # Errors
    /// If the object lacks what every pod has, or if that makes no sense.
    pub fn of(object: &api::Pod) -> Result<Self, NotAPod> {
        let metadata = &object.metadata;
        let name = metadata.name.as_deref().ok_or(NotAPod::Lacks("a name"))?;
        let namespace = metadata.namespace.as_deref().ok_or(NotAPod::Lacks("a namespace"))?;
        let uid = metadata.uid.as_deref().ok_or(NotAPod::Lacks("a uid"))?;
        let spec = object.spec.as_ref().ok_or(NotAPod::Lacks("a specification"))?;
        let pod = || format!("{namespace}/{name}");
        let uid = uid.parse().map_err(|_| NotAPod::Uid { pod: pod(), uid: uid.to_owned() })?;
        let account = spec.service_account_name.as_deref().filter(|account| !account.is_empty());
        let annotations = metadata.annotations.as_ref();
        Ok(Self {
            uid,
            namespace: namespace.into(),
            name: name.into(),
            service_account: account.unwrap_or(DEFAULT_ACCOUNT).into(),
            node: spec.node_name.as_deref().unwrap_or_default().into(),
            addresses: addresses(object)
                .map_err(|address| NotAPod::Address { pod: pod(), address })?,
            host_network: spec.host_network == Some(true),
            is_mirror: annotations.is_some_and(|annotations| annotations.contains_key(MIRROR)),
            runtime_class: spec.runtime_class_name.as_deref().map(Into::into),
            wish: Wish::of(metadata.labels.as_ref()),
            lifetime: lifetime(object),
            probe_ports: probes::ports(spec),
        })
    }
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

fn lifetime(object: &api::Pod) -> Lifetime {
    let phase = object.status.as_ref().and_then(|status| status.phase.as_deref());
    match phase {
        Some("Succeeded" | "Failed") => Lifetime::Over,
        _ if object.metadata.deletion_timestamp.is_some() => Lifetime::Ending,
        _ => Lifetime::Living,
    }
}

/// All addresses, of both families.
///
/// # Errors
/// A text that is no address.
fn addresses(object: &api::Pod) -> Result<BTreeSet<IpAddr>, String> {
    let Some(status) = &object.status else {
        return Ok(BTreeSet::new());
    };
    let all = status.pod_ips.iter().flatten().map(|entry| entry.ip.as_str());
    let texts = all.chain(status.pod_ip.as_deref()).filter(|text| !text.is_empty());
    texts.map(|text| text.parse().map_err(|_| text.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::Protection;
    use serde_json::{Value, json};

    const UID: &str = "11111111-2222-3333-4444-555555555555";

    fn pod(change: impl FnOnce(&mut Value)) -> Result<Pod, NotAPod> {
        let mut object = json!({
            "metadata": {"name": "web-0", "namespace": "shop", "uid": UID},
            "spec": {"nodeName": "node-a", "serviceAccountName": "web", "containers": []},
            "status": {"phase": "Running", "podIP": "10.1.0.7", "podIPs": [{"ip": "10.1.0.7"}, {"ip": "fd00::7"}]},
        });
        change(&mut object);
        Pod::of(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn what_matters_is_read() {
        let pod = pod(|object| {
            object["metadata"]["labels"] = json!({"sheath.dev/protect": "prefer"});
            object["spec"]["runtimeClassName"] = json!("gvisor");
        });
        let pod = pod.unwrap();
        assert_eq!(pod.to_string(), "shop/web-0");
        assert_eq!(pod.uid.to_string(), UID);
        assert_eq!((&*pod.service_account, &*pod.node), ("web", "node-a"));
        let addresses: Vec<_> = pod.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.1.0.7", "fd00::7"]);
        assert_eq!(pod.runtime_class.as_deref(), Some("gvisor"));
        assert_eq!(pod.wish, Wish::Said(Protection::Prefer));
        assert_eq!(pod.lifetime, Lifetime::Living);
        assert!(!pod.host_network && !pod.is_mirror);
    }

    #[test]
    fn without_a_service_account_it_is_the_default_one() {
        for account in [Value::Null, json!("")] {
            let pod = pod(|object| object["spec"]["serviceAccountName"] = account);
            assert_eq!(&*pod.unwrap().service_account, "default");
        }
    }

    #[test]
    fn a_mirror_is_known_by_its_annotation() {
        let pod =
            pod(|object| object["metadata"]["annotations"] = json!({MIRROR: "0123456789abcdef"}));
        assert!(pod.unwrap().is_mirror);
    }

    #[test]
    fn the_end_of_a_life_is_seen() {
        let deleted = |object: &mut Value| {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        };
        assert_eq!(pod(deleted).unwrap().lifetime, Lifetime::Ending);
        for phase in ["Succeeded", "Failed"] {
            let over = |object: &mut Value| {
                deleted(object);
                object["status"]["phase"] = json!(phase);
            };
            assert_eq!(pod(over).unwrap().lifetime, Lifetime::Over);
        }
        // An unknown phase is none that ends it.
        let unknown = |object: &mut Value| object["status"]["phase"] = json!("Unknown");
        assert_eq!(pod(unknown).unwrap().lifetime, Lifetime::Living);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_name() {
        for (change, said) in [
            (json!({"uid": "../x"}), "the pod shop/web-0 has `../x` for a uid"),
            (json!({"ip": "10.0.0"}), "the pod shop/web-0 has `10.0.0` for an address"),
        ] {
            let error = pod(|object| {
                if let Some(uid) = change.get("uid") {
                    object["metadata"]["uid"] = uid.clone();
                }
                if let Some(ip) = change.get("ip") {
                    object["status"]["podIP"] = ip.clone();
                }
            });
            assert_eq!(error.unwrap_err().to_string(), said);
        }
        let nameless = pod(|object| object["metadata"]["name"] = Value::Null);
        assert_eq!(nameless, Err(NotAPod::Lacks("a name")));
    }

    #[test]
    fn a_pod_that_is_new_has_no_address_yet() {
        let pod = pod(|object| object["status"] = Value::Null).unwrap();
        assert!(pod.addresses.is_empty() && pod.lifetime == Lifetime::Living);
    }
}
