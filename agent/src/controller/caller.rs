//! Who calls: every request is that of an agent, or is refused before any service sees it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response};
use sheath_common::pod_uid::PodUid;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::connection::Client;
use super::counters::{Counters, Refused};
use super::leader::Leadership;
use super::presence::{Absent, Presence};
use super::tokens::{TokenError, Tokens};
use crate::controller_api::LEADER;

/// The agent that calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The node that its pod is bound to. It speaks for pods of this node, and for nobody else.
    pub node: Arc<str>,
    /// The agent's pod, which the token is bound to.
    pub pod: PodUid,
}

impl Caller {
    /// The agent behind a request.
    ///
    /// # Errors
    /// If nobody has looked, which cannot be in the server that [`Doorkeeper`] guards.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        let caller = request.extensions().get::<Self>().cloned();
        caller.ok_or_else(|| Status::unauthenticated("nobody has looked at the token"))
    }
}

/// Stands before all services of the server. It refuses everything unless this replica leads, and then everybody but agents.
#[derive(Clone)]
pub struct Doorkeeper {
    pub leadership: Leadership,
    pub tokens: Arc<Tokens>,
    pub presence: Arc<Presence>,
    pub counters: Arc<Counters>,
}

/// Why a call is not let in.
#[derive(Debug, thiserror::Error)]
enum NotLetIn {
    #[error("this replica does not lead")]
    NotLeading,
    #[error("nobody knows where the call comes from")]
    NoClient,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Absent(#[from] Absent),
}

impl NotLetIn {
    fn code(&self) -> Code {
        match self {
            Self::NotLeading
            | Self::Token(TokenError::Unanswered(_))
            | Self::Absent(Absent::Unanswered(_)) => Code::Unavailable,
            Self::NoClient => Code::Internal,
            Self::Token(TokenError::Busy | TokenError::TooOften) => Code::ResourceExhausted,
            Self::Token(TokenError::Account { .. } | TokenError::Unbound(_))
            | Self::Absent(Absent::Other(_)) => Code::PermissionDenied,
            Self::Token(_) | Self::Absent(Absent::Gone(_)) => Code::Unauthenticated,
        }
    }

    /// As it is counted.
    fn kind(&self) -> Refused {
        match self {
            Self::NotLeading => Refused::NotLeading,
            Self::Token(TokenError::Unanswered(_)) | Self::Absent(Absent::Unanswered(_)) => {
                Refused::Unanswered
            }
            Self::Token(TokenError::Busy | TokenError::TooOften) => Refused::TooOften,
            Self::Token(TokenError::Account { .. }) | Self::Absent(Absent::Other(_)) => {
                Refused::Account
            }
            Self::Token(TokenError::Unbound(_)) => Refused::Unbound,
            Self::Token(_) | Self::NoClient => Refused::Token,
            Self::Absent(Absent::Gone(_)) => Refused::Gone,
        }
    }
}

impl Doorkeeper {
    /// Lets an agent in by what its request has for `authorization`.
    async fn admit(
        &self,
        shown: Option<HeaderValue>,
        client: Option<Client>,
    ) -> Result<Caller, Status> {
        match self.judge(shown, client).await {
            Ok(caller) => Ok(caller),
            Err(why) => {
                self.counters.refused.of(why.kind()).increment();
                if matches!(why, NotLetIn::NotLeading) {
                    return Err(not_leading(&self.leadership));
                }
                tracing::info!(error = %why, "a caller is refused");
                Err(Status::new(why.code(), why.to_string()))
            }
        }
    }

    async fn judge(
        &self,
        shown: Option<HeaderValue>,
        client: Option<Client>,
    ) -> Result<Caller, NotLetIn> {
        if !self.leadership.is_held() {
            return Err(NotLetIn::NotLeading);
        }
        let client = client.ok_or(NotLetIn::NoClient)?;
        let token = shown.as_ref().and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer "));
        let token = token.ok_or(TokenError::None)?;
        let caller = self.tokens.caller(token, client.address).await?;
        self.presence.check(&caller).await?;
        client.is_let_in();
        Ok(caller)
    }
}

/// The answer of a replica that does not lead.
pub fn not_leading(leadership: &Leadership) -> Status {
    let mut metadata = MetadataMap::new();
    let leader = leadership.leader().map(|leader| leader.to_string()).unwrap_or_default();
    // An address is ASCII. Empty: nobody leads, as far as this replica knows.
    if let Ok(value) = leader.parse() {
        metadata.insert(LEADER, value);
    }
    Status::with_metadata(Code::Unavailable, "this replica does not lead", metadata)
}

impl<S> Layer<S> for Doorkeeper {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, doorkeeper: self.clone() }
    }
}

/// Services behind the doorkeeper.
#[derive(Clone)]
pub struct Guarded<S> {
    inner: S,
    doorkeeper: Doorkeeper,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The one that is ready; its clone may not be.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let doorkeeper = self.doorkeeper.clone();
        Box::pin(async move {
            let shown = request.headers_mut().remove("authorization");
            let client = request.extensions().get::<Client>().cloned();
            match doorkeeper.admit(shown, client).await {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}
