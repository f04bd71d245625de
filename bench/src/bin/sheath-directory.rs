//! The controller's directory at full size, in one process: all pods, and a stream for each node's agent. Tells how many bytes a
//! change and all of it take, how much memory on both sides, and for how long a thread is kept.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use serde_json::json;
use sheath::controller::directory::{
    Cluster, ClusterRules, Feed, Follower, Limits, Listed, answer, length,
};
use sheath::directory::{Directory, KernelChange, Read, Reader, Touched};
use sheath::kubernetes::{Lifetime, Namespace, Pod, Protection, Rules, Wish};
use sheath_common::pod_uid::PodUid;
use tabwriter::TabWriter;

/// Simulate the directory of a large cluster
#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 100_000)]
    pods: u32,
    #[arg(long, default_value_t = 5_000)]
    agents: u32,
    /// What is written to stdout at the end
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

const NAMESPACES: u32 = 500;
const ACCOUNTS: u32 = 4;
const TRUST_DOMAIN: &str = "cluster.example.org";

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A figure, with its unit.
struct Figure {
    key: &'static str,
    what: &'static str,
    value: f64,
    unit: &'static str,
}

fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = runtime.block_on(simulate(options))?;
    match options.output {
        Output::Json => {
            let all = figures.iter().map(|figure| {
                (figure.key.to_owned(), json!({"value": figure.value, "unit": figure.unit}))
            });
            let all: serde_json::Map<_, _> = all.collect();
            let document = json!({"pods": options.pods, "agents": options.agents, "figures": all});
            println!("{document:#}");
        }
        Output::Text => {
            let mut table = TabWriter::new(std::io::stdout().lock());
            writeln!(table, "{} pods, {} agents\t\t", options.pods, options.agents)?;
            for Figure { what, value, unit, .. } in &figures {
                let digits = if value.fract() == 0.0 { 0 } else { 2 };
                writeln!(table, "{what}\t{value:.digits$}\t{unit}")?;
            }
            table.flush()?;
        }
    }
    Ok(())
}

fn node(number: u32, options: &Options) -> String {
    format!("node-{:05}.internal", number % options.agents)
}

fn pod(number: u32, generation: u32, options: &Options) -> Pod {
    let mut uid = [0x5a; 16];
    uid[..4].copy_from_slice(&number.to_be_bytes());
    uid[4..8].copy_from_slice(&generation.to_be_bytes());
    let address = IpAddr::from((0x0a00_0000 + number).to_be_bytes());
    let namespace = number % NAMESPACES;
    Pod {
        uid: PodUid::from_bytes(uid),
        namespace: format!("team-{namespace}").into(),
        name: format!("service-{number}-{generation}").into(),
        service_account: format!("account-{}", number / NAMESPACES % ACCOUNTS).into(),
        node: node(number, options).into(),
        addresses: [address].into(),
        host_network: false,
        is_mirror: false,
        runtime_class: None,
        wish: Wish::Unsaid,
        lifetime: Lifetime::Living,
        probe_ports: Default::default(),
    }
}

/// The pod of a node's agent.
fn agent(number: u32) -> PodUid {
    PodUid::from_bytes(u128::from(number).to_be_bytes())
}

/// Bytes that the process has resident.
fn resident() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = text.split(' ').nth(1).context("statm")?.parse()?;
    Ok(pages * 4096.0)
}

