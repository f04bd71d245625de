//! Agents: all of them, which only read, and one that applies what it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sheath::controller::directory::{Follower, answer, length};
use sheath::directory::{Directory, Read, Reader, Touched};

use crate::cluster::TRUST_DOMAIN;

/// All agents, as far as their streams go.
pub struct Agents {
    bytes: Arc<AtomicU64>,
    messages: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Agents {
    pub fn begin(followers: Vec<Follower>) -> Self {
        let (bytes, messages) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let read = |mut follower: Follower| {
            let (bytes, messages) = (bytes.clone(), messages.clone());
            tokio::spawn(async move {
                while let Ok(message) = follower.next().await {
                    bytes.fetch_add(length(&message) as u64, Ordering::Relaxed);
                    messages.fetch_add(1, Ordering::Relaxed);
                    // As a socket would.
                    tokio::task::yield_now().await;
                }
            })
        };
        let tasks = followers.into_iter().map(read).collect();
        Self { bytes, messages, tasks }
    }

    /// Bytes that have been read since the last time.
    pub fn bytes_read(&self) -> u64 {
        self.bytes.swap(0, Ordering::Relaxed)
    }

    pub fn end(self) {
        self.tasks.iter().for_each(|task| task.abort());
    }

    /// Waits until so many messages have been read since the last time. Returns their bytes.
    pub async fn have_read(&self, messages: u64) -> Result<u64> {
        let limit = Instant::now() + Duration::from_secs(120);
        while self.messages.load(Ordering::Relaxed) < messages {
            ensure!(Instant::now() < limit, "agents do not read");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.messages.store(0, Ordering::Relaxed);
        Ok(self.bytes_read())
    }
}

/// One agent that reads what it is told.
pub struct Reading {
    follower: Follower,
    reader: Reader,
    pub known: Directory,
}

impl Reading {
    pub fn new(follower: Follower) -> Result<Self> {
        let reader = Reader::new(TRUST_DOMAIN.parse()?);
        Ok(Self { follower, reader, known: Directory::default() })
    }

    /// Reads until the directory has changed. Returns what has changed, and how long a thread was kept by it at once.
    pub async fn change(&mut self) -> Result<(Touched, Duration)> {
        let mut longest = Duration::ZERO;
        loop {
            let message = self.follower.next().await?;
            let begun = Instant::now();
            let read = self.reader.read(answer(message))?;
            let changed = match read {
                Read::More | Read::Own(_) => None,
                Read::All(all) => Some(all.complete(&self.known)),
                Read::Delta(delta) => Some(self.known.after(delta)?),
            };
            longest = longest.max(begun.elapsed());
            if let Some((next, touched)) = changed {
                self.known = next;
                return Ok((touched, longest));
            }
        }
    }
}
