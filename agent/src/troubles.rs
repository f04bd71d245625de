//! What is wrong with pods of this node, told to the controller, which tells people where they look: at the pods.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::admin::{AgentInfo, Status};
use crate::capture::{Protection, SupervisorRequest};
use crate::controller_api::Link;
use crate::controller_api::troubles::{Reason, TellRequest, Trouble, TroublesClient};

/// How often it is looked for troubles. One counts if it is seen twice: much is wrong with a pod for a moment.
const LOOK: Duration = Duration::from_secs(10);
/// How often lasting ones are told again.
const AGAIN: Duration = Duration::from_secs(5 * 60);
/// For how long a refused connection is one.
const RECENT: Duration = Duration::from_secs(60);
/// As many as the controller listens to.
const MOST: usize = 500;

/// Namespace, pod and reason, with what to say.
type Troubles = BTreeMap<(String, String, Reason), String>;

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
    let trouble =
        |((namespace, pod, reason), message): (&(String, String, Reason), &String)| Trouble {
            namespace: namespace.clone(),
            pod: pod.clone(),
            reason: (*reason).into(),
            message: message.clone(),
        };
    TellRequest { troubles: troubles.iter().take(MOST).map(trouble).collect() }
}

/// What a status says of pods. They are told from other workloads by their names, `<namespace>/<name>`; the controller knows which
/// there are.
fn troubles(status: &Status) -> Troubles {
    let mut found = Troubles::new();
    let mut add = |name: &str, reason: Reason, text: String| {
        if let Some((namespace, pod)) = name.split_once('/') {
            found.insert((namespace.to_owned(), pod.to_owned(), reason), text);
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
        if let Some(refused) = &workload.capture.refused
            && refused.at.elapsed().is_ok_and(|since| since < RECENT)
        {
            let text = format!(
                "connections are refused, {} so far, the last to {}: {}",
                refused.count, refused.destination, refused.reason
            );
            add(name, Reason::ConnectionsRefused, text);
        }
    }
    found
}
