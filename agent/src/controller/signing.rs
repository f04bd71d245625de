//! SVIDs for pods, each only for the agent of the pod's node. Who a pod is says the API server, and nobody else.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::Stream;
use futures_util::stream::{self, StreamExt};
use sheath_common::pod_uid::PodUid;
use tokio::sync::Semaphore;
use tonic::{Code, Request, Response, Status};

use super::Caller;
use super::authority::{Authority, AuthorityError, RootList};
use super::caller::not_leading;
use super::counters::{Counters, Held, Unsigned};
use super::csr::{self, CsrError};
use super::leader::Leadership;
use super::pods::{KnownPod, Pods};
use super::presence::Presence;
use super::rates::{Rate, Rates};
use crate::controller_api::identities::{
    FollowRootsRequest, Identities, IdentitiesServer, Roots, SignRequest, SignResponse,
};
use crate::kubernetes::{Lifetime, WatchProblem};
use crate::spiffe::{SpiffeError, SpiffeId};

/// Bytes of the longest request.
const LONGEST_REQUEST: usize = 8 << 10;
/// How long behind its grace a pod still gets an identity: clocks differ.
const LENIENCE: Duration = Duration::from_secs(30);
/// SVIDs that a node may ask for: it has 500 pods at most.
const RATE: Rate = Rate { burst: 1000.0, per_second: 20.0 };
/// Nodes that may have asked of late.
const MOST_NODES: usize = 20_000;
/// Nodes that the API server is asked about at a time.
const MOST_ASKED: usize = 8;
/// How long a stream of roots lasts: then the agent's token is looked at again.
const STREAM: Duration = Duration::from_secs(30 * 60);

