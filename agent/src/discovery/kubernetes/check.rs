//! For `sheath check`: whether the API server lists what the discovery watches.

use std::time::Duration;

use k8s_openapi::api::core::v1 as api;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Api, Client};

use super::Kubernetes;
use crate::follow::Check;
use crate::kubernetes::WatchProblem;

/// How long the API server may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

pub fn check(settings: &Kubernetes) -> Vec<Check> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return vec![bad(error.to_string(), "try again")],
    };
    runtime.block_on(async {
        let mut checks = match tokio::time::timeout(LIMIT, ask(settings)).await {
            Ok(checks) => checks,
            Err(_) => {
                let seconds = LIMIT.as_secs();
                vec![doubtful(format!("the API server does not answer within {seconds} s"))]
            }
        };
        checks.extend(settings.identities.check().await);
        checks
    })
}

async fn ask(settings: &Kubernetes) -> Vec<Check> {
    let client = match settings.access.connect().await {
        Ok(connection) => connection.client,
        Err(error) => return vec![bad(error.to_string(), "see kubernetes in the configuration")],
    };
    vec![pods(settings, client.clone()).await, namespaces(client).await]
}

async fn pods(settings: &Kubernetes, client: Client) -> Check {
    let own = ListParams::default().fields(&settings.selector()).limit(1);
    match Api::<api::Pod>::all(client).list(&own).await {
        // Not even the agent's own pod would be a sign of a wrong name, as it may run outside of one.
        Ok(pods) if pods.items.is_empty() => Check::Doubtful {
            found: format!("the API server lists no pod of the node `{}`", settings.node),
            advice: "nothing to do if there is none; kubernetes.node must be the name that `kubectl get nodes` shows".to_owned(),
        },
        Ok(_) => Check::Good {
            found: format!("the API server lists the pods of the node `{}`", settings.node),
        },
        Err(error) => refused("pods", &error),
    }
}

async fn namespaces(client: Client) -> Check {
    let all = Api::<PartialObjectMeta<api::Namespace>>::all(client);
    match all.list(&ListParams::default().limit(1)).await {
        Ok(_) => Check::Good { found: "the API server lists namespaces".to_owned() },
        Err(error) => refused("namespaces", &error),
    }
}

fn refused(what: &str, error: &kube::Error) -> Check {
    let problem = WatchProblem::of_request(error);
    let found = format!("{what} cannot be listed: {problem}");
    match problem {
        WatchProblem::Unreachable(_) => doubtful(found),
        _ => bad(found, "the agent would hold every new pod of this node"),
    }
}

fn doubtful(found: String) -> Check {
    let advice = "pods that an agent knew before stay protected; new ones wait until it answers";
    Check::Doubtful { found, advice: advice.to_owned() }
}

fn bad(found: String, advice: &str) -> Check {
    Check::Bad { found, advice: advice.to_owned() }
}
