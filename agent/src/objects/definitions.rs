//! The definitions of the kinds, as the API server wants them: structural schemas with rules, made from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use super::schema::{AuthorizationPolicy, ExternalPeer, TlsContext, TrustDomain, WorkloadPolicy};

/// What is said before the definitions.
const HEADER: &str = "\
# The kinds of Sheath's objects. Made by `sheath policy definitions` from agent/src/objects/schema.
";

/// Rules about the names of objects, which stand above their specifications.
const NAMES: [(&str, &str, &str); 2] = [
    (
        "TlsContext",
        "!(self.metadata.name in ['svid', 'none'])",
        "metadata.name: a TlsContext cannot be called `svid` or `none`, which mean something else",
    ),
    (
        "TrustDomain",
        "self.metadata.name == 'default'",
        "metadata.name: there is one TrustDomain, called `default`",
    ),
];

/// Why definitions cannot be written, which no schema of ours is a reason for.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    #[error("cannot write a definition as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("cannot write a definition as YAML: {0}")]
    Yaml(#[from] serde_saphyr::SerializeError),
}

/// The definitions, each as the API has it.
///
/// # Errors
/// If one cannot be written as JSON.
pub fn definitions() -> Result<Vec<Value>, DefinitionError> {
    let all = [
        WorkloadPolicy::crd(),
        AuthorizationPolicy::crd(),
        ExternalPeer::crd(),
        TlsContext::crd(),
        TrustDomain::crd(),
    ];
    all.iter().map(definition).collect()
}

/// The same, as YAML.
///
/// # Errors
/// As for [`definitions`].
pub fn yaml() -> Result<String, DefinitionError> {
    let mut text = HEADER.to_owned();
    for definition in definitions()? {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&definition)?);
    }
    Ok(text)
}

fn definition(crd: &CustomResourceDefinition) -> Result<Value, DefinitionError> {
    let mut definition = serde_json::to_value(crd)?;
    // Objects are more than the chart that has brought their kinds: Helm would remove them all.
    definition["metadata"]["annotations"] = json!({ "helm.sh/resource-policy": "keep" });
    let kind = definition["spec"]["names"]["kind"].clone();
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    tidy(schema);
    let rules = NAMES.iter().filter(|(of, ..)| kind == **of);
    let rules = rules.map(|(_, rule, message)| json!({ "rule": rule, "message": message }));
    let rules: Vec<_> = rules.collect();
    if !rules.is_empty() {
        schema["x-kubernetes-validations"] = Value::Array(rules);
    }
    Ok(definition)
}

/// Takes out what Kubernetes does not know (`format: uint16`), or what means something else there: a default would be
/// written into every object, and what is nullable would be kept as null.
fn tidy(schema: &mut Value) {
    if let Some(object) = schema.as_object_mut() {
        object.remove("nullable");
        object.remove("default");
        if let Some(Value::Array(values)) = object.get_mut("enum") {
            values.retain(|value| !value.is_null());
        }
        object.retain(|key, value| key != "format" || value == "date-time");
        object.retain(|key, value| key != "additionalProperties" || value.is_object());
        one_line(object);
        for key in ["properties", "items", "additionalProperties"] {
            match object.get_mut(key) {
                Some(Value::Object(properties)) if key == "properties" => {
                    properties.values_mut().for_each(tidy);
                }
                Some(inner) => tidy(inner),
                None => {}
            }
        }
    }
}

/// Lines of a comment are those of a source file.
fn one_line(object: &mut Map<String, Value>) {
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    }
}

#[cfg(test)]
mod tests;
