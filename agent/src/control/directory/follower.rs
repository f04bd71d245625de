//! Follows the controller's directory: what is known outlives every stream, and every controller.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::stream;
use sheath_common::pod_uid::PodUid;
use tokio::sync::{mpsc, watch};
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::view::{DirectoryViews, Link as LinkView};
use super::{Keeper, Memory};
use crate::controller_api::directory::{
    self as api, DirectoryClient, FollowRequest, FollowResponse, Observed, follow_request,
};
use crate::controller_api::{LONGEST_MESSAGE, Link, LinkError};
use crate::directory::{NotApplicable, Read, Reader, Senseless};
use crate::follow::{Backoff, Problem};
use crate::services::{Catalogue, Change};
use crate::spiffe::TrustDomain;

/// How long after a change the file is written, and how many bytes of it a second from then on: it is written whole.
const KEEP: Duration = Duration::from_secs(5);
const KEPT_PER_SECOND: u64 = 256 << 10;
/// Uids in one message.
const MOST_UIDS: usize = 4096;

/// What a follower works with.
#[derive(Debug)]
pub struct FollowerSettings {
    pub link: Arc<Link>,
    pub trust_domain: TrustDomain,
    pub memory: Memory,
    pub backoff: Backoff,
    /// The Services that are known, and where they are published.
    pub catalogue: Catalogue,
}

/// Follows the directory.
#[derive(Debug)]
pub struct Follower {
    link: Arc<Link>,
    reader: Reader,
    keeper: Keeper,
    catalogue: Catalogue,
    memory: Memory,
    backoff: Backoff,
    views: DirectoryViews,
    /// What is known does not fit what the controller says: all of it is asked for.
    is_lost: bool,
    /// When the file is to be written.
    keep: Option<Instant>,
    /// Not before this, unless the controller is away.
    rest: Instant,
}

