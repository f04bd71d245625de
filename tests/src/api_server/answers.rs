//! Answers in the form of the API.

use serde_json::{Value, json};

use super::store::{Kind, WatchEvent};

/// A refusal.
pub fn status(code: u16, message: &str) -> Value {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        _ => "InternalError",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

/// A page of a list.
pub fn list(
    kind: Kind,
    is_metadata: bool,
    objects: Vec<Value>,
    version: u64,
    next: Option<String>,
) -> Value {
    let objects: Vec<_> =
        objects.into_iter().map(|object| shown(kind, is_metadata, object)).collect();
    let (list, api) = match is_metadata {
        true => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1"),
        false => (format!("{}List", kind.name()), kind.api_version()),
    };
    let metadata =
        json!({"resourceVersion": version.to_string(), "continue": next.unwrap_or_default()});
    json!({"kind": list, "apiVersion": api, "metadata": metadata, "items": objects})
}

pub fn event(
    kind: Kind,
    is_metadata: bool,
    WatchEvent { kind: of, object, .. }: WatchEvent,
) -> Value {
    json!({"type": of, "object": shown(kind, is_metadata, object)})
}

pub fn bookmark(kind: Kind, version: u64) -> Value {
    let metadata = json!({"resourceVersion": version.to_string()});
    let object =
        json!({"kind": kind.name(), "apiVersion": kind.api_version(), "metadata": metadata});
    json!({"type": "BOOKMARK", "object": object})
}

pub fn error(code: u16, message: &str) -> Value {
    json!({"type": "ERROR", "object": status(code, message)})
}

/// The object as it is asked for.
pub fn shown(kind: Kind, is_metadata: bool, mut object: Value) -> Value {
    if is_metadata {
        let metadata = object["metadata"].take();
        return json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
    }
    object["kind"] = json!(kind.name());
    object["apiVersion"] = json!(kind.api_version());
    object
}