/// The longest time that a thread of the runtime was kept from a task that is due every millisecond.
struct Stall {
    longest: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

impl Stall {
    fn watch() -> Self {
        let longest = Arc::new(AtomicU64::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let (seen, end) = (longest.clone(), ended.clone());
        tokio::spawn(async move {
            while !end.load(Ordering::Relaxed) {
                let due = Instant::now() + Duration::from_millis(1);
                tokio::time::sleep_until(due.into()).await;
                let late = Instant::now().saturating_duration_since(due).as_micros() as u64;
                seen.fetch_max(late, Ordering::Relaxed);
            }
        });
        Self { longest, ended }
    }

    fn milliseconds(self) -> f64 {
        self.ended.store(true, Ordering::Relaxed);
        self.longest.load(Ordering::Relaxed) as f64 / 1000.0
    }
}

/// All agents, as far as their streams go.
struct Agents {
    bytes: Arc<AtomicU64>,
    messages: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Agents {
    fn begin(followers: Vec<Follower>) -> Self {
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

    /// Waits until so many messages have been read since the last time. Returns their bytes.
    async fn have_read(&self, messages: u64) -> Result<u64> {
        let limit = Instant::now() + Duration::from_secs(120);
        while self.messages.load(Ordering::Relaxed) < messages {
            ensure!(Instant::now() < limit, "agents do not read");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.messages.store(0, Ordering::Relaxed);
        Ok(self.bytes.swap(0, Ordering::Relaxed))
    }
}

/// One agent that reads what it is told.
struct Reading {
    follower: Follower,
    reader: Reader,
    known: Directory,
}

impl Reading {
    fn new(follower: Follower) -> Result<Self> {
        let reader = Reader::new(TRUST_DOMAIN.parse()?);
        Ok(Self { follower, reader, known: Directory::default() })
    }

    /// Reads until the directory has changed. Returns what has changed, and how long a thread was kept by it at once.
    async fn change(&mut self) -> Result<(Touched, Duration)> {
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

async fn simulate(options: &Options) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut tell = |key, what, value: f64, unit| {
        eprintln!("{what}: {value:.2} {unit}");
        figures.push(Figure { key, what, value, unit });
    };
    let mebibytes = |bytes: f64| bytes / f64::from(1 << 20);
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1000.0;

    let before = resident()?;
    let rules = ClusterRules {
        trust_domain: TRUST_DOMAIN.parse()?,
        pods: Rules::default(),
        ranges: vec!["10.0.0.0/8".parse()?],
        service_ranges: Vec::new(),
        nodes_own_ranges: true,
    };
    let feed = Feed::new(1, rules, Limits::default());
    let begun = Instant::now();
    for number in 0..NAMESPACES {
        let name: Arc<str> = format!("team-{number}").into();
        let wish = Wish::Said(Protection::Require);
        let namespace = Namespace { name: name.clone(), wish };
        feed.change(|cluster| cluster.set_namespace(&name, Some(namespace)));
    }
    for number in 0..options.agents {
        feed.change(|cluster| cluster.set_node(&node(number, options), Vec::new()));
    }
    for number in 0..options.pods {
        let listed = pod(number, 0, options);
        feed.change(|cluster| cluster.set_pod(&listed));
    }
    Listed::ALL.into_iter().for_each(|what| feed.listed(what));
    tell("list_ms", "taking in the list of all pods", milliseconds(begun.elapsed()), "ms");

    // Every agent begins, and says that its pods are protected.
    let begun = Instant::now();
    let followers: Vec<_> = (0..options.agents)
        .map(|number| {
            let own = (number..options.pods).step_by(options.agents as usize);
            let protected: HashSet<_> =
                own.map(|pod_number| pod(pod_number, 0, options).uid).collect();
            let name = node(number, options);
            Ok(feed.begin(&name, agent(number), None, Some(protected))?)
        })
        .collect::<Result<_>>()?;
    tell("begin_ms", "all agents say what they see", milliseconds(begun.elapsed()), "ms");
    let begun = Instant::now();
    feed.flush(Instant::now());
    tell("first_ms", "the first working out of all entries", milliseconds(begun.elapsed()), "ms");
    tell("controller_mib", "controller, without streams", mebibytes(resident()? - before), "MiB");

    // All of it, to all of them at once.
    let begun = Instant::now();
    let mut one =
        Reading::new(feed.begin("observer", agent(u32::MAX), None, Some(HashSet::new()))?)?;
    one.change().await?;
    tell(
        "snapshot_ms",
        "a snapshot made, read and applied once",
        milliseconds(begun.elapsed()),
        "ms",
    );
    ensure!(one.known.len() == options.pods as usize, "{} entries", one.known.len());
    let pages = u64::from(options.pods.div_ceil(500));
    let (stall, begun) = (Stall::watch(), Instant::now());
    let agents = Agents::begin(followers);
    let bytes = agents.have_read(pages * u64::from(options.agents)).await?;
    tell("snapshot_bytes", "a snapshot", bytes as f64 / f64::from(options.agents), "B");
    tell(
        "snapshot_fanout_ms",
        "snapshots to all agents at once",
        milliseconds(begun.elapsed()),
        "ms",
    );
    tell("snapshot_stall_ms", "the longest stall meanwhile", stall.milliseconds(), "ms");
    tell(
        "controller_all_mib",
        "controller, with all streams",
        mebibytes(resident()? - before),
        "MiB",
    );

    // One pod is replaced by another: an entry changes.
    let running = feed.clone();
    tokio::spawn(async move { running.run().await });
    let change = |numbers: std::ops::Range<u32>, generation: u32| {
        let feed = feed.clone();
        let pods: Vec<_> = numbers
            .map(|number| {
                (pod(number, generation - 1, options).uid, pod(number, generation, options))
            })
            .collect();
        move || {
            for (gone, new) in pods {
                feed.change(|cluster: &mut Cluster| {
                    cluster.remove_pod(gone);
                    cluster.set_pod(&new);
                    cluster.observe(&new.node, &[new.uid], &[gone]);
                });
            }
        }
    };
    let stall = Stall::watch();
    let begun = Instant::now();
    change(0..1, 1)();
    let bytes = agents.have_read(options.agents.into()).await?;
    tell(
        "change_bytes",
        "a change of one pod, per agent",
        bytes as f64 / f64::from(options.agents),
        "B",
    );
    tell("change_all_bytes", "a change of one pod, for all", bytes as f64, "B");
    tell("change_ms", "from the change to the last agent", milliseconds(begun.elapsed()), "ms");
    tell("change_stall_ms", "the longest stall meanwhile", stall.milliseconds(), "ms");
    let (touched, kept) = one.change().await?;
    ensure!(touched.entries.len() == 1);
    tell("apply_ms", "an agent applies it", milliseconds(kept), "ms");

    // A rolling update: pods are replaced, 100 at a time.
    let rolled = 5_000.min(options.pods / 2);
    let (stall, begun) = (Stall::watch(), Instant::now());
    for first in (1..rolled).step_by(100) {
        change(first..first + 100, 1)();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut longest = Duration::ZERO;
    let mut seen = 0;
    while seen < rolled as usize / 100 * 100 - 100 {
        let (touched, kept) = one.change().await?;
        seen += touched.entries.len();
        longest = longest.max(kept);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let bytes = agents.bytes.swap(0, Ordering::Relaxed) as f64;
    let per_change = bytes / f64::from(options.agents) / seen as f64;
    tell("rolling_bytes", "a change in a rolling update (1000 pods/s), per agent", per_change, "B");
    tell("rolling_ms", "the rolling update of these pods", milliseconds(begun.elapsed()), "ms");
    tell("rolling_stall_ms", "the longest stall meanwhile", stall.milliseconds(), "ms");
    tell(
        "rolling_apply_ms",
        "the longest that an agent applies one message",
        milliseconds(longest),
        "ms",
    );
    tell(
        "history_mib",
        "changes that the controller keeps",
        mebibytes(feed.status().history_bytes as f64),
        "MiB",
    );

    // Tables of agents.
    const TABLES: usize = 4;
    let before = resident()?;
    let mut tables = Vec::new();
    let (mut longest, mut all) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..TABLES {
        let mut reading =
            Reading::new(feed.begin("observer", agent(u32::MAX), None, Some(HashSet::new()))?)?;
        let begun = Instant::now();
        let (touched, kept) = reading.change().await?;
        all += begun.elapsed();
        longest = longest.max(kept);
        let begun = Instant::now();
        let kernel = KernelChange::of(&touched);
        longest = longest.max(begun.elapsed());
        ensure!(kernel.protect.len() == options.pods as usize);
        drop((kernel, touched));
        tables.push(reading);
    }
    let bytes = (resident()? - before) / TABLES as f64;
    tell("table_mib", "an agent's table", mebibytes(bytes), "MiB");
    tell("table_entry_bytes", "of that, an entry", bytes / f64::from(options.pods), "B");
    tell("table_ms", "an agent reads all of it", milliseconds(all) / TABLES as f64, "ms");
    tell(
        "table_kept_ms",
        "the longest that it keeps a thread at once",
        milliseconds(longest),
        "ms",
    );
    agents.tasks.iter().for_each(|task| task.abort());
    Ok(figures)
}
