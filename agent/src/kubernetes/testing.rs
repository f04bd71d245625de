//! For tests: objects of the API.

use k8s_openapi::api::core::v1 as api;
use kube::core::PartialObjectMeta;
use serde_json::{Value, json};

use super::{LABEL, Namespace, Pod, Rules};

/// A pod whose uid ends with the number.
pub fn object(number: u32, change: impl FnOnce(&mut Value)) -> api::Pod {
    let mut object = json!({
        "metadata": {
            "name": format!("web-{number}"),
            "namespace": "shop",
            "uid": format!("00000000-0000-0000-0000-{number:012}"),
        },
        "spec": {"nodeName": "node-a", "serviceAccountName": "web", "containers": []},
        "status": {"phase": "Running", "podIP": "10.1.0.7"},
    });
    change(&mut object);
    serde_json::from_value(object).unwrap()
}

pub fn pod(number: u32, change: impl FnOnce(&mut Value)) -> Pod {
    Pod::of(&object(number, change)).unwrap()
}

/// Gives the object this label.
pub fn labelled(value: &str) -> impl FnOnce(&mut Value) {
    move |object| object["metadata"]["labels"] = json!({LABEL: value})
}

pub fn namespace_object(name: &str, label: Option<&str>) -> PartialObjectMeta<api::Namespace> {
    let labels = label.map(|value| json!({LABEL: value}));
    let object = json!({"metadata": {"name": name, "labels": labels}});
    serde_json::from_value(object).unwrap()
}

pub fn namespace(label: Option<&str>) -> Namespace {
    Namespace::of(&namespace_object("shop", label)).unwrap()
}

pub fn rules() -> Rules {
    Rules {
        system_namespaces: ["kube-system".to_owned()].into(),
        runtime_classes: ["crun".to_owned()].into(),
    }
}
