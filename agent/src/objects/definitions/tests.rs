use std::fs;
use std::path::Path;

use super::*;

#[test]
fn the_file_of_the_chart_is_what_the_types_say() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/sheath/files/definitions.yaml");
    let written = fs::read_to_string(path).unwrap_or_default();
    assert!(written == yaml().unwrap(), "run `cargo xtask manifests`");
}

#[test]
fn what_is_written_is_what_is_read() {
    let text = yaml().unwrap();
    let read: Vec<Value> = text
        .split("---\n")
        .skip(1)
        .map(|document| serde_saphyr::from_str(document).unwrap())
        .collect();
    assert_eq!(read, definitions().unwrap());
}

/// Goes through a schema, with the path of each part.
fn walk(schema: &Value, path: &str, look: &mut impl FnMut(&str, &Value)) {
    look(path, schema);
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        walk(inner, &format!("{path}.{name}"), look);
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[key].is_object() {
            walk(&schema[key], &format!("{path}{mark}"), look);
        }
    }
}

/// As <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/> wants them. Rules are
/// estimated by the longest value that can be: without bounds, the API server refuses the definition.
#[test]
fn schemas_are_structural_and_bounded() {
    for definition in definitions().unwrap() {
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut wrong = Vec::new();
        walk(schema, "", &mut |path, part| {
            let is_missing = |key: &str| part[key].is_null();
            let kind = part["type"].as_str().unwrap_or_default();
            if kind.is_empty() {
                wrong.push(format!("{path}: no type"));
            }
            for key in ["nullable", "default", "oneOf", "anyOf", "$ref"] {
                if !is_missing(key) {
                    wrong.push(format!("{path}: {key}"));
                }
            }
            if !path.starts_with(".spec") {
                return;
            }
            if kind == "array" && is_missing("maxItems") {
                wrong.push(format!("{path}: a list without bounds"));
            }
            if kind == "string" && is_missing("maxLength") && is_missing("enum") {
                wrong.push(format!("{path}: a text without bounds"));
            }
            if kind == "integer" && (is_missing("minimum") || is_missing("maximum")) {
                wrong.push(format!("{path}: a number without bounds"));
            }
        });
        assert!(wrong.is_empty(), "{}: {wrong:#?}", definition["metadata"]["name"]);
    }
}

#[test]
fn every_field_is_explained() {
    for definition in definitions().unwrap() {
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut silent = Vec::new();
        walk(schema, "", &mut |path, part| {
            let text = part["description"].as_str().unwrap_or_default();
            // What is in a list or a map is explained with it.
            if !path.ends_with(']')
                && !path.ends_with('}')
                && (text.len() < 6 || text.contains('\n'))
            {
                silent.push(path.to_owned());
            }
        });
        assert!(silent.is_empty(), "{}: {silent:?}", definition["metadata"]["name"]);
    }
}

#[test]
fn kinds_have_a_status_and_columns() {
    let all = definitions().unwrap();
    assert_eq!(all.len(), 5);
    for definition in all {
        let version = &definition["spec"]["versions"][0];
        assert!(version["subresources"]["status"].is_object());
        let columns = version["additionalPrinterColumns"].as_array().unwrap();
        assert!(columns.iter().any(|column| column["name"] == "Accepted"), "{columns:?}");
        assert_eq!(definition["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    }
}