/// Why a pod gets no SVID.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("`{}` is no uid of a pod", .0.escape_debug())]
    Uid(String),
    #[error("there is no pod with the uid {0} on this node; it may be gone")]
    Unknown(PodUid),
    /// The same words whether it exists or not: an agent learns nothing of other nodes.
    #[error(
        "the pod {0} is the image of a static pod, which its node alone has made: it gets no identity"
    )]
    Mirror(PodUid),
    /// Sheath's own namespace is one: the controller's identity is not for pods.
    #[error("pods of the namespace {0} are never protected, and get no identity")]
    System(Arc<str>),
    #[error("the pod {0} is over")]
    Over(PodUid),
    #[error("the grace of the deleted pod {0} is over")]
    Deleted(PodUid),
    #[error("no SPIFFE ID can be made of the pod's namespace and service account: {0}")]
    Id(#[from] SpiffeError),
    #[error(transparent)]
    Csr(#[from] CsrError),
    #[error("this node asks for more than {} identities per second; it gets them later", RATE.per_second)]
    TooOften,
    #[error("whether the pod exists cannot be asked: {0}")]
    Unanswered(#[from] WatchProblem),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl SignError {
    fn code(&self) -> Code {
        match self {
            Self::Uid(_) | Self::Csr(_) => Code::InvalidArgument,
            Self::Unknown(_) => Code::NotFound,
            Self::System(_) | Self::Mirror(_) | Self::Over(_) | Self::Deleted(_) | Self::Id(_) => {
                Code::FailedPrecondition
            }
            Self::TooOften => Code::ResourceExhausted,
            Self::Unanswered(_) | Self::Authority(AuthorityError::None(_)) => Code::Unavailable,
            Self::Authority(_) => Code::Internal,
        }
    }

    /// As it is counted.
    fn kind(&self) -> Unsigned {
        match self {
            Self::Uid(_) | Self::Csr(_) => Unsigned::Request,
            Self::Unknown(_) | Self::Over(_) | Self::Deleted(_) => Unsigned::NoPod,
            Self::System(_) | Self::Mirror(_) | Self::Id(_) => Unsigned::Unsupported,
            Self::TooOften => Unsigned::TooOften,
            Self::Unanswered(_) => Unsigned::Unanswered,
            Self::Authority(_) => Unsigned::Authority,
        }
    }
}

/// The service.
pub struct Signing {
    pub authority: Arc<Authority>,
    pub pods: Arc<Pods>,
    pub presence: Arc<Presence>,
    pub leadership: Leadership,
    pub system_namespaces: BTreeSet<String>,
    pub limits: SigningLimits,
    pub counters: Arc<Counters>,
}

/// What callers may do.
pub struct SigningLimits {
    nodes: Rates<Arc<str>>,
    asking: Semaphore,
}

impl Default for SigningLimits {
    fn default() -> Self {
        Self { nodes: Rates::new(RATE, MOST_NODES), asking: Semaphore::new(MOST_ASKED) }
    }
}

impl Signing {
    #[must_use]
    pub fn into_service(self) -> IdentitiesServer<Self> {
        IdentitiesServer::new(self).max_decoding_message_size(LONGEST_REQUEST)
    }

    async fn signed(
        &self,
        caller: &Caller,
        asked: &SignRequest,
    ) -> Result<SignResponse, SignError> {
        if !self.limits.nodes.take(&caller.node) {
            return Err(SignError::TooOften);
        }
        let text = &asked.pod_uid;
        let uid: PodUid =
            text.parse().map_err(|_| SignError::Uid(text.chars().take(64).collect()))?;
        let key = csr::key(&asked.csr)?;
        let known = self.pods.get(uid).filter(|pod| pod.node == caller.node);
        let pod = match known {
            Some(pod) => pod,
            None => self.ask(caller, uid).await?,
        };
        check(&pod, uid, SystemTime::now())?;
        let (namespace, account) = (&pod.namespace, &pod.service_account);
        if self.system_namespaces.contains(&**namespace) {
            return Err(SignError::System(namespace.clone()));
        }
        let domain = self.authority.trust_domain();
        let id: SpiffeId = format!("spiffe://{domain}/ns/{namespace}/sa/{account}").parse()?;
        let chain = self.authority.issue(&id, &key)?;
        tracing::info!(node = %caller.node, pod = %uid, %id, "SVID issued");
        let chain = chain.iter().map(|certificate| certificate.to_vec()).collect();
        Ok(SignResponse { chain })
    }

    /// What the API server says of a pod that is not known, or known to be elsewhere.
    async fn ask(&self, caller: &Caller, uid: PodUid) -> Result<KnownPod, SignError> {
        let Ok(_turn) = self.limits.asking.acquire().await else {
            return Err(SignError::Unknown(uid));
        };
        // The watch may have caught up meanwhile.
        if let Some(pod) = self.pods.get(uid).filter(|pod| pod.node == caller.node) {
            return Ok(pod);
        }
        let found = self.pods.ask(&caller.node, uid).await?;
        // The API server was asked for pods of this node alone. It is not believed blindly.
        found.filter(|pod| pod.node == caller.node).ok_or(SignError::Unknown(uid))
    }
}

/// Whether a pod of the caller's node gets an identity.
///
/// # Errors
/// Why not.
fn check(pod: &KnownPod, uid: PodUid, now: SystemTime) -> Result<(), SignError> {
    if pod.node.is_empty() {
        return Err(SignError::Unknown(uid));
    }
    if pod.is_mirror {
        return Err(SignError::Mirror(uid));
    }
    if pod.lifetime == Lifetime::Over {
        return Err(SignError::Over(uid));
    }
    match pod.ends {
        Some(ends) if ends + LENIENCE < now => Err(SignError::Deleted(uid)),
        _ => Ok(()),
    }
}

fn roots(list: &RootList) -> Roots {
    Roots { certificates: list.iter().map(|certificate| certificate.to_vec()).collect() }
}

#[tonic::async_trait]
impl Identities for Signing {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let caller = Caller::of(&request)?;
        let signed = self.signed(&caller, request.get_ref()).await.map_err(|error| {
            self.counters.unsigned.of(error.kind()).increment();
            tracing::info!(node = %caller.node, %error, "no SVID");
            Status::new(error.code(), error.to_string())
        })?;
        // Whoever leads by now may know better.
        if !self.leadership.is_held() {
            return Err(not_leading(&self.leadership));
        }
        self.counters.signed.increment();
        Ok(Response::new(signed))
    }

    type FollowRootsStream = Pin<Box<dyn Stream<Item = Result<Roots, Status>> + Send>>;

    async fn follow_roots(
        &self,
        request: Request<FollowRootsRequest>,
    ) -> Result<Response<Self::FollowRootsStream>, Status> {
        let caller = Caller::of(&request)?;
        let mut told = self.authority.roots();
        told.mark_changed();
        let changes = stream::unfold(told, async |mut told| {
            loop {
                told.changed().await.ok()?;
                let list = told.borrow_and_update().clone();
                // None are no news: there is no CA yet.
                if !list.is_empty() {
                    return Some((Ok(roots(&list)), told));
                }
            }
        });
        let (mut leadership, presence) = (self.leadership.clone(), self.presence.clone());
        let counted = Held::of(&self.counters.root_streams);
        let end = async move {
            tokio::select! {
                () = leadership.lost() => {}
                () = presence.lost(&caller) => {}
                () = tokio::time::sleep(STREAM) => {}
            }
            drop(counted);
        };
        Ok(Response::new(Box::pin(changes.take_until(Box::pin(end)))))
    }
}

#[cfg(test)]
mod tests;
