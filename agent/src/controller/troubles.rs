//! What is wrong with pods, as events of the API: whoever looks at a pod with `kubectl describe` sees them.
//!
//! An agent speaks of pods of its own node alone, in so many words and so often.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use sheath_common::pod_uid::PodUid;
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
/// Pods that a node may have.
const MOST_OF_A_NODE: u32 = 2000;
/// How long the API server may take for one of them.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who says it, in the events.
const REPORTER: &str = "sheath.dev/agent";

/// What a trouble is known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    pod: Subject,
    reason: &'static str,
}

/// A pod, as an agent speaks of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Named {
        namespace: String,
        name: String,
    },
    /// One whose cgroup it has seen, and nothing else.
    Uid(PodUid),
}

impl Subject {
    fn is(&self, pod: &ObjectMeta) -> bool {
        match self {
            Self::Named { namespace, name } => {
                pod.namespace.as_ref() == Some(namespace) && pod.name.as_ref() == Some(name)
            }
            Self::Uid(uid) => {
                let of_pod = pod.uid.as_deref().and_then(|text| text.parse::<PodUid>().ok());
                of_pod.as_ref() == Some(uid)
            }
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named { namespace, name } => write!(f, "{namespace}/{name}"),
            Self::Uid(uid) => write!(f, "with the uid {uid}"),
        }
    }
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

    /// The pods of a node, by what they are called.
    async fn pods(&self, node: &str) -> Result<Vec<ObjectMeta>, WatchProblem> {
        let all = Api::<Pod>::all(self.client.clone());
        let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let listed = in_time(all.list_metadata(&on_node.limit(MOST_OF_A_NODE))).await?;
        Ok(listed.items.into_iter().map(|pod| pod.metadata).collect())
    }

    /// Makes an event of a pod.
    async fn tell(
        &self,
        node: &str,
        pod: &ObjectMeta,
        reason: &str,
        message: &str,
    ) -> Result<(), WatchProblem> {
        let namespace = pod.namespace.clone().unwrap_or_default();
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let event = event(node, pod, reason, message);
        in_time(events.create(&PostParams::default(), &event)).await?;
        self.counters.events.increment();
        Ok(())
    }
}

async fn in_time<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, WatchProblem> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(answer) => answer.map_err(|error| WatchProblem::of_request(&error)),
        Err(_) => Err(WatchProblem::Unreachable("no answer in time".to_owned())),
    }
}

/// As `events.k8s.io/v1` wants it.
fn event(node: &str, pod: &ObjectMeta, reason: &str, message: &str) -> Event {
    Event {
        action: Some("Protect".to_owned()),
        event_time: Some(MicroTime(Timestamp::now())),
        metadata: ObjectMeta {
            generate_name: Some("sheath-".to_owned()),
            namespace: pod.namespace.clone(),
            ..ObjectMeta::default()
        },
        note: Some(message.to_owned()),
        reason: Some(reason.to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: pod.name.clone(),
            namespace: pod.namespace.clone(),
            uid: pod.uid.clone(),
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
        Reason::CallersRefused => Some("CallersRefused"),
        Reason::Held => Some("PodHeld"),
    }
}

/// A trouble that makes sense. Names become part of a request's path.
fn parsed(trouble: Trouble) -> Option<(Key, String)> {
    let Trouble { namespace, pod: name, reason: code, message, pod_uid } = trouble;
    let pod = match (namespace.is_empty() && name.is_empty(), pod_uid.is_empty()) {
        (true, false) => Subject::Uid(pod_uid.parse().ok()?),
        (false, true) if is_object_name(&namespace) && is_object_name(&name) => {
            Subject::Named { namespace, name }
        }
        _ => return None,
    };
    let mut text: String = message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST_MESSAGE)
        .collect();
    text.truncate(text.floor_char_boundary(LONGEST_MESSAGE));
    Some((Key { pod, reason: reason(code)? }, text))
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
        let due = self.due(&caller.node, troubles);
        if due.is_empty() {
            return Ok(Response::new(TellResponse { events: 0 }));
        }
        let pods = self.pods(&caller.node).await;
        let mut events = 0;
        for (key, message) in due {
            // An agent speaks of pods of its own node, or of nobody.
            let told = match &pods {
                Ok(pods) => match pods.iter().find(|pod| key.pod.is(pod)) {
                    Some(pod) => self.tell(&caller.node, pod, key.reason, &message).await,
                    None => continue,
                },
                Err(error) => Err(error.clone()),
            };
            match told {
                Ok(()) => events += 1,
                // A namespace may have no room for events. That is no reason to be silent about others.
                Err(error) => {
                    tracing::warn!(node = %caller.node, pod = %key.pod, %error, "no event can be made of what is wrong with a pod");
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
        let (namespace, pod, message) = (namespace.into(), pod.into(), "why".to_owned());
        Trouble { namespace, pod, reason: reason.into(), message, pod_uid: String::new() }
    }

    fn keys(due: &[(Key, String)]) -> Vec<String> {
        due.iter().map(|(key, _)| key.pod.to_string()).collect()
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
        // By its uid alone, and by one that makes sense.
        let by_uid = |pod: &str, uid: &str| Trouble {
            pod_uid: uid.to_owned(),
            ..trouble(pod, pod, Reason::Held)
        };
        let uid = "00000000-0000-4000-8000-000000000001";
        let known = parsed(by_uid("", uid)).map(|(key, _)| (key.pod, key.reason));
        assert_eq!(known, Some((Subject::Uid(uid.parse().unwrap()), "PodHeld")));
        for senseless in [by_uid("a", uid), by_uid("", "a"), by_uid("", "")] {
            assert_eq!(parsed(senseless), None);
        }
        let long =
            Trouble { message: "ä\n".repeat(5000), ..trouble("shop", "a", Reason::Degraded) };
        let (_, message) = parsed(long).unwrap();
        assert!(message.len() <= LONGEST_MESSAGE && !message.contains('\n'));
    }

    #[test]
    fn a_trouble_is_told_once_and_again_when_it_lasts_or_comes_back() {
        let mut heard = Heard::default();
        let start = Instant::now();
        assert_eq!(keys(&heard.due(troubles(&["a", "b"]), start)), ["shop/a", "shop/b"]);
        let later = start + Duration::from_secs(10);
        assert_eq!(keys(&heard.due(troubles(&["a", "b", "c"]), later)), ["shop/c"]);
        assert_eq!(keys(&heard.due(troubles(&["a"]), later)), [""; 0]);
        assert_eq!(keys(&heard.due(troubles(&["a", "b"]), later)), ["shop/b"], "it had gone");
        assert_eq!(keys(&heard.due(troubles(&["a", "b"]), start + AGAIN)), ["shop/a"]);
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
