//! What is wrong with pods, as events of the API: whoever looks at a pod with `kubectl describe` sees them.
//!
//! An agent speaks of pods of its own node alone, in so many words and so often.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::Caller;
use super::counters::Counters;
use crate::controller_api::troubles::{
    Reason, TellRequest, TellResponse, Trouble, Troubles, TroublesServer,
};
use crate::kubernetes::WatchProblem;
use crate::kubernetes::words::is_object_name;

/// Troubles of a node that are listened to at a time.
const MOST: usize = 500;
/// Events that a node causes in one call, and in an [`INTERVAL`].
const MOST_EVENTS: u32 = 50;
const INTERVAL: Duration = Duration::from_secs(60);
/// A trouble that lasts is told again after this; the API server forgets events after an hour.
const AGAIN: Duration = Duration::from_secs(15 * 60);
/// Bytes of a message: the API takes 1024.
const LONGEST_MESSAGE: usize = 900;
/// Bytes of who says it, in an event.
const LONGEST_INSTANCE: usize = 128;
/// Bytes of the longest request.
const LONGEST_REQUEST: usize = 1 << 20;
/// How long the API server may take for one of them.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who says it, in the events.
const REPORTER: &str = "sheath.dev/agent";

/// What a trouble is known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    namespace: String,
    pod: String,
    reason: &'static str,
}

/// What a node was heard to say.
#[derive(Default)]
struct Heard {
    /// When an event was made of each trouble that the node still has.
    told: HashMap<Key, Instant>,
    /// Events since the interval began.
    events: u32,
    begun: Option<Instant>,
}

impl Heard {
    /// Those of which an event is due now, as far as there is room for more.
    fn due(&mut self, troubles: Vec<(Key, String)>, now: Instant) -> Vec<(Key, String)> {
        let is_over = |begun: Instant| now.saturating_duration_since(begun) >= INTERVAL;
        if self.begun.is_none_or(is_over) {
            (self.begun, self.events) = (Some(now), 0);
        }
        // What is mended may come back, and is news then.
        self.told.retain(|key, _| troubles.iter().any(|(named, _)| named == key));
        let mut due = Vec::new();
        for (key, message) in troubles {
            let told = self.told.get(&key);
            let is_due = told.is_none_or(|at| now.saturating_duration_since(*at) >= AGAIN);
            if is_due && self.events < MOST_EVENTS {
                self.events += 1;
                self.told.insert(key.clone(), now);
                due.push((key, message));
            }
        }
        due
    }
}

/// The service.
pub struct Telling {
    client: Client,
    /// By node.
    heard: Mutex<HashMap<Arc<str>, Heard>>,
    counters: Arc<Counters>,
}

impl Telling {
    #[must_use]
    pub fn new(client: Client, counters: Arc<Counters>) -> Self {
        Self { client, heard: Mutex::default(), counters }
    }

    #[must_use]
    pub fn into_service(self) -> TroublesServer<Self> {
        TroublesServer::new(self).max_decoding_message_size(LONGEST_REQUEST)
    }

    fn due(&self, node: &Arc<str>, troubles: Vec<(Key, String)>) -> Vec<(Key, String)> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.entry(node.clone()).or_default().due(troubles, Instant::now())
    }

    /// A trouble was not told after all.
    fn untold(&self, node: &str, key: &Key) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(heard) = heard.get_mut(node) {
            heard.told.remove(key);
        }
    }

    /// Makes an event, if the pod is one of the node's. Returns whether it is.
    async fn tell(&self, node: &str, key: &Key, message: &str) -> Result<bool, WatchProblem> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let found = in_time(pods.get_opt(&key.pod)).await?;
        let is_here =
            |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
        let Some(pod) = found.filter(is_here) else {
            return Ok(false);
        };
        let events: Api<Event> = Api::namespaced(self.client.clone(), &key.namespace);
        let event = event(node, &pod, key, message);
        in_time(events.create(&PostParams::default(), &event)).await?;
        self.counters.events.increment();
        Ok(true)
    }
}

async fn in_time<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, WatchProblem> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(answer) => answer.map_err(|error| WatchProblem::of_request(&error)),
        Err(_) => Err(WatchProblem::Unreachable("no answer in time".to_owned())),
    }
}

/// As `events.k8s.io/v1` wants it.
fn event(node: &str, pod: &Pod, key: &Key, message: &str) -> Event {
    Event {
        action: Some("Protect".to_owned()),
        event_time: Some(MicroTime(Timestamp::now())),
        metadata: ObjectMeta {
            generate_name: Some("sheath-".to_owned()),
            namespace: Some(key.namespace.clone()),
            ..ObjectMeta::default()
        },
        note: Some(message.to_owned()),
        reason: Some(key.reason.to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(key.pod.clone()),
            namespace: Some(key.namespace.clone()),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(REPORTER.to_owned()),
        reporting_instance: Some(node[..node.floor_char_boundary(LONGEST_INSTANCE)].to_owned()),
        type_: Some("Warning".to_owned()),
        ..Event::default()
    }
}

/// Reasons as people read them.
fn reason(code: i32) -> Option<&'static str> {
    match Reason::try_from(code).ok()? {
        Reason::Unspecified => None,
        Reason::Protection => Some("ProtectionProblem"),
        Reason::NoIdentity => Some("NoIdentity"),
        Reason::Degraded => Some("ProtectionDegraded"),
        Reason::ConnectionsRefused => Some("ConnectionsRefused"),
    }
}

