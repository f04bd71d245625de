//! The directory's service: the streams of agents, for as long as this replica leads.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::stream::{self, Stream, StreamExt};
use kube::Client;
use rustls::crypto::SecureRandom;
use sheath_common::pod_uid::PodUid;
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};

use super::cluster::ClusterRules;
use super::encoded;
use super::feed::{Ended, Feed, FeedStatus, Place};
use super::history::Limits;
use super::watching::watch;
use crate::controller::caller::{Caller, not_leading};
use crate::controller::counters::{Counters, Held, NotFollowed};
use crate::controller::leader::Leadership;
use crate::controller::pods::Pods;
use crate::controller::presence::Presence;
use crate::controller::rates::{Rate, Rates};
use crate::controller::watches::Watches;
use crate::controller_api::directory::{
    Directory, DirectoryServer, FollowRequest, FollowResponse, Observed, follow_request,
};

/// Bytes of the longest request: four thousand uids, and as much again.
const LONGEST_REQUEST: usize = 160 << 10;
/// Uids in one request.
const MOST_UIDS: usize = 4096;
/// How long an agent may take to say what it knows.
const PATIENCE: Duration = Duration::from_secs(10);
/// So often an agent may say that something has changed.
const PAUSE: Duration = Duration::from_millis(50);
/// Pods that an agent may have news of: every agent of the cluster is told. A node has 500 pods at most.
const NEWS: Rate = Rate { burst: 2000.0, per_second: 20.0 };
/// How often an agent may begin: it may have to be told everything.
const BEGINS: Rate = Rate { burst: 10.0, per_second: 0.2 };
/// Nodes that may have said or begun something of late.
const MOST_NODES: usize = 20_000;
/// How long a stream lasts: then the agent's token is looked at again.
const STREAM: Duration = Duration::from_secs(30 * 60);

/// The directory of a replica.
#[derive(Clone)]
pub struct Directories(Arc<Shared>);

struct Shared {
    /// `None` unless it leads.
    feed: ArcSwapOption<Feed>,
    leadership: Leadership,
    rules: ClusterRules,
    presence: Arc<Presence>,
    counters: Arc<Counters>,
    news: Rates<Arc<str>>,
    begins: Rates<Arc<str>>,
}

impl Directories {
    #[must_use]
    pub fn new(
        rules: ClusterRules,
        leadership: Leadership,
        presence: Arc<Presence>,
        counters: Arc<Counters>,
    ) -> Self {
        Self(Arc::new(Shared {
            feed: ArcSwapOption::empty(),
            leadership,
            rules,
            presence,
            counters,
            news: Rates::new(NEWS, MOST_NODES),
            begins: Rates::new(BEGINS, MOST_NODES),
        }))
    }

    /// What is known of the directory; `None` if this replica does not lead.
    #[must_use]
    pub fn status(&self) -> Option<FeedStatus> {
        self.0.feed.load().as_ref().map(|feed| feed.status())
    }

    #[must_use]
    pub fn service(&self) -> DirectoryServer<Self> {
        DirectoryServer::new(self.clone()).max_decoding_message_size(LONGEST_REQUEST)
    }

    /// Makes a directory whenever this replica leads. Never ends.
    pub async fn run(
        self,
        client: Client,
        pods: Arc<Pods>,
        watches: Arc<Watches>,
        random: &'static dyn SecureRandom,
    ) {
        let Shared { feed: current, leadership, rules, .. } = &*self.0;
        let mut leadership = leadership.clone();
        loop {
            leadership.gained().await;
            let feed = Feed::new(epoch(random), rules.clone(), Limits::default());
            current.store(Some(feed.clone()));
            tracing::info!("the directory is being made");
            let listening = block_in_place(|| pods.listen(feed.clone()));
            tokio::select! {
                () = leadership.lost() => {}
                () = watch(feed.clone(), client.clone(), watches.clone(), random) => {}
                () = feed.run() => {}
            }
            current.store(None);
            drop(listening);
        }
    }
}

/// A number that no other leader has, but by a chance of one in 2^64.
fn epoch(random: &dyn SecureRandom) -> u64 {
    let mut bytes = [0; 8];
    match random.fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        // Without randomness, the time.
        Err(_) => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64),
    }
}

#[tonic::async_trait]
impl Directory for Directories {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<FollowResponse, Status>> + Send>>;

