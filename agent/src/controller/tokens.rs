//! Whose a token is: the API server is asked (TokenReview), and its answer is remembered for a moment.
//!
//! An agent shows a token that the kubelet has made for it: of the agents' service account, for the audience
//! `sheath-controller`, bound to the agent's pod. For such a token the API server says on which node that pod is (KEP-4193).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::Semaphore;

use super::Caller;
use crate::controller_api::AUDIENCE;
use crate::kubernetes::WatchProblem;
use crate::x509::Fingerprint;

/// In a token's user, by the API server itself (k/k `pkg/serviceaccount`).
const NODE: &str = "authentication.kubernetes.io/node-name";

/// How long an answer is good: a pod that is gone has its token as much longer.
const FRESH: Duration = Duration::from_secs(20);
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions at a time: whoever shows rubbish must not keep the API server busy.
const MOST_AT_ONCE: usize = 16;
/// Answers that are remembered.
const MOST_KNOWN: usize = 16_384;
/// Bytes of the longest token that anybody is asked about.
const LONGEST: usize = 16 << 10;

/// Why a caller is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("there is no token; send `authorization: Bearer <token>`")]
    None,
    #[error("the token is longer than any")]
    TooLong,
    #[error(
        "the API server does not accept the token ({0}): it has expired, is of another cluster, or is not for the audience {AUDIENCE}"
    )]
    Refused(String),
    #[error("the token is not for the audience {AUDIENCE}")]
    Audience,
    #[error("the token is of {found}, and agents are {expected}; see `agentServiceAccount`")]
    Account { found: String, expected: String },
    #[error(
        "the token does not say on which node its pod is; it must be a projected token, bound to the agent's pod, of Kubernetes 1.32 or newer"
    )]
    NoNode,
    #[error("whose the token is cannot be asked: {0}")]
    Unanswered(#[from] WatchProblem),
    #[error("too many tokens are asked about at present; try again")]
    Busy,
}

/// Knows whose tokens are.
pub struct Tokens {
    reviews: Api<TokenReview>,
    /// `system:serviceaccount:<namespace>:<name>`.
    account: String,
    known: Mutex<HashMap<Fingerprint, Known>>,
    turns: Semaphore,
}

struct Known {
    until: Instant,
    caller: Result<Caller, TokenError>,
}

impl Tokens {
    /// `account` is the service account of agents, `<namespace>/<name>`.
    #[must_use]
    pub fn new(client: Client, account: &str) -> Self {
        Self {
            reviews: Api::all(client),
            account: format!("system:serviceaccount:{}", account.replace('/', ":")),
            known: Mutex::default(),
            turns: Semaphore::new(MOST_AT_ONCE),
        }
    }

    /// The agent that has this token.
    ///
    /// # Errors
    /// If it is no agent's, or the API server does not say.
    pub async fn caller(&self, token: &str) -> Result<Caller, TokenError> {
        if token.len() > LONGEST {
            return Err(TokenError::TooLong);
        }
        let key = Fingerprint::of(token.as_bytes());
        if let Some(known) = self.known(key) {
            return known;
        }
        let turn = tokio::time::timeout(PATIENCE, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(TokenError::Busy);
        };
        // Another call may have asked meanwhile.
        if let Some(known) = self.known(key) {
            return known;
        }
        let status = self.ask(token).await?;
        let caller = judge(&status, &self.account);
        self.remember(key, caller.clone());
        caller
    }

