//! What is wrong with pods of this node, told to the controller, which tells people where they look: at the pods.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use crate::admin::{AgentInfo, Status};
use crate::capture::{Protection, SupervisorRequest};
use crate::controller_api::Link;
use crate::controller_api::troubles::{Reason, TellRequest, Trouble, TroublesClient};
use crate::flow::Direction;
use crate::telemetry::{RefusedConnections, RefusedKind};

/// How often it is looked for troubles. One counts if it is seen twice: much is wrong with a pod for a moment.
const LOOK: Duration = Duration::from_secs(10);
/// How often lasting ones are told again.
const AGAIN: Duration = Duration::from_secs(5 * 60);
/// How many of the last refused connections are told, one for each kind.
const EXAMPLES: usize = 3;
/// For how long a refused connection is one.
const RECENT: Duration = Duration::from_secs(60);
/// As many as the controller listens to.
const MOST: usize = 500;

/// Pod and reason, with what to say.
type Troubles = BTreeMap<(Subject, Reason), String>;

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Named {
        namespace: String,
        pod: String,
    },
    /// Nobody here knows its name.
    Uid(String),
}

/// Tells what lasts for longer than a moment. Ends with the supervisor.
pub async fn tell_troubles(
    link: Arc<Link>,
    info: Arc<AgentInfo>,
    supervisor: mpsc::WeakSender<SupervisorRequest>,
) {
    let (mut seen, mut told) = (Troubles::new(), Troubles::new());
    let mut told_at = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let view = SupervisorRequest::ask(&supervisor, SupervisorRequest::Status).await;
        let Some(view) = view else {
            return;
        };
        let now = troubles(&info.status(view));
        let lasting: Troubles = now
            .iter()
            .filter(|(key, _)| seen.contains_key(key))
            .map(|(key, text)| (key.clone(), text.clone()))
            .collect();
        seen = now;
        let is_news = !lasting.keys().eq(told.keys());
        if !is_news && (lasting.is_empty() || told_at.elapsed() < AGAIN) {
            continue;
        }
        let request = request(&lasting);
        let telling = link.call(|carrier| {
            let request = request.clone();
            async move { TroublesClient::new(carrier).tell(request).await }
        });
        match telling.await {
            Ok(_) => (told, told_at) = (lasting, Instant::now()),
            // It is tried again with the next look. What is wrong with the controller is told by others.
            Err(error) => tracing::debug!(%error, "nobody is told what is wrong with pods"),
        }
    }
}

fn request(troubles: &Troubles) -> TellRequest {
    let trouble = |((subject, reason), message): (&(Subject, Reason), &String)| {
        let (namespace, pod, pod_uid) = match subject.clone() {
            Subject::Named { namespace, pod } => (namespace, pod, String::new()),
            Subject::Uid(uid) => (String::new(), String::new(), uid),
        };
        let (reason, message) = ((*reason).into(), message.clone());
        Trouble { namespace, pod, reason, message, pod_uid }
    };
    TellRequest { troubles: troubles.iter().take(MOST).map(trouble).collect() }
}

/// What a status says of pods. They are told from other workloads by their names, `<namespace>/<name>`; the controller knows which
/// there are.
fn troubles(status: &Status) -> Troubles {
    let mut found = Troubles::new();
    let mut add = |name: &str, reason: Reason, text: String| {
        if let Some((namespace, pod)) = name.split_once('/') {
            let (namespace, pod) = (namespace.to_owned(), pod.to_owned());
            found.insert((Subject::Named { namespace, pod }, reason), text);
        }
    };
    for problem in status.problems.iter().filter(|problem| problem.discovery == "kubernetes") {
        add(&problem.subject, Reason::Protection, problem.problem.clone());
    }
    for workload in &status.workloads {
        let name = &workload.capture.name;
        let without_identity = !workload.identity.problem.is_empty();
        if without_identity {
            add(name, Reason::NoIdentity, workload.identity.problem.clone());
        }
        if workload.capture.state == Protection::Degraded && !without_identity {
            add(name, Reason::Degraded, workload.capture.reason.clone());
        }
        if let Some(refused) = &workload.capture.refused {
            for (direction, reason) in [
                (Direction::Outbound, Reason::ConnectionsRefused),
                (Direction::Inbound, Reason::CallersRefused),
            ] {
                if let Some(text) = recently_refused(refused, direction) {
                    add(name, reason, text);
                }
            }
        }
    }
    for held in status.pods.iter().flat_map(|pods| &pods.held) {
        let text = format!(
            "held since {}: {}. Its connections are refused in both directions until somebody has",
            held.since, held.reason
        );
        found.insert((Subject::Uid(held.uid.clone()), Reason::Held), text);
    }
    found
}

/// What to say of the connections in one direction, if some were refused a short while ago.
fn recently_refused(refused: &RefusedConnections, direction: Direction) -> Option<String> {
    let is_recent = |at: SystemTime| at.elapsed().is_ok_and(|since| since < RECENT);
    let mut kinds = refused.kinds.iter().filter(|kind| kind.direction == direction.name());
    let count: u64 = kinds.clone().map(|kind| kind.count).sum();
    // The last one comes first.
    let last = kinds.next().filter(|kind| is_recent(kind.at))?;
    let one = |kind: &RefusedKind| match kind.source {
        Some(source) if direction == Direction::Inbound => {
            format!("from {} to {}: {}", source.ip(), kind.destination, kind.reason)
        }
        _ => format!("to {}: {}", kind.destination, kind.reason),
    };
    let what = match direction {
        Direction::Outbound => "connections are refused",
        Direction::Inbound => "callers are refused",
    };
    let mut text = format!("{what}, {count} so far, the last {}", one(last));
    for other in kinds.filter(|kind| is_recent(kind.at)).take(EXAMPLES - 1) {
        text.push_str("; another ");
        text.push_str(&one(other));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::telemetry::{Refusals, RefusedBy, RefusedConnection};

    #[test]
    fn what_was_refused_is_told_by_its_direction_and_once_for_each_kind() {
        let refusals = Refusals::default();
        let peer = |port: u16| SocketAddr::from(([10, 0, 0, 9], port));
        let refused = |direction, by, port, reason| {
            let (source, destination) = (Some(peer(1)), peer(port));
            let refused = RefusedConnection { direction, by, source, destination, reason };
            refusals.note(7, &refused);
        };
        assert_eq!(refusals.of(7), None);
        refused(Direction::Outbound, RefusedBy::Policy, 80, "nobody is known there");
        refused(Direction::Outbound, RefusedBy::Peer, 81, "somebody else answers");
        refused(Direction::Outbound, RefusedBy::Peer, 82, "somebody else answers");
        let seen = refusals.of(7).unwrap();
        assert_eq!(recently_refused(&seen, Direction::Inbound), None);
        refused(Direction::Inbound, RefusedBy::Guard, 83, "only the agent answers there");
        let seen = refusals.of(7).unwrap();
        assert_eq!(
            recently_refused(&seen, Direction::Outbound).unwrap(),
            "connections are refused, 3 so far, the last to 10.0.0.9:82: somebody else answers; another to \
             10.0.0.9:80: nobody is known there"
        );
        assert_eq!(
            recently_refused(&seen, Direction::Inbound).unwrap(),
            "callers are refused, 1 so far, the last from 10.0.0.9 to 10.0.0.9:83: only the agent answers there"
        );
    }
}
