use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const ENTRY: &str = r#"{"type":"sheath-cni","socket":"/run/sheath/default/gate.sock"}"#;

const FLANNEL: &str = r#"{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "flannel",
      "delegate": { "hairpinMode": true, "x": 1.0, "y": 12345678901234567890123 }
    },
    {
      "type": "portmap",
      "capabilities": {"portMappings": true}
    }
  ]
}
"#;

fn with(text: &str) -> Option<String> {
    with_plugin(text, "sheath-cni", ENTRY).unwrap()
}

fn without(text: &str) -> Option<String> {
    without_plugin(text, "sheath-cni").unwrap()
}

#[test]
fn a_plugin_is_put_in_at_the_end_once_and_taken_out_again() {
    let text = with(FLANNEL).unwrap();
    let expected = FLANNEL.replace("true}\n    }\n", &format!("true}}\n    }},\n    {ENTRY}\n"));
    assert_eq!(text, expected);
    assert_eq!(with(&text), None);
    assert_eq!(without(&text).as_deref(), Some(FLANNEL));
    assert_eq!(without(FLANNEL), None);
}

#[test]
fn an_entry_that_is_another_is_replaced_where_it_is() {
    let old =
        r#"{"plugins":[{"type":"ptp"},{"type":"sheath-cni","socket":"/old"},{"type":"tuning"}]}"#;
    let new = old.replace(r#"{"type":"sheath-cni","socket":"/old"}"#, ENTRY);
    assert_eq!(with(old).unwrap(), new);
    let twice = r#"{"plugins":[{"type":"sheath-cni"},{"type":"ptp"},{"type":"sheath-cni"}]}"#;
    assert_eq!(without(twice).unwrap(), r#"{"plugins":[{"type":"ptp"}]}"#);
}

#[test]
fn what_is_no_list_of_plugins_stays_as_it_is() {
    for text in [
        "",
        "{}",
        "[]",
        r#"{"type":"ptp"}"#,
        r#"{"plugins":{}}"#,
        r#"{"plugins":[1]}"#,
        r#"{"plugins":[{"type":1}]}"#,
        r#"{"plugins":[{"type":"ptp"}]} trailing"#,
        r#"{"plugins":[{"type":"ptp"}],"plugins":[]}"#,
    ] {
        let error = with_plugin(text, "sheath-cni", ENTRY).unwrap_err();
        assert!(matches!(error, ConflistError::NoList(_)), "{text}: {error}");
        assert!(without_plugin(text, "sheath-cni").is_err(), "{text}");
    }
    for text in [r#"{"plugins":[]}"#, r#"{"plugins":[{"type":"sheath-cni"}]}"#] {
        assert_eq!(with_plugin(text, "sheath-cni", ENTRY), Err(ConflistError::NoNetwork));
    }
    let alone = without_plugin(r#"{"plugins":[{"type":"sheath-cni"}]}"#, "sheath-cni");
    assert_eq!(alone, Err(ConflistError::NoNetwork));
}

fn networks() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Value::from),
        "[ -~é\"\\\\\n]{0,12}".prop_map(Value::from),
        Just(Value::Null),
    ];
    let keys = prop::collection::btree_map("[a-z\"\\\\]{1,8}", leaf, 0..4);
    let plugins = prop::collection::vec(("[a-z-]{1,8}", keys.clone()), 1..5);
    (plugins, keys).prop_map(|(plugins, keys)| {
        let plugins: Vec<Value> = plugins
            .into_iter()
            .map(|(name, keys)| {
                let mut plugin = json!(keys);
                plugin["type"] = name.into();
                plugin
            })
            .collect();
        let mut network = json!(keys);
        network["plugins"] = plugins.into();
        network
    })
}

proptest! {
    #[test]
    fn putting_in_adds_an_entry_and_taking_out_leaves_the_text(
        network in networks(),
        is_pretty: bool,
    ) {
        let text = if is_pretty {
            serde_json::to_string_pretty(&network).unwrap()
        } else {
            network.to_string()
        };
        let changed = with(&text).unwrap();
        let mut expected = network;
        expected["plugins"].as_array_mut().unwrap().push(serde_json::from_str(ENTRY).unwrap());
        prop_assert_eq!(serde_json::from_str::<Value>(&changed).unwrap(), expected);
        prop_assert_eq!(without(&changed), Some(text));
    }
}
