//! Following all objects of a kind: a list, then what changes.
//!
//! The work is that of `kube`'s watcher: pages, bookmarks, and a new list where the server has forgotten what was seen (410). What
//! is added: pauses that grow, reasons for people, and a new list after whatever the server itself refuses. Without that an etcd that
//! was restored from an older snapshot would be asked for ever for changes since a version that it does not know.

use std::fmt;

use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use kube::Api;
use kube::runtime::watcher::{self, Config, Event};
use serde::de::DeserializeOwned;

use crate::follow::Backoff;

/// Seconds after which the server ends a watch, and another begins. So a dead connection is noticed within little more.
pub const WATCH: u32 = 60;

/// A change of what is followed.
pub type Change<K> = Event<K>;

/// What is followed.
type Followed<K> = BoxStream<'static, watcher::Result<Event<K>>>;

/// Why nothing new is heard of a kind of objects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchProblem {
    #[error(
        "the API server does not know who asks (401): the token has expired, or it is of another cluster"
    )]
    Unauthorized,
    #[error(
        "the API server does not allow it (403): {0}; the service account lacks a right; docs/kubernetes.md has a table of all of them"
    )]
    Forbidden(String),
    #[error("the API server refuses ({code}): {message}")]
    Refused { code: u16, message: String },
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    #[error("the API server sends what is no object of this kind: {0}")]
    Malformed(String),
}

impl WatchProblem {
    fn of(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::WatchError(status) => Self::of_status(status),
            watcher::Error::NoResourceVersion => {
                Self::Malformed("a list without a resource version".to_owned())
            }
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Self::of_request(error),
        }
    }

    /// The same, of a single request.
    #[must_use]
    pub fn of_request(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status),
            kube::Error::SerdeError(error) => Self::Malformed(error.to_string()),
            kube::Error::Auth(_) => Self::Unauthorized,
            error => Self::Unreachable(innermost(error)),
        }
    }

    fn of_status(status: &kube::core::Status) -> Self {
        match status.code {
            401 => Self::Unauthorized,
            403 => Self::Forbidden(status.message.clone()),
            code => Self::Refused { code, message: status.message.clone() },
        }
    }

    /// True if the server has no objects of this kind.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }

    /// True if the server itself has said so, and may say so for ever.
    fn is_said(&self) -> bool {
        !matches!(self, Self::Unreachable(_))
    }
}

/// The cause of an error: what is above it says the same in more words.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    cause.to_string()
}

/// Follows all objects of a kind. Never ends.
pub fn follow<K>(
    api: Api<K>,
    selection: Config,
    backoff: Backoff,
) -> impl Stream<Item = Result<Change<K>, WatchProblem>> + Send
where
    K: kube::Resource + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static,
{
    let selection = selection.timeout(WATCH);
    follow_anew(backoff, move || watcher::watcher(api.clone(), selection.clone()).boxed())
}

struct Following<K, O> {
    open: O,
    followed: Followed<K>,
    backoff: Backoff,
    /// The last problem: a pause comes first.
    problem: Option<WatchProblem>,
}

fn follow_anew<K: Send + 'static>(
    backoff: Backoff,
    open: impl Fn() -> Followed<K> + Send,
) -> impl Stream<Item = Result<Change<K>, WatchProblem>> + Send {
    let following = Following { followed: open(), open, backoff, problem: None };
    stream::unfold(following, async |mut following| {
        let change = following.next().await;
        Some((change, following))
    })
}

impl<K, O: Fn() -> Followed<K>> Following<K, O> {
    async fn next(&mut self) -> Result<Change<K>, WatchProblem> {
        if let Some(problem) = self.problem.take() {
            tokio::time::sleep(self.backoff.pause()).await;
            if problem.is_said() {
                self.followed = (self.open)();
            }
        }
        loop {
            match self.followed.next().await {
                // Says only that a list is about to be asked for.
                Some(Ok(Event::Init)) => return Ok(Event::Init),
                Some(Ok(change)) => {
                    self.backoff.reset();
                    return Ok(change);
                }
                Some(Err(error)) => {
                    let problem = WatchProblem::of(&error);
                    self.problem = Some(problem.clone());
                    return Err(problem);
                }
                None => self.followed = (self.open)(),
            }
        }
    }
}
