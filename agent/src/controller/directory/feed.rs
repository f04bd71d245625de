//! What the streams of all agents are read from. Each has a place in the [`History`], and nothing else of its own: whoever is slow
//! holds up nobody, and takes no memory but what is on its way to it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sheath_common::pod_uid::PodUid;
use tokio::sync::{Notify, watch};

use super::cluster::{Cluster, ClusterRules};
use super::encoded::{self, Shared};
use super::entry::Counts;
use super::history::{Forgotten, History, Limits, Snapshot};
use super::settling::Settling;
use super::streams::{Begun, NotBegun, Streams};
use crate::controller::watches::Objects;
use crate::controller_api::directory::{Own, Position};

/// How long changes are gathered before they are told.
pub const GATHER: Duration = Duration::from_millis(20);
/// How often it is looked whether a new leader knows enough.
const LOOK: Duration = Duration::from_millis(200);
/// Entries that are worked out at once, at most: so long does everybody wait.
const PIECE: usize = 1000;

/// The directory of one leader.
#[derive(Debug)]
pub struct Feed {
    epoch: u64,
    limits: Limits,
    state: Mutex<State>,
    /// Something may have changed.
    dirty: Notify,
    /// The sequence of the last change; `None` as long as not enough is known.
    head: watch::Sender<Option<u64>>,
    /// The last one that was made.
    snapshot: tokio::sync::Mutex<Option<Arc<Snapshot>>>,
}

#[derive(Debug)]
struct State {
    cluster: Cluster,
    settling: Settling,
    /// `None` as long as not enough is known.
    history: Option<History>,
    streams: Streams,
}

/// What is known of a feed, for metrics and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedStatus {
    pub position: Option<(u64, u64)>,
    pub entries: Counts,
    pub agents: usize,
    pub history_bytes: usize,
}

impl Feed {
    /// `epoch` is a number that no other leader has.
    #[must_use]
    pub fn new(epoch: u64, rules: ClusterRules, limits: Limits) -> Arc<Self> {
        let state = State {
            cluster: Cluster::new(rules),
            settling: Settling::default(),
            history: None,
            streams: Streams::default(),
        };
        Arc::new(Self {
            epoch,
            limits,
            state: Mutex::new(state),
            dirty: Notify::new(),
            head: watch::Sender::new(None),
            snapshot: tokio::sync::Mutex::default(),
        })
    }

    /// Something has happened in the cluster.
    pub fn change(&self, change: impl FnOnce(&mut Cluster)) {
        change(&mut self.state().cluster);
        self.dirty.notify_one();
    }

    /// All objects of a kind are known.
    pub fn listed(&self, what: Objects) {
        self.state().settling.listed(what, Instant::now());
        self.dirty.notify_one();
    }

