//! What the cluster goes through, step by step.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sheath::controller::directory::{Cluster, ClusterRules, Feed, Follower, Limits, Objects};
use sheath::directory::KernelChange;
use sheath::kubernetes::{Namespace, Protection, Rules, Wish};
use sheath::metrics::Label;

use crate::agents::{Agents, Reading};
use crate::cluster::{NAMESPACES, Size, TRUST_DOMAIN, agent};
use crate::measures::{Figures, Stall, resident};

/// Pods that are replaced at once in a rolling update, ten times a second.
const ROLLED_AT_ONCE: u32 = 100;
/// Agents' tables that are made, for the memory of one.
const TABLES: usize = 4;

/// A controller, and what has been found out so far.
pub struct Simulation {
    size: Size,
    feed: Arc<Feed>,
    figures: Figures,
    /// Bytes of the process before there was a controller.
    before: f64,
}

impl Simulation {
    pub fn new(size: Size) -> Result<Self> {
        let before = resident()?;
        let rules = ClusterRules {
            trust_domain: TRUST_DOMAIN.parse()?,
            pods: Rules::default(),
            ranges: vec!["10.0.0.0/8".parse()?],
            service_ranges: Vec::new(),
            nodes_own_ranges: true,
        };
        let feed = Feed::new(1, rules, Limits::default());
        Ok(Self { size, feed, figures: Figures::default(), before })
    }

    pub async fn run(mut self) -> Result<Figures> {
        self.list();
        let followers = self.begin()?;
        let mut one = self.snapshot().await?;
        let agents = self.snapshots(followers).await?;
        let running = self.feed.clone();
        tokio::spawn(async move { running.run().await });
        self.change_one(&agents, &mut one).await?;
        self.roll(&agents, &mut one).await?;
        self.tables().await?;
        agents.end();
        Ok(self.figures)
    }

    /// The controller takes in what the API server lists.
    fn list(&mut self) {
        let begun = Instant::now();
        for number in 0..NAMESPACES {
            let name: Arc<str> = format!("team-{number}").into();
            let wish = Wish::Said(Protection::Require);
            let namespace = Namespace { name: name.clone(), wish };
            self.feed.change(|cluster| cluster.set_namespace(&name, Some(namespace)));
        }
        for number in 0..self.size.agents {
            self.feed.change(|cluster| cluster.set_node(&self.size.node(number), Vec::new()));
        }
        for number in 0..self.size.pods {
            let listed = self.size.pod(number, 0);
            self.feed.change(|cluster| cluster.set_pod(&listed));
        }
        Objects::ALL.iter().for_each(|what| self.feed.listed(*what));
        self.figures.tell_ms("list_ms", "taking in the list of all pods", begun.elapsed());
    }

    /// Every agent begins, and says that its pods are protected.
    fn begin(&mut self) -> Result<Vec<Follower>> {
        let begun = Instant::now();
        let Size { pods, agents } = self.size;
        let followers: Vec<_> = (0..agents)
            .map(|number| {
                let own = (number..pods).step_by(agents as usize);
                let protected: HashSet<_> = own.map(|pod| self.size.pod(pod, 0).uid).collect();
                let name = self.size.node(number);
                Ok(self.feed.begin(&name, agent(number), None, Some(protected))?)
            })
            .collect::<Result<_>>()?;
        self.figures.tell_ms("begin_ms", "all agents say what they see", begun.elapsed());
        let begun = Instant::now();
        self.feed.flush(Instant::now());
        self.figures.tell_ms("first_ms", "the first working out of all entries", begun.elapsed());
        self.figures.tell_mib(
            "controller_mib",
            "controller, without streams",
            resident()? - self.before,
        );
        Ok(followers)
    }

    /// One agent reads all of it.
    async fn snapshot(&mut self) -> Result<Reading> {
        let begun = Instant::now();
        let mut one = self.observer()?;
        one.change().await?;
        let took = begun.elapsed();
        self.figures.tell_ms("snapshot_ms", "a snapshot made, read and applied once", took);
        let entries = one.known.len();
        ensure!(entries == self.size.pods as usize, "{entries} entries");
        Ok(one)
    }

    /// All of it, to all of them at once.
    async fn snapshots(&mut self, followers: Vec<Follower>) -> Result<Agents> {
        // Each is told its own node first.
        let messages = 1 + u64::from(self.size.pods.div_ceil(500));
        let (stall, begun) = (Stall::watch(), Instant::now());
        let agents = Agents::begin(followers);
        let bytes = agents.have_read(messages * u64::from(self.size.agents)).await?;
        let (took, stalled) = (begun.elapsed(), stall.longest());
        self.figures.tell("snapshot_bytes", "a snapshot", self.per_agent(bytes as f64), "B");
        self.figures.tell_ms("snapshot_fanout_ms", "snapshots to all agents at once", took);
        self.figures.tell_ms("snapshot_stall_ms", "the longest stall meanwhile", stalled);
        let bytes = resident()? - self.before;
        self.figures.tell_mib("controller_all_mib", "controller, with all streams", bytes);
        Ok(agents)
    }

