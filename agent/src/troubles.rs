//! What is wrong with pods of this node, told to the controller, which tells people where they look: at the pods.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sheath_common::workload::WorkloadId;
use tokio::sync::mpsc;

use crate::admin::AgentInfo;
use crate::capture::{ConditionsView, Protection, SupervisorRequest};
use crate::control::ProblemView;
use crate::controller_api::Link;
use crate::controller_api::troubles::{Reason, TellRequest, Trouble, TroublesClient};
use crate::flow::Direction;
use crate::telemetry::{RefusedConnections, RefusedKind};

/// How often it is looked for troubles. One counts if it is seen twice: much is wrong with a pod for a moment.
const LOOK: Duration = Duration::from_secs(10);
/// How often lasting ones are told again, and how often at most because of other examples.
const AGAIN: Duration = Duration::from_secs(5 * 60);
const SOME_TIME: Duration = Duration::from_secs(30);
/// How many of the last refused connections are told, one for each kind.
const EXAMPLES: usize = 3;
/// For how long a refused connection is one.
const RECENT: Duration = Duration::from_secs(60);
/// As many as the controller listens to.
const MOST: usize = 500;

/// Pod and reason, with what to say.
type Troubles = BTreeMap<(Subject, Reason), Said>;

/// What to say of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    text: String,
    /// What of it is news: counts are not.
    gist: String,
}

impl From<String> for Said {
    fn from(text: String) -> Self {
        Self { gist: text.clone(), text }
    }
}

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
        let view = SupervisorRequest::ask(&supervisor, SupervisorRequest::Conditions).await;
        let Some(view) = view else {
            return;
        };
        let now = troubles(&view, &info.found.load().problems, |id| info.identity_problem(id));
        let lasting: Troubles = now
            .iter()
            .filter(|(key, _)| seen.contains_key(key))
            .map(|(key, text)| (key.clone(), text.clone()))
            .collect();
        seen = now;
        if !is_due(&lasting, &told, told_at.elapsed()) {
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

/// Whether troubles are to be told, when others were told that long ago.
fn is_due(lasting: &Troubles, told: &Troubles, since: Duration) -> bool {
    let gists = |troubles: &Troubles| -> Vec<String> {
        troubles.values().map(|said| said.gist.clone()).collect()
    };
    if !lasting.keys().eq(told.keys()) {
        return true;
    }
    let has_other_examples = since >= SOME_TIME && gists(lasting) != gists(told);
    has_other_examples || (!lasting.is_empty() && since >= AGAIN)
}

fn request(troubles: &Troubles) -> TellRequest {
    let trouble = |((subject, reason), said): (&(Subject, Reason), &Said)| {
        let (namespace, pod, pod_uid) = match subject.clone() {
            Subject::Named { namespace, pod } => (namespace, pod, String::new()),
            Subject::Uid(uid) => (String::new(), String::new(), uid),
        };
        let (reason, message) = ((*reason).into(), said.text.clone());
        Trouble { namespace, pod, reason, message, pod_uid }
    };
    TellRequest { troubles: troubles.iter().take(MOST).map(trouble).collect() }
}

/// What is wrong with pods. They are told from other workloads by their names, `<namespace>/<name>`; the controller knows which
/// there are.
fn troubles(
    view: &ConditionsView,
    problems: &[ProblemView],
    identity_problem: impl Fn(WorkloadId) -> String,
) -> Troubles {
    let mut found = Troubles::new();
    let mut add = |name: &str, reason: Reason, said: Said| {
        if let Some((namespace, pod)) = name.split_once('/') {
            let (namespace, pod) = (namespace.to_owned(), pod.to_owned());
            found.insert((Subject::Named { namespace, pod }, reason), said);
        }
    };
    for problem in problems.iter().filter(|problem| problem.discovery == "kubernetes") {
        add(&problem.subject, Reason::Protection, problem.problem.clone().into());
    }
    for workload in &view.workloads {
        let name = &workload.name;
        let of_identity = identity_problem(workload.id);
        if !of_identity.is_empty() {
            add(name, Reason::NoIdentity, of_identity.into());
        } else if workload.state == Protection::Degraded {
            add(name, Reason::Degraded, workload.reason.clone().into());
        }
        if let Some(refused) = &workload.refused {
            for (direction, reason) in [
                (Direction::Outbound, Reason::ConnectionsRefused),
                (Direction::Inbound, Reason::CallersRefused),
            ] {
                if let Some(said) = recently_refused(refused, direction) {
                    add(name, reason, said);
                }
            }
        }
    }
    for held in view.pods.iter().flat_map(|pods| &pods.held) {
        let text = format!(
            "held since {}: {}. Its connections are refused in both directions until somebody has",
            held.since, held.reason
        );
        found.insert((Subject::Uid(held.uid.clone()), Reason::Held), text.into());
    }
    found
}

/// What to say of the connections in one direction, if some were refused a short while ago.
fn recently_refused(refused: &RefusedConnections, direction: Direction) -> Option<Said> {
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
    let mut examples = one(last);
    let mut kinds_of_them = vec![examples.clone()];
    for other in kinds.filter(|kind| is_recent(kind.at)).take(EXAMPLES - 1) {
        let other = one(other);
        examples = format!("{examples}; another {other}");
        kinds_of_them.push(other);
    }
    // Which of them was the last is no news.
    kinds_of_them.sort_unstable();
    let text = format!("{what}, {count} so far, the last {examples}");
    Some(Said { text, gist: kinds_of_them.join("; ") })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::telemetry::{Refusals, RefusedBy, RefusedConnection};

    #[test]
    fn what_is_new_is_told_at_once_other_examples_soon_and_counts_later() {
        let troubles = |reason, text: &str, gist: &str| {
            let said = Said { text: text.to_owned(), gist: gist.to_owned() };
            Troubles::from([((Subject::Uid("one".to_owned()), reason), said)])
        };
        let told = troubles(Reason::ConnectionsRefused, "2 so far, to a", "to a");
        let same = troubles(Reason::ConnectionsRefused, "3 so far, to a", "to a");
        let other = troubles(Reason::ConnectionsRefused, "3 so far, to b", "to b");
        let new = troubles(Reason::Held, "held", "held");
        let begun = Duration::ZERO;
        for (lasting, since, expected) in [
            (&new, begun, true),
            (&Troubles::new(), begun, true),
            (&other, begun, false),
            (&other, SOME_TIME, true),
            (&same, SOME_TIME, false),
            (&same, AGAIN, true),
        ] {
            assert_eq!(is_due(lasting, &told, since), expected, "{lasting:?} {since:?}");
        }
        assert!(!is_due(&Troubles::new(), &Troubles::new(), AGAIN));
    }

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
            recently_refused(&seen, Direction::Outbound).unwrap().text,
            "connections are refused, 3 so far, the last to 10.0.0.9:82: somebody else answers; another to \
             10.0.0.9:80: nobody is known there"
        );
        assert_eq!(
            recently_refused(&seen, Direction::Inbound).unwrap().text,
            "callers are refused, 1 so far, the last from 10.0.0.9 to 10.0.0.9:83: only the agent answers there"
        );
    }
}
