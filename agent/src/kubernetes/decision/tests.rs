use serde_json::json;

use super::*;
use crate::kubernetes::testing::{labelled, namespace, pod, rules};

use Protection::{False, Prefer, Require};

#[test]
fn the_stronger_label_counts_and_a_pod_can_only_ask_for_more() {
    for (of_namespace, of_pod, expected) in [
        (None, None, False),
        (Some("require"), None, Require),
        (Some("prefer"), None, Prefer),
        (Some("false"), None, False),
        (None, Some("require"), Require),
        (None, Some("prefer"), Prefer),
        (Some("prefer"), Some("require"), Require),
        // Whoever may make pods does not take protection away.
        (Some("require"), Some("false"), Require),
        (Some("require"), Some("prefer"), Require),
        (Some("false"), Some("prefer"), Prefer),
    ] {
        let pod = match of_pod {
            Some(label) => pod(1, labelled(label)),
            None => pod(1, |_| {}),
        };
        let expected = match expected {
            False => Decision::Plain,
            protection => Decision::Protected(protection),
        };
        let decision = rules().decide(&pod, Some(&namespace(of_namespace)));
        assert_eq!(decision, expected, "{of_namespace:?} {of_pod:?}");
    }
}

#[test]
fn a_label_that_makes_no_sense_decides_nothing() {
    let typo = NotAProtection("requrie".to_owned());
    let plain = pod(1, |_| {});
    let decision = rules().decide(&plain, Some(&namespace(Some("requrie"))));
    assert_eq!(decision, Decision::Undecided(Undecided::NamespaceLabel(typo.clone())));
    let labelled = pod(1, labelled("requrie"));
    for of_namespace in [None, Some("prefer")] {
        let decision = rules().decide(&labelled, Some(&namespace(of_namespace)));
        assert_eq!(decision, Decision::Undecided(Undecided::Label(typo.clone())));
    }
}

/// Whoever makes a pod could keep it out of what the namespace asks for later, by a label of which nobody knows what it asks for.
#[test]
fn a_pod_with_a_label_that_makes_no_sense_has_what_its_namespace_asks_for_at_least() {
    let labelled = pod(1, labelled("requrie"));
    let decision = rules().decide(&labelled, Some(&namespace(Some("require"))));
    assert_eq!(decision, Decision::Protected(Protection::Require));
    assert_eq!(least(Some(&namespace(Some("prefer")))), Protection::Prefer);
    assert_eq!(least(Some(&namespace(Some("requrie")))), Protection::False);
    assert_eq!(least(None), Protection::False);
}

#[test]
fn without_its_namespace_nobody_can_say() {
    let decision = rules().decide(&pod(1, labelled("require")), None);
    assert_eq!(decision, Decision::Undecided(Undecided::Namespace));
}

#[test]
fn what_the_cluster_needs_cannot_be_selected_and_that_is_told() {
    let pod = pod(1, |object| {
        labelled("require")(object);
        object["metadata"]["namespace"] = json!("kube-system");
    });
    let namespace = namespace(Some("require"));
    assert_eq!(rules().decide(&pod, Some(&namespace)), Decision::Plain);
    // It does not wait for its namespace either.
    assert_eq!(rules().decide(&pod, None), Decision::Plain);
    assert_eq!(rules().unsupported(&pod, Some(&namespace)), Some(Unsupported::System));
}

/// A node may make the image of a static pod with whatever labels and whatever uid it likes.
#[test]
fn a_mirror_decides_nothing() {
    let mirror = |object: &mut serde_json::Value| {
        labelled("require")(object);
        object["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    };
    let pod = pod(1, mirror);
    let namespace = namespace(None);
    assert_eq!(rules().decide(&pod, Some(&namespace)), Decision::None);
    assert_eq!(rules().unsupported(&pod, Some(&namespace)), Some(Unsupported::Mirror));
}

#[test]
fn a_pod_that_is_over_is_nobodys_business() {
    for phase in ["Succeeded", "Failed"] {
        let pod = pod(1, |object| {
            labelled("require")(object);
            object["status"]["phase"] = json!(phase);
        });
        let namespace = namespace(Some("require"));
        assert_eq!(rules().decide(&pod, Some(&namespace)), Decision::None);
        assert_eq!(rules().unsupported(&pod, Some(&namespace)), None);
    }
}

#[test]
fn a_sandbox_that_is_not_this_kernels_is_told() {
    let of_class = |class: &str| pod(1, |object| object["spec"]["runtimeClassName"] = json!(class));
    let wanted = namespace(Some("require"));
    let rules = rules();
    assert_eq!(
        rules.unsupported(&of_class("gvisor"), Some(&wanted)),
        Some(Unsupported::RuntimeClass)
    );
    assert_eq!(rules.unsupported(&of_class("crun"), Some(&wanted)), None);
    assert_eq!(rules.unsupported(&of_class("gvisor"), Some(&namespace(None))), None);
}
