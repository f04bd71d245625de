//! Whose a token is: the API server is asked (TokenReview), and its answer is remembered for a moment.
//!
//! An agent shows a token that the kubelet has made for it: of the agents' service account, for the audience
//! `sheath-controller`, bound to the agent's pod. For such a token the API server says on which node that pod is (KEP-4193).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::Semaphore;

use super::Caller;
use super::counters::Counters;
use super::rates::{Rate, Rates};
use crate::controller_api::AUDIENCE;
use crate::kubernetes::WatchProblem;
use crate::x509::Fingerprint;

/// In a token's user, by the API server itself (k/k `staging/src/k8s.io/apiserver/pkg/authentication/serviceaccount/util.go`).
const NODE: &str = "authentication.kubernetes.io/node-name";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// How long an answer is good: a pod that is gone has its token as much longer.
const FRESH: Duration = Duration::from_secs(20);
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions at a time about tokens that were an agent's before, and about others: whoever shows rubbish must keep neither the API
/// server busy nor agents waiting.
const MOST_OF_AGENTS: usize = 16;
const MOST_OF_STRANGERS: usize = 8;
/// Tokens that are asked about for one address, apart from those that were an agent's before.
const RATE: Rate = Rate { burst: 20.0, per_second: 1.0 };
/// Addresses that may have shown some of late.
const MOST_ADDRESSES: usize = 20_000;
/// Answers that are remembered.
const MOST_KNOWN: usize = 16_384;
/// How long it is remembered that a token was an agent's: the kubelet makes another within an hour.
const AGENTS: Duration = Duration::from_secs(2 * 60 * 60);
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
        "the token does not say {0}; it must be a projected token, bound to the agent's pod, of Kubernetes 1.32 or newer"
    )]
    Unbound(&'static str),
    #[error("whose the token is cannot be asked: {0}")]
    Unanswered(#[from] WatchProblem),
    #[error("too many tokens are asked about at present; try again")]
    Busy,
    #[error("too many tokens come from this address; try again later")]
    TooOften,
}

/// Knows whose tokens are.
pub struct Tokens {
    reviews: Api<TokenReview>,
    /// `system:serviceaccount:<namespace>:<name>`.
    account: String,
    known: Mutex<HashMap<Fingerprint, Known>>,
    agents: Mutex<Agents>,
    of_agents: Semaphore,
    of_strangers: Semaphore,
    rates: Rates<IpAddr>,
    counters: Arc<Counters>,
}

struct Known {
    until: Instant,
    caller: Result<Caller, TokenError>,
}

/// Tokens that were an agent's when they were last asked about, and until when that is remembered.
#[derive(Debug, Default)]
struct Agents(HashMap<Fingerprint, Instant>);

impl Agents {
    fn has(&self, token: Fingerprint, now: Instant) -> bool {
        self.0.get(&token).is_some_and(|until| now < *until)
    }

    fn set(&mut self, token: Fingerprint, is_agents: bool, now: Instant) {
        if !is_agents {
            self.0.remove(&token);
            return;
        }
        if self.0.len() >= MOST_KNOWN && !self.0.contains_key(&token) {
            self.0.retain(|_, until| now < *until);
            if self.0.len() >= MOST_KNOWN {
                self.0.clear();
            }
        }
        self.0.insert(token, now + AGENTS);
    }
}

impl Tokens {
    /// `account` is the service account of agents, `<namespace>/<name>`.
    #[must_use]
    pub fn new(client: Client, account: &str, counters: Arc<Counters>) -> Self {
        Self {
            reviews: Api::all(client),
            account: format!("system:serviceaccount:{}", account.replace('/', ":")),
            known: Mutex::default(),
            agents: Mutex::default(),
            of_agents: Semaphore::new(MOST_OF_AGENTS),
            of_strangers: Semaphore::new(MOST_OF_STRANGERS),
            rates: Rates::new(RATE, MOST_ADDRESSES),
            counters,
        }
    }

    /// The agent that has this token, which came from an address.
    ///
    /// # Errors
    /// If it is no agent's, or the API server does not say.
    pub async fn caller(&self, token: &str, from: IpAddr) -> Result<Caller, TokenError> {
        if token.len() > LONGEST {
            return Err(TokenError::TooLong);
        }
        let key = Fingerprint::of(token.as_bytes());
        if let Some(known) = self.known(key) {
            return known;
        }
        // Strangers wait for one another, and agents for none of them.
        let turns = match self.agents().has(key, Instant::now()) {
            true => &self.of_agents,
            false if self.rates.take(&from) => &self.of_strangers,
            false => return Err(TokenError::TooOften),
        };
        let turn = tokio::time::timeout(PATIENCE, turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(TokenError::Busy);
        };
        // Another call may have asked meanwhile.
        if let Some(known) = self.known(key) {
            return known;
        }
        self.counters.reviews.increment();
        let status = self.ask(token).await?;
        let caller = judge(&status, &self.account);
        self.agents().set(key, caller.is_ok(), Instant::now());
        self.remember(key, caller.clone());
        caller
    }

    fn agents(&self) -> MutexGuard<'_, Agents> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
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
    let said = |key: &str, what| match extra.and_then(|extra| extra.get(key)).map(Vec::as_slice) {
        Some([value]) if !value.is_empty() => Ok(value.as_str()),
        _ => Err(TokenError::Unbound(what)),
    };
    let node = Arc::from(said(NODE, "on which node its pod is")?);
    said(POD_NAME, "of which pod it is")?;
    let uid = said(POD_UID, "of which pod it is, by its uid")?.parse();
    let pod = uid.map_err(|_| TokenError::Unbound("of which pod it is, by a uid"))?;
    Ok(Caller { node, pod })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const UID: &str = "11111111-2222-4333-8444-555555555555";
    const ACCOUNT: &str = "system:serviceaccount:sheath-system:sheath-agent";

    fn judged(change: impl FnOnce(&mut Value)) -> Result<Caller, TokenError> {
        let mut status = json!({
            "authenticated": true,
            "audiences": [AUDIENCE],
            "user": {
                "username": ACCOUNT,
                "extra": {NODE: ["node-a"], POD_NAME: ["sheath-1"], POD_UID: [UID]},
            },
        });
        change(&mut status);
        judge(&serde_json::from_value(status).unwrap(), ACCOUNT)
    }

    #[test]
    fn an_agents_token_tells_its_node_and_its_pod() {
        let pod = UID.parse().unwrap();
        assert_eq!(judged(|_| {}), Ok(Caller { node: "node-a".into(), pod }));
    }

    #[test]
    fn what_is_no_agents_token_is_refused_with_the_reason() {
        type Spoil = fn(&mut Value);
        let cases: [(Spoil, &str); 14] = [
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
            (|status| status["user"]["extra"][POD_NAME] = json!([]), "does not say of which pod"),
            (
                |status| status["user"]["extra"][POD_UID] = json!([]),
                "of which pod it is, by its uid",
            ),
            (|status| status["user"]["extra"][POD_UID] = json!(["../x"]), "by a uid"),
            (|status| status["user"]["extra"][POD_UID] = json!([UID, UID]), "by its uid"),
        ];
        for (spoil, words) in cases {
            let error = judged(spoil).unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
    }

    #[test]
    fn so_many_tokens_of_agents_are_remembered_and_no_longer_than_they_are_good() {
        let (mut agents, now) = (Agents::default(), Instant::now());
        let token = |number: usize| Fingerprint::of(&number.to_be_bytes());
        agents.set(token(0), true, now);
        assert!(agents.has(token(0), now) && !agents.has(token(1), now));
        assert!(!agents.has(token(0), now + AGENTS));
        agents.set(token(0), false, now);
        assert!(!agents.has(token(0), now), "it was withdrawn");
        (0..3 * MOST_KNOWN).for_each(|number| agents.set(token(number), true, now));
        assert!(agents.0.len() <= MOST_KNOWN && agents.has(token(3 * MOST_KNOWN - 1), now));
    }
}
