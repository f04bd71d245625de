//! What the CNI plugin reads: `CNI_ARGS`, and the text of a network's configuration.
//!
//! Who is meant is said once. A configuration that takes the plugin is the same text when it is taken out again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sheath::gate::cni::conflist::{with_plugin, without_plugin};
use sheath::gate::cni::pod_args;

const NAME: &str = "sheath-cni";
const ENTRY: &str = r#"{"type":"sheath-cni","socket":"/x"}"#;

fuzz_target!(|text: &str| {
    if let Ok(pod) = pod_args(text) {
        for (key, value) in [
            ("K8S_POD_UID", pod.uid),
            ("K8S_POD_NAMESPACE", pod.namespace),
            ("K8S_POD_NAME", pod.name),
        ] {
            assert!(!value.is_empty() && !value.contains(';'));
            let pairs: Vec<_> =
                text.split(';').filter(|pair| pair.starts_with(&format!("{key}="))).collect();
            assert_eq!(pairs, [format!("{key}={value}")]);
        }
    }
    let Ok(Some(changed)) = with_plugin(text, NAME, ENTRY) else {
        return;
    };
    assert_eq!(with_plugin(&changed, NAME, ENTRY), Ok(None), "once");
    let without = without_plugin(&changed, NAME).expect("one that was put in").expect("a change");
    match without_plugin(text, NAME) {
        // It was not there before.
        Ok(None) => assert_eq!(without, text),
        Ok(Some(before)) => assert_eq!(without, before),
        Err(error) => panic!("{error}"),
    }
});