    /// Tells what has changed, from time to time. Never ends.
    pub async fn run(&self) {
        loop {
            // A new leader looks whether it has waited long enough.
            let wait = if self.head.borrow().is_some() { Duration::MAX } else { LOOK };
            let _ = tokio::time::timeout(wait, self.dirty.notified()).await;
            tokio::time::sleep(GATHER).await;
            self.flush(Instant::now());
            if self.head.borrow().is_none() {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Tells what has changed. Others are let in between the pieces of it.
    pub fn flush(&self, now: Instant) {
        while self.flush_piece(now) {}
    }

    /// Returns true if there is more.
    fn flush_piece(&self, now: Instant) -> bool {
        let mut state = self.state();
        let State { cluster, settling, history, .. } = &mut *state;
        // Whose an address is cannot be told of half a list.
        if history.is_none() && !settling.is_listed() {
            return false;
        }
        // As long as nobody has been told anything, these are changes for nobody.
        let changes = cluster.take_some(PIECE);
        let more = cluster.has_more();
        match history {
            Some(history) => history.add(&changes),
            None if more => {}
            None if settling.is_over(now, || cluster.nodes_with_selected()) => {
                *history = Some(History::begin(self.epoch, self.limits));
            }
            None => {}
        }
        let sequence = history.as_ref().map(|history| history.position().sequence);
        drop(state);
        self.head.send_if_modified(|head| std::mem::replace(head, sequence) != sequence);
        more
    }

    /// The agent of a node, in this pod, begins to follow, and says what it knows and, if it can say, which of its pods are protected.
    ///
    /// # Errors
    /// If another agent of the node has taken its place.
    pub fn begin(
        self: &Arc<Self>,
        node: &str,
        pod: PodUid,
        known: Option<Position>,
        protected: Option<HashSet<PodUid>>,
    ) -> Result<Follower, NotBegun> {
        let node: Arc<str> = node.into();
        let stream = self.state().streams.begin(&node, pod)?;
        let place = Place { feed: self.clone(), node, stream };
        let news = protected.map_or(0, |protected| place.observe_all(protected));
        Ok(Follower {
            place: Arc::new(place),
            news,
            known,
            snapshot: None,
            has_been_told: false,
            is_named: false,
        })
    }

    #[must_use]
    pub fn status(&self) -> FeedStatus {
        let state = self.state();
        let history = state.history.as_ref();
        FeedStatus {
            position: history.map(|h| (h.position().epoch, h.position().sequence)),
            entries: state.cluster.counts(),
            agents: state.streams.len(),
            history_bytes: history.map_or(0, History::bytes),
        }
    }

    /// The change that follows on a position, when there is one.
    async fn after(&self, known: Position) -> Result<Shared, Forgotten> {
        let mut head = self.head.subscribe();
        loop {
            head.borrow_and_update();
            let next = match &self.state().history {
                Some(history) => history.after(known)?,
                None => None,
            };
            if let Some(next) = next {
                return Ok(next);
            }
            // The sender lives as long as this.
            let _ = head.changed().await;
        }
    }

    /// All of the directory, as it is now or was at a moment since this was called: whoever asks may have known of everything until
    /// then, and must not go back. It is encoded on a thread of its own, once for all who ask meanwhile.
    async fn snapshot(&self) -> Arc<Snapshot> {
        let mut head = self.head.subscribe();
        // The sender lives as long as this.
        let _ = head.wait_for(Option::is_some).await;
        let asked = self.state().history.as_ref().map(History::position).unwrap_or_default();
        let mut made = self.snapshot.lock().await;
        let (entries, ranges, services, position) = {
            let state = self.state();
            let history = state.history.as_ref();
            let position = history.map(History::position).unwrap_or_default();
            if let Some(snapshot) = &*made
                && snapshot.position.sequence >= asked.sequence
                // What follows on it must be known.
                && history.is_some_and(|history| history.after(snapshot.position).is_ok())
            {
                return snapshot.clone();
            }
            let cluster = &state.cluster;
            (cluster.entries(), cluster.ranges(), cluster.told_services(), position)
        };
        let encode = move || encoded::pages(position, entries.iter(), &ranges, &services).into();
        let pages = tokio::task::spawn_blocking(encode).await.unwrap_or_else(|_| Arc::default());
        made.insert(Arc::new(Snapshot { position, pages })).clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stream of a node's agent. With it ends what is believed of the agent of a node that is gone.
#[derive(Debug)]
pub struct Place {
    feed: Arc<Feed>,
    node: Arc<str>,
    stream: Begun,
}

impl Place {
    /// The agent says which pods are protected, all of them. Returns of how many that is news.
    pub fn observe_all(&self, protected: HashSet<PodUid>) -> usize {
        self.change(|state| {
            state.settling.reported(&self.node);
            state.cluster.observe_all(&self.node, protected)
        })
    }

    /// The agent says what has changed. Returns of how many pods that is news.
    pub fn observe(&self, protected: &[PodUid], unprotected: &[PodUid]) -> usize {
        self.change(|state| state.cluster.observe(&self.node, protected, unprotected))
    }

    /// Changes nothing, if the node has another stream by now.
    fn change(&self, change: impl FnOnce(&mut State) -> usize) -> usize {
        let mut state = self.feed.state();
        if !state.streams.is_last(&self.node, self.stream.number) {
            return 0;
        }
        let news = change(&mut state);
        drop(state);
        self.feed.dirty.notify_one();
        news
    }
}

impl Place {
    /// Who the agent is.
    fn own(&self) -> Shared {
        let zone = self.feed.state().cluster.zone(&self.node);
        let zone = zone.map(|zone| zone.to_string()).unwrap_or_default();
        Shared::Own(Own { node: self.node.to_string(), zone })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.feed.state();
        if state.streams.end(&self.node, self.stream.number) {
            state.cluster.agent_gone(&self.node);
        }
    }
}

/// What an agent is told, message by message.
#[derive(Debug)]
pub struct Follower {
    place: Arc<Place>,
    /// Of how many pods it was news what the agent has said when it began.
    news: usize,
    /// What the agent knows once it has read what it was told.
    known: Option<Position>,
    /// What it is being told, and which page comes next.
    snapshot: Option<(Arc<Snapshot>, usize)>,
    has_been_told: bool,
    /// It has been told who it is.
    is_named: bool,
}

/// Why an agent is told no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// It has not read what it was told for so long that what comes next is not known any more.
    #[error("the agent is too slow to be told of all changes; begin again")]
    TooSlow,
    #[error("another stream of this node has begun")]
    Replaced,
}

impl Follower {
    /// Where the agent's observations go.
    #[must_use]
    pub fn place(&self) -> Arc<Place> {
        self.place.clone()
    }

    /// Of how many pods it was news what the agent has said when it began.
    #[must_use]
    pub fn news(&self) -> usize {
        self.news
    }

    /// Waits for the next message. Whoever stops waiting misses none.
    ///
    /// # Errors
    /// If the agent was too slow, or the node has another stream.
    pub async fn next(&mut self) -> Result<Shared, Ended> {
        let end = self.place.stream.end.clone();
        tokio::select! {
            biased;
            () = end.cancelled() => Err(Ended::Replaced),
            told = self.tell() => told,
        }
    }

    async fn tell(&mut self) -> Result<Shared, Ended> {
        let feed = self.place.feed.clone();
        loop {
            // Nodes are known then.
            if !self.is_named && feed.head.borrow().is_some() {
                self.is_named = true;
                return Ok(self.place.own());
            }
            if let Some((snapshot, number)) = &mut self.snapshot {
                if let Some(page) = snapshot.pages.get(*number) {
                    *number += 1;
                    return Ok(page.clone());
                }
                self.known = Some(snapshot.position);
                self.snapshot = None;
            }
            let after = match self.known {
                Some(known) => feed.after(known).await,
                None => Err(Forgotten),
            };
            match (after, &mut self.known) {
                (Ok(delta), Some(known)) => {
                    known.sequence += 1;
                    self.has_been_told = true;
                    return Ok(delta);
                }
                _ if self.has_been_told => return Err(Ended::TooSlow),
                _ => {
                    self.snapshot = Some((feed.snapshot().await, 0));
                    self.has_been_told = true;
                }
            }
        }
    }
}