/// Why a stream has ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the controller has ended the stream of its directory: {0}")]
    Status(String),
    #[error("the controller has ended the stream of its directory")]
    Closed,
    #[error(transparent)]
    Senseless(#[from] Senseless),
    #[error(transparent)]
    NotApplicable(#[from] NotApplicable),
    #[error("the directory cannot be put in force, and stays as it was: {0}")]
    Kernel(std::io::Error),
    /// Nobody observes pods any more.
    #[error("the agent ends")]
    Over,
}

impl Follower {
    #[must_use]
    pub fn new(settings: FollowerSettings, keeper: Keeper, views: DirectoryViews) -> Self {
        let FollowerSettings { link, trust_domain, memory, backoff, catalogue } = settings;
        let reader = Reader::new(trust_domain);
        // What an earlier run has left may be older than what it has told the kernel: all of it is asked for once.
        let (is_lost, keep, rest) = (true, None, Instant::now());
        Self { link, reader, keeper, catalogue, memory, backoff, views, is_lost, keep, rest }
    }

    /// Works until it is `over`, or nobody observes pods any more. What is known is in the file then.
    pub async fn run(
        mut self,
        observed: watch::Receiver<Option<HashSet<PodUid>>>,
        over: CancellationToken,
    ) {
        tokio::select! {
            biased;
            () = over.cancelled() => {}
            () = self.keep_following(observed) => {}
        }
        self.keep_due();
    }

    async fn keep_following(&mut self, mut observed: watch::Receiver<Option<HashSet<PodUid>>>) {
        loop {
            let ended = match self.follow(&mut observed).await {
                Ok(never) => match never {},
                Err(ended) => ended,
            };
            if matches!(ended, Ended::Over) {
                return;
            }
            self.is_lost |=
                matches!(ended, Ended::Senseless(_) | Ended::NotApplicable(_) | Ended::Kernel(_));
            self.failed(&ended.into());
            self.keep_due();
            tokio::time::sleep(self.backoff.pause()).await;
        }
    }

    async fn follow(
        &mut self,
        observed: &mut watch::Receiver<Option<HashSet<PodUid>>>,
    ) -> Result<std::convert::Infallible, Ended> {
        self.reader.begin();
        let mut told = observed.borrow_and_update().clone();
        let position = self.keeper.current().position().filter(|_| !self.is_lost);
        let begin = FollowRequest {
            message: Some(follow_request::Message::Begin(api::Begin {
                position: position
                    .map(|known| api::Position { epoch: known.epoch, sequence: known.sequence }),
                observed: told.as_ref().map(|all| said(all, None)),
            })),
        };
        let (requests, mut answers) = open(&self.link, begin).await?;
        let mut has_news = false;
        loop {
            let keep = self.keep;
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => self.take(answer).await?,
                    Ok(None) => return Err(Ended::Closed),
                    Err(status) => return Err(Ended::Status(status.message().to_owned())),
                },
                changed = observed.changed(), if !has_news => {
                    changed.map_err(|_| Ended::Over)?;
                    has_news = true;
                }
                // The controller may take its time to listen: what it tells is read meanwhile.
                room = requests.reserve(), if has_news => {
                    let room = room.map_err(|_| Ended::Closed)?;
                    has_news = false;
                    let Some(now) = observed.borrow_and_update().clone() else { continue };
                    let message = follow_request::Message::Observed(said(&now, told.as_ref()));
                    room.send(FollowRequest { message: Some(message) });
                    told = Some(now);
                }
                () = crate::sys::clock::reach(keep) => self.keep_due(),
            }
        }
    }

    async fn take(&mut self, answer: FollowResponse) -> Result<(), Ended> {
        let before = self.keeper.current();
        let (next, touched) = match block_in_place(|| self.reader.read(answer))? {
            Read::More => return Ok(()),
            Read::Own(node) => {
                block_in_place(|| self.catalogue.apply([Change::Node(node)]));
                return Ok(());
            }
            Read::All(collected) => block_in_place(|| {
                self.catalogue.replace_by(self.reader.take_services());
                collected.complete_with(&before, self.catalogue.all_ports())
            }),
            Read::Delta(delta) => {
                let services = self.reader.take_services();
                // One that does not follow on what is known is no change of that.
                let follows = before.is_followed_by(&delta);
                let changed = follows.then(|| block_in_place(|| self.catalogue.apply(services)));
                let ports = self.catalogue.ports_at(&changed.unwrap_or_default());
                before.with_services(delta, ports)?
            }
        };
        self.keeper.put_in_force(next, &touched).await.map_err(Ended::Kernel)?;
        self.is_lost = false;
        self.backoff.reset();
        self.heard();
        self.keep.get_or_insert_with(|| self.rest.max(Instant::now() + KEEP));
        Ok(())
    }

    fn heard(&self) {
        let before = self.views.link.load();
        if !before.is_open {
            tracing::info!("the controller's directory is known");
        }
        let heard = Some(SystemTime::now());
        self.views.link.store(Arc::new(LinkView { is_open: true, heard, problem: String::new() }));
    }

    fn failed(&self, problem: &Problem) {
        let before = self.views.link.load();
        let problem = problem.to_string();
        if before.problem != problem {
            tracing::warn!(
                problem,
                "the controller's directory is not followed; what is known stays in force"
            );
        }
        self.views.link.store(Arc::new(LinkView { is_open: false, heard: before.heard, problem }));
    }

    /// Writes the file, if there is anything new.
    fn keep_due(&mut self) {
        if self.keep.take().is_some() {
            let current = self.keeper.current();
            let bytes = block_in_place(|| self.memory.keep(&current, &self.catalogue));
            self.rest = Instant::now() + Duration::from_secs(bytes as u64 / KEPT_PER_SECOND);
        }
    }
}

/// What is new of what is protected; all of it, if nothing was said before.
fn said(now: &HashSet<PodUid>, before: Option<&HashSet<PodUid>>) -> Observed {
    let uids = |new: &HashSet<PodUid>, old: &HashSet<PodUid>| {
        let new = new.difference(old).take(MOST_UIDS);
        new.map(|uid| uid.to_bytes().to_vec().into()).collect()
    };
    let nothing = HashSet::new();
    let known = before.unwrap_or(&nothing);
    Observed { all: before.is_none(), protected: uids(now, known), unprotected: uids(known, now) }
}

type Requests = mpsc::Sender<FollowRequest>;

async fn open(
    link: &Link,
    begin: FollowRequest,
) -> Result<(Requests, Streaming<FollowResponse>), LinkError> {
    link.call(|carrier| {
        let begin = begin.clone();
        async move {
            let (sender, receiver) = mpsc::channel(1);
            // There is room for it, and the receiver is here.
            let _ = sender.try_send(begin);
            let requests = stream::unfold(receiver, async |mut receiver: mpsc::Receiver<_>| {
                Some((receiver.recv().await?, receiver))
            });
            let mut client =
                DirectoryClient::new(carrier).max_decoding_message_size(LONGEST_MESSAGE);
            let answers = client.follow(requests).await?.into_inner();
            Ok((sender, answers))
        }
    })
    .await
}