    async fn follow(
        &self,
        request: Request<Streaming<FollowRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let caller = Caller::of(&request)?;
        let own = self.0.clone();
        let feed = own.feed.load_full().ok_or_else(|| not_leading(&own.leadership))?;
        let too_often = own.news.debt(&caller.node).max(own.begins.debt(&caller.node));
        if !too_often.is_zero() {
            own.counters.directory_refused.of(NotFollowed::TooOften).increment();
            let wait = too_often.as_secs() + 1;
            let message =
                format!("this node begins too often, or says too much; not before {wait}s");
            return Err(Status::resource_exhausted(message));
        }
        own.begins.pay(&caller.node, 1.0);
        let mut requests = request.into_inner();
        let first = timeout(PATIENCE, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no first message"))??;
        let Some(follow_request::Message::Begin(begin)) = first.and_then(|first| first.message)
        else {
            return Err(Status::invalid_argument("the first message is not `begin`"));
        };
        let protected = begin.observed.as_ref().map(parsed).transpose()?;
        let protected: Option<HashSet<_>> = protected.map(|(all, _)| all.into_iter().collect());
        tracing::debug!(node = %caller.node, known = ?begin.position, "an agent follows");
        let begun = feed.begin(&caller.node, caller.pod, begin.position, protected);
        let follower = begun.map_err(|error| {
            own.counters.directory_refused.of(NotFollowed::Replaced).increment();
            tracing::warn!(node = %caller.node, pod = %caller.pod, %error, "a node has two agents");
            Status::failed_precondition(error.to_string())
        })?;
        let wait = own.news.pay(&caller.node, follower.news() as f64);
        let talking =
            Talking { own: own.clone(), node: caller.node.clone(), place: follower.place() };
        let listening = AbortOnDropHandle::new(tokio::spawn(talking.listen(requests, wait)));
        let counted = Held::of(&own.counters.directory_streams);
        let told = (Some(follower), listening, counted, own.counters.clone());
        let answers = stream::unfold(told, async |(follower, listening, counted, counters)| {
            let mut follower = follower?;
            match follower.next().await {
                Ok(message) => {
                    let answer = Ok(encoded::answer(message));
                    Some((answer, (Some(follower), listening, counted, counters)))
                }
                Err(ended) => {
                    let why = match ended {
                        Ended::TooSlow => NotFollowed::TooSlow,
                        Ended::Replaced => NotFollowed::Replaced,
                    };
                    counters.directory_refused.of(why).increment();
                    let answer = Err(Status::aborted(ended.to_string()));
                    Some((answer, (None, listening, counted, counters)))
                }
            }
        });
        let mut leadership = own.leadership.clone();
        let end = async move {
            tokio::select! {
                () = leadership.lost() => {}
                () = own.presence.lost(&caller) => {}
                () = sleep(STREAM) => {}
            }
        };
        Ok(Response::new(Box::pin(answers.take_until(Box::pin(end)))))
    }
}

/// An agent that says what it sees.
struct Talking {
    own: Arc<Shared>,
    node: Arc<str>,
    place: Arc<Place>,
}

impl Talking {
    /// Takes what an agent sees, until it ends or says what makes no sense. Whoever says too much is heard later: what it sends
    /// meanwhile waits at its end.
    async fn listen(self, mut requests: Streaming<FollowRequest>, mut wait: Duration) {
        loop {
            if !wait.is_zero() {
                self.own.counters.observations_slowed.increment();
                tracing::warn!(node = %self.node, ?wait, "a node says too much about its pods, and is not heard for so long");
            }
            sleep(wait.max(PAUSE)).await;
            let Ok(Some(request)) = requests.message().await else { return };
            let Some(follow_request::Message::Observed(observed)) = request.message else {
                return;
            };
            let Ok((protected, unprotected)) = parsed(&observed) else {
                return;
            };
            let news = match observed.all {
                true => self.place.observe_all(protected.into_iter().collect()),
                false => self.place.observe(&protected, &unprotected),
            };
            wait = self.own.news.pay(&self.node, news as f64);
        }
    }
}

fn parsed(observed: &Observed) -> Result<(Vec<PodUid>, Vec<PodUid>), Status> {
    let Observed { protected, unprotected, .. } = observed;
    if protected.len() + unprotected.len() > MOST_UIDS {
        return Err(Status::invalid_argument("more pods than a node has"));
    }
    let uid = |bytes: &prost::bytes::Bytes| {
        let bytes: Result<[u8; 16], _> = bytes[..].try_into();
        let uid = bytes.map(PodUid::from_bytes);
        uid.map_err(|_| Status::invalid_argument("a uid that has not 16 bytes"))
    };
    let all = |uids: &[prost::bytes::Bytes]| uids.iter().map(uid).collect::<Result<Vec<_>, _>>();
    Ok((all(protected)?, all(unprotected)?))
}