    /// One pod is replaced by another: an entry changes.
    async fn change_one(&mut self, agents: &Agents, one: &mut Reading) -> Result<()> {
        let (stall, begun) = (Stall::watch(), Instant::now());
        self.replace(0..1);
        let bytes = agents.have_read(self.size.agents.into()).await? as f64;
        let (took, stalled) = (begun.elapsed(), stall.longest());
        let each = self.per_agent(bytes);
        self.figures.tell("change_bytes", "a change of one pod, per agent", each, "B");
        self.figures.tell("change_all_bytes", "a change of one pod, for all", bytes, "B");
        self.figures.tell_ms("change_ms", "from the change to the last agent", took);
        self.figures.tell_ms("change_stall_ms", "the longest stall meanwhile", stalled);
        let (touched, kept) = one.change().await?;
        ensure!(touched.entries.len() == 1);
        self.figures.tell_ms("apply_ms", "an agent applies it", kept);
        Ok(())
    }

    /// A rolling update: pods are replaced, some at a time.
    async fn roll(&mut self, agents: &Agents, one: &mut Reading) -> Result<()> {
        let rounds = 5_000.min(self.size.pods / 2) / ROLLED_AT_ONCE;
        let (stall, begun) = (Stall::watch(), Instant::now());
        for round in 0..rounds {
            let first = 1 + round * ROLLED_AT_ONCE;
            self.replace(first..first + ROLLED_AT_ONCE);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let (mut longest, mut seen) = (Duration::ZERO, 0);
        while seen < (rounds * ROLLED_AT_ONCE) as usize {
            let (touched, kept) = one.change().await?;
            seen += touched.entries.len();
            longest = longest.max(kept);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (took, stalled) = (begun.elapsed(), stall.longest());
        let each = self.per_agent(agents.bytes_read() as f64) / seen as f64;
        let what = "a change in a rolling update (1000 pods/s), per agent";
        self.figures.tell("rolling_bytes", what, each, "B");
        self.figures.tell_ms("rolling_ms", "the rolling update of these pods", took);
        self.figures.tell_ms("rolling_stall_ms", "the longest stall meanwhile", stalled);
        let what = "the longest that an agent applies one message";
        self.figures.tell_ms("rolling_apply_ms", what, longest);
        let bytes = self.feed.status().history_bytes as f64;
        self.figures.tell_mib("history_mib", "changes that the controller keeps", bytes);
        Ok(())
    }

    /// What agents make of all of it.
    async fn tables(&mut self) -> Result<()> {
        let before = resident()?;
        let mut tables = Vec::new();
        let (mut longest, mut all) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..TABLES {
            let mut reading = self.observer()?;
            let begun = Instant::now();
            let (touched, kept) = reading.change().await?;
            all += begun.elapsed();
            longest = longest.max(kept);
            let begun = Instant::now();
            let kernel = KernelChange::of(&touched);
            longest = longest.max(begun.elapsed());
            ensure!(kernel.protect.len() == self.size.pods as usize);
            drop((kernel, touched));
            tables.push(reading);
        }
        let bytes = (resident()? - before) / TABLES as f64;
        let entry = bytes / f64::from(self.size.pods);
        self.figures.tell_mib("table_mib", "an agent's table", bytes);
        self.figures.tell("table_entry_bytes", "of that, an entry", entry, "B");
        self.figures.tell_ms("table_ms", "an agent reads all of it", all / TABLES as u32);
        let what = "the longest that it keeps a thread at once";
        self.figures.tell_ms("table_kept_ms", what, longest);
        Ok(())
    }

    /// An agent of no node.
    fn observer(&self) -> Result<Reading> {
        Reading::new(self.feed.begin("observer", agent(u32::MAX), None, Some(HashSet::new()))?)
    }

    /// Pods of the first generation go, and those of the next are there.
    fn replace(&self, numbers: Range<u32>) {
        for number in numbers {
            let (gone, new) = (self.size.pod(number, 0).uid, self.size.pod(number, 1));
            self.feed.change(|cluster: &mut Cluster| {
                cluster.remove_pod(gone);
                cluster.set_pod(&new);
                cluster.observe(&new.node, &[new.uid], &[gone]);
            });
        }
    }

    fn per_agent(&self, bytes: f64) -> f64 {
        bytes / f64::from(self.size.agents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_small_cluster_goes_through_all_of_it() {
        let size = Size { pods: 600, agents: 20 };
        let figures = Simulation::new(size).unwrap().run().await.unwrap();
        let figures = figures.json(size)["figures"].clone();
        let value = |key: &str| figures[key]["value"].as_f64().unwrap();
        // An entry takes some bytes, and not thousands.
        for (key, least, most) in [
            ("change_bytes", 20.0, 1_000.0),
            ("rolling_bytes", 20.0, 1_000.0),
            ("snapshot_bytes", 600.0 * 20.0, 600.0 * 1_000.0),
        ] {
            let bytes = value(key);
            assert!((least..most).contains(&bytes), "{key}: {bytes}");
        }
        assert_eq!(value("change_all_bytes"), value("change_bytes") * 20.0);
    }
}
