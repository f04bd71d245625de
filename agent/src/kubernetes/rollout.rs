//! How far a DaemonSet is.

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use kube::{Api, Client};

use super::WatchProblem;

/// On how many nodes the pods of a DaemonSet are to run, and on how many they are ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollout {
    pub wanted: i32,
    pub ready: i32,
}

impl Rollout {
    /// True if they are ready wherever they are to run.
    #[must_use]
    pub fn is_complete(self) -> bool {
        self.ready >= self.wanted
    }

    /// `None` as long as nobody has counted since the last change.
    fn of(object: &DaemonSet) -> Option<Self> {
        let DaemonSetStatus {
            observed_generation,
            desired_number_scheduled: wanted,
            number_ready: ready,
            ..
        } = object.status.as_ref()?;
        let is_current =
            observed_generation.is_some() && *observed_generation == object.metadata.generation;
        is_current.then_some(Self { wanted: *wanted, ready: *ready })
    }
}

/// Why it is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RolloutError {
    #[error("{0}")]
    Request(#[from] WatchProblem),
    #[error("no controller has looked at the DaemonSet yet")]
    NotCounted,
}

/// Asks how far a DaemonSet is.
///
/// # Errors
/// If the API server does not tell, or does not know yet.
pub async fn rollout(
    client: &Client,
    namespace: &str,
    daemon_set: &str,
) -> Result<Rollout, RolloutError> {
    let api: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let object = api.get(daemon_set).await.map_err(|error| WatchProblem::of_request(&error))?;
    Rollout::of(&object).ok_or(RolloutError::NotCounted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(status: Value) -> Option<Rollout> {
        let object = json!({"metadata": {"generation": 2}, "status": status});
        Rollout::of(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn what_was_counted_before_the_last_change_does_not_count() {
        let counted = |generation: i64, ready: i32| {
            of(json!({
                "observedGeneration": generation, "desiredNumberScheduled": 2, "numberReady": ready,
                "currentNumberScheduled": 2, "numberMisscheduled": 0,
            }))
        };
        assert_eq!(counted(1, 2), None);
        assert!(!counted(2, 1).unwrap().is_complete());
        assert!(counted(2, 2).unwrap().is_complete());
        assert_eq!(of(Value::Null), None);
    }
}
