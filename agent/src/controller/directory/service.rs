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
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};

use super::cluster::ClusterRules;
use super::encoded;
use super::feed::{Feed, Place};
use super::history::Limits;
use super::watching::watch;
use crate::controller::caller::{Caller, not_leading};
use crate::controller::leader::Leadership;
use crate::controller_api::directory::{
    Directory, DirectoryServer, FollowRequest, FollowResponse, Observed, follow_request,
};

/// Bytes of the longest request: four thousand uids, and as much again.
const LONGEST_REQUEST: usize = 160 << 10;
/// Uids in one request.
const MOST_UIDS: usize = 4096;
/// How long an agent may take to say what it knows.
const PATIENCE: Duration = Duration::from_secs(10);
/// So often an agent may say that something has changed: every agent is told of it.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a stream lasts: then the agent's token is looked at again.
const STREAM: Duration = Duration::from_secs(30 * 60);

/// The directory of a replica.
#[derive(Clone)]
pub struct Directories {
    /// `None` unless it leads.
    feed: Arc<ArcSwapOption<Feed>>,
    leadership: Leadership,
    rules: ClusterRules,
}

impl Directories {
    #[must_use]
    pub fn new(rules: ClusterRules, leadership: Leadership) -> Self {
        Self { feed: Arc::default(), leadership, rules }
    }

    #[must_use]
    pub fn service(&self) -> DirectoryServer<Self> {
        DirectoryServer::new(self.clone()).max_decoding_message_size(LONGEST_REQUEST)
    }

    /// Makes a directory whenever this replica leads. Never ends.
    pub async fn run(self, client: Client, random: &'static dyn SecureRandom) {
        let mut leadership = self.leadership.clone();
        loop {
            leadership.gained().await;
            let feed = Feed::new(epoch(random), self.rules.clone(), Limits::default());
            self.feed.store(Some(feed.clone()));
            tracing::info!("the directory is being made");
            tokio::select! {
                () = leadership.lost() => {}
                () = watch(feed.clone(), client.clone(), random) => {}
                () = feed.run() => {}
            }
            self.feed.store(None);
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
        let feed = self.feed.load_full().ok_or_else(|| not_leading(&self.leadership))?;
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
        let follower = feed.begin(&caller.node, begin.position, protected);
        let listening = AbortOnDropHandle::new(tokio::spawn(listen(requests, follower.place())));
        let answers = stream::unfold((Some(follower), listening), async |(follower, listening)| {
            let mut follower = follower?;
            match follower.next().await {
                Ok(message) => Some((Ok(encoded::answer(message)), (Some(follower), listening))),
                Err(slow) => Some((Err(Status::aborted(slow.to_string())), (None, listening))),
            }
        });
        let mut leadership = self.leadership.clone();
        let end = async move {
            tokio::select! {
                () = leadership.lost() => {}
                () = sleep(STREAM) => {}
            }
        };
        Ok(Response::new(Box::pin(answers.take_until(Box::pin(end)))))
    }
}

/// Takes what an agent sees, until it ends or says what makes no sense.
async fn listen(mut requests: Streaming<FollowRequest>, place: Arc<Place>) {
    while let Ok(Some(request)) = requests.message().await {
        let Some(follow_request::Message::Observed(observed)) = request.message else {
            return;
        };
        let Ok((protected, unprotected)) = parsed(&observed) else {
            return;
        };
        match observed.all {
            true => place.observe_all(protected.into_iter().collect()),
            false => place.observe(&protected, &unprotected),
        }
        sleep(PAUSE).await;
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