    async fn ask(&self, token: &str) -> Result<TokenReviewStatus, WatchProblem> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![AUDIENCE.to_owned()]),
                token: token.to_owned(),
            },
            ..TokenReview::default()
        };
        let options = PostParams::default();
        let asking = self.reviews.create(&options, &review);
        let review = match tokio::time::timeout(PATIENCE, asking).await {
            Ok(answer) => answer.map_err(|error| WatchProblem::of_request(&error))?,
            Err(_) => return Err(WatchProblem::Unreachable("no answer in time".to_owned())),
        };
        review.status.ok_or_else(|| WatchProblem::Malformed("a review without a result".to_owned()))
    }

    fn known(&self, key: Fingerprint) -> Option<Result<Caller, TokenError>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(&key)
            .filter(|known| Instant::now() < known.until)
            .map(|known| known.caller.clone())
    }

    fn remember(&self, key: Fingerprint, caller: Result<Caller, TokenError>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_KNOWN {
            let now = Instant::now();
            known.retain(|_, known| now < known.until);
            // Strangers must not crowd out agents.
            if known.len() >= MOST_KNOWN {
                known.retain(|_, known| known.caller.is_ok());
            }
            if known.len() >= MOST_KNOWN {
                known.clear();
            }
        }
        known.insert(key, Known { until: Instant::now() + FRESH, caller });
    }
}

/// Whom a review is about.
///
/// # Errors
/// If that is no agent.
fn judge(status: &TokenReviewStatus, account: &str) -> Result<Caller, TokenError> {
    if status.authenticated != Some(true) {
        let error = status.error.as_deref().unwrap_or("no reason given");
        let error: String = error.chars().filter(|c| !c.is_control()).take(200).collect();
        return Err(TokenError::Refused(error));
    }
    // An API server that knows nothing of audiences names none, and accepts tokens for any.
    if !status.audiences.iter().flatten().any(|audience| audience == AUDIENCE) {
        return Err(TokenError::Audience);
    }
    let user = status.user.as_ref();
    let name = user.and_then(|user| user.username.as_deref()).unwrap_or_default();
    if name != account {
        let found = name.chars().filter(|c| !c.is_control()).take(200).collect();
        return Err(TokenError::Account { found, expected: account.to_owned() });
    }
    let extra = user.and_then(|user| user.extra.as_ref());
    match extra.and_then(|extra| extra.get(NODE)).map(Vec::as_slice) {
        Some([node]) if !node.is_empty() => Ok(Caller { node: Arc::from(node.as_str()) }),
        _ => Err(TokenError::NoNode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const ACCOUNT: &str = "system:serviceaccount:sheath-system:sheath-agent";

    fn judged(change: impl FnOnce(&mut Value)) -> Result<Caller, TokenError> {
        let mut status = json!({
            "authenticated": true,
            "audiences": [AUDIENCE],
            "user": {
                "username": ACCOUNT,
                "extra": {NODE: ["node-a"], "authentication.kubernetes.io/pod-name": ["sheath-1"]},
            },
        });
        change(&mut status);
        judge(&serde_json::from_value(status).unwrap(), ACCOUNT)
    }

    #[test]
    fn an_agents_token_tells_its_node() {
        assert_eq!(judged(|_| {}), Ok(Caller { node: "node-a".into() }));
    }

    #[test]
    fn what_is_no_agents_token_is_refused_with_the_reason() {
        type Spoil = fn(&mut Value);
        let cases: [(Spoil, &str); 10] = [
            (|status| status["authenticated"] = json!(false), "does not accept the token"),
            (|status| status["authenticated"] = Value::Null, "does not accept the token"),
            (|status| status["audiences"] = json!([]), "not for the audience sheath-controller"),
            (|status| status["audiences"] = Value::Null, "not for the audience"),
            (|status| status["audiences"] = json!(["https://kubernetes"]), "not for the audience"),
            (
                |status| status["user"]["username"] = json!("system:serviceaccount:shop:web"),
                "is of system:serviceaccount:shop:web",
            ),
            (|status| status["user"] = Value::Null, "agents are system:serviceaccount"),
            (|status| status["user"]["extra"] = Value::Null, "does not say on which node"),
            (|status| status["user"]["extra"][NODE] = json!([""]), "does not say on which node"),
            (|status| status["user"]["extra"][NODE] = json!(["a", "b"]), "does not say on which"),
        ];
        for (spoil, words) in cases {
            let error = judged(spoil).unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
