//! What an agent that runs has seen, and cannot know before it does.

use serde_json::Value;

use super::Finding;

/// Looks at an agent's status.
#[must_use]
pub fn running(status: &Value) -> Vec<Finding> {
    probes(status).into_iter().collect()
}

/// Whether the kubelet's probes come to pods as the kubelet has sent them. Whoever masquerades or proxies what goes from the node to its
/// pods makes them look like anybody's.
fn probes(status: &Value) -> Option<Finding> {
    let count = |name: &str| status["counters"][name].as_u64().unwrap_or_default();
    let (passed, unmatched) = (count("probes_passed"), count("probe_unmatched"));
    if unmatched == 0 {
        return None;
    }
    Some(Finding::warning(
        "probes",
        format!(
            "{passed} probes of the kubelet were let through; {unmatched} other connections to ports of probes were refused, as none of the \
             kubelet's was known to come like that"
        ),
        "if pods are not ready: something masquerades or proxies what goes from the node to its pods (the network plugin, or a rule for \
         masquerading); exclude the pods' range from it",
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn probes_that_come_as_somebody_elses_are_told() {
        let status = |unmatched: u64| json!({"counters": {"probes_passed": 5, "probe_unmatched": unmatched}});
        assert_eq!(running(&status(0)), []);
        assert_eq!(running(&json!({})), []);
        let findings = running(&status(3));
        assert!(findings[0].found.contains("3 other connections"), "{findings:?}");
    }
}