/// A trouble that makes sense. Names become part of a request's path.
fn parsed(trouble: Trouble) -> Option<(Key, String)> {
    let Trouble { namespace, pod, reason: code, message } = trouble;
    if !is_object_name(&namespace) || !is_object_name(&pod) {
        return None;
    }
    let mut text: String = message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST_MESSAGE)
        .collect();
    text.truncate(text.floor_char_boundary(LONGEST_MESSAGE));
    Some((Key { namespace, pod, reason: reason(code)? }, text))
}

#[tonic::async_trait]
impl Troubles for Telling {
    async fn tell(&self, request: Request<TellRequest>) -> Result<Response<TellResponse>, Status> {
        let caller = Caller::of(&request)?;
        let told = request.into_inner().troubles;
        if told.len() > MOST {
            return Err(Status::invalid_argument(format!("more than {MOST} troubles")));
        }
        let troubles = told.into_iter().filter_map(parsed).collect();
        let mut events = 0;
        for (key, message) in self.due(&caller.node, troubles) {
            match self.tell(&caller.node, &key, &message).await {
                Ok(is_here) => events += u32::from(is_here),
                // A namespace may have no room for events. That is no reason to be silent about others.
                Err(error) => {
                    let Key { namespace, pod, .. } = &key;
                    tracing::warn!(node = %caller.node, namespace, pod, %error, "no event can be made of what is wrong with a pod");
                    self.untold(&caller.node, &key);
                }
            }
        }
        Ok(Response::new(TellResponse { events }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(namespace: &str, pod: &str, reason: Reason) -> Trouble {
        let message = "why".to_owned();
        Trouble { namespace: namespace.into(), pod: pod.into(), reason: reason.into(), message }
    }

    fn keys(due: &[(Key, String)]) -> Vec<&str> {
        due.iter().map(|(key, _)| key.pod.as_str()).collect()
    }

    fn troubles(pods: &[&str]) -> Vec<(Key, String)> {
        pods.iter().filter_map(|pod| parsed(trouble("shop", pod, Reason::Protection))).collect()
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        for (namespace, pod) in [
            ("", "a"),
            ("shop", ""),
            ("shop", "a/b"),
            ("shop", ".."),
            ("Shop", "a"),
            ("shop", "a?b"),
        ] {
            assert_eq!(
                parsed(trouble(namespace, pod, Reason::Degraded)),
                None,
                "{namespace}/{pod}"
            );
        }
        assert_eq!(parsed(trouble("shop", "a", Reason::Unspecified)), None);
        assert_eq!(parsed(Trouble { reason: 99, ..trouble("shop", "a", Reason::Degraded) }), None);
        let long =
            Trouble { message: "ä\n".repeat(5000), ..trouble("shop", "a", Reason::Degraded) };
        let (_, message) = parsed(long).unwrap();
        assert!(message.len() <= LONGEST_MESSAGE && !message.contains('\n'));
    }

    #[test]
    fn a_trouble_is_told_once_and_again_when_it_lasts_or_comes_back() {
        let mut heard = Heard::default();
        let start = Instant::now();
        assert_eq!(keys(&heard.due(troubles(&["a", "b"]), start)), ["a", "b"]);
        let later = start + Duration::from_secs(10);
        assert_eq!(keys(&heard.due(troubles(&["a", "b", "c"]), later)), ["c"]);
        assert_eq!(keys(&heard.due(troubles(&["a"]), later)), [""; 0]);
        assert_eq!(keys(&heard.due(troubles(&["a", "b"]), later)), ["b"], "it had gone");
        assert_eq!(keys(&heard.due(troubles(&["a", "b"]), start + AGAIN)), ["a"]);
    }

    #[test]
    fn a_node_causes_so_many_events_and_no_more() {
        let mut heard = Heard::default();
        let start = Instant::now();
        let names: Vec<_> = (0..400).map(|number| format!("pod-{number}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let mut told = 0;
        for second in 0..60 {
            told += heard.due(troubles(&names), start + Duration::from_secs(second)).len();
        }
        assert_eq!(told, MOST_EVENTS as usize);
        // The others have their turn.
        assert_eq!(heard.due(troubles(&names), start + INTERVAL).len(), MOST_EVENTS as usize);
    }
}
