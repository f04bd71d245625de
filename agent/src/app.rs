//! Puts the agent together, and takes it down again. The only place that builds things.

mod service_manager;

use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use rustls::crypto::{CryptoProvider, SecureRandom};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::admin::{AgentInfo, Planes, Server, Threads};
use crate::capture::{Prepared, Processes, Supervisor};
use crate::check::{Level, requirements};
use crate::config::{Config, Instance};
use crate::control::{
    Control, ControlRequest, DirectoryViews, Follower, FollowerSettings, Keeper, Memory, Observing,
    Reread,
};
use crate::controller_api::{Link, LinkSettings};
use crate::directory::Directory;
use crate::flow::FlowIds;
use crate::follow::{Backoff, Problem};
use crate::gate::{Gate, GateError, GateKind, GateSettings, PodStates};
use crate::gatekeeping::Gatekeeping;
use crate::limits::Quotas;
use crate::metrics::{Registry, RegistryError};
use crate::peer::crypto_provider;
use crate::pipeline::{FlowHandler, Pipeline};
use crate::published::Published;
use crate::services::{Catalogue, Node};
use crate::sessions::IdleSessions;
use crate::sys::{descriptors, hardening, heap, owner};
use crate::telemetry::AgentCounters;
use crate::troubles::tell_troubles;
use crate::workers::Workers;

/// How often memory that bursts of flows have left behind is given back.
const TIDY: Duration = Duration::from_secs(5);

/// Pauses between attempts to follow the directory. A new leader waits for agents, but not for long.
const FOLLOW_FIRST: Duration = Duration::from_millis(250);
const FOLLOW_LONGEST: Duration = Duration::from_secs(4);

/// Why the agent did not start, or stopped without being told to.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("sheath must run as root")]
    NotRoot,
    #[error("an agent of the instance `{0}` is already running")]
    AlreadyRunning(String),
    #[error("{found}; {advice}")]
    Host { found: String, advice: String },
    #[error("{what}: {error}")]
    Io { what: String, error: io::Error },
    #[error("{0} has ended, which it never should; please report this")]
    Ended(&'static str),
    /// A source of identities cannot be opened, or a workload gets no number.
    #[error("{0}")]
    Source(Problem),
    #[error(transparent)]
    Capture(#[from] crate::capture::CaptureError),
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error("{0}; please report this")]
    Metrics(#[from] RegistryError),
}

impl StartError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
}

/// Runs the agent until SIGTERM or SIGINT, then lets live flows finish within the drain timeout. `path` is
/// where `config` was read, and is read again at SIGHUP.
///
/// # Errors
/// Mostly from starting; then nothing that this start has made stays behind.
pub fn run(path: &Path, config: Config) -> Result<(), StartError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(StartError::NotRoot);
    }
    if let Some(lack) = requirements().into_iter().find(|finding| finding.level == Level::Error) {
        return Err(StartError::Host { found: lack.found, advice: lack.advice });
    }
    hardening::apply()
        .map_err(|errno| StartError::io("cannot harden the process")(errno.into()))?;
    room_to_start()?;
    if !owner::may_be_anybody() {
        tracing::warn!(
            "without CAP_SETUID and CAP_SETGID rules by user see the agent's connections as root's, and not as the \
             application's; give it both, as deploy/systemd/sheath.service does"
        );
    }
    let _lock = lock(&config.instance)?;
    // For everything but flows.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(StartError::io("cannot start the runtime"))?
        .block_on(serve(path, config))
}

async fn serve(path: &Path, config: Config) -> Result<(), StartError> {
    let started = Instant::now();
    let mut terminate =
        signal(SignalKind::terminate()).map_err(StartError::io("cannot wait for signals"))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(StartError::io("cannot wait for signals"))?;
    let hangup = signal(SignalKind::hangup()).map_err(StartError::io("cannot wait for signals"))?;

    let provider = Arc::new(crypto_provider());
    let processes = Arc::new(Processes::default());
    let reread = reread(path, &config);
    let prepared = Prepared::begin(&config.instance.name)?;
    let (settings, ids) = (config.control(), prepared.ids());
    let control = Control::start(settings, reread, ids, processes.clone(), provider.clone());
    let mut control = control.map_err(StartError::Source)?;
    control.await_first_messages().await;
    let (published, found) = (control.published(), control.found_views());
    let desired = control.desired();
    // Before anything is captured: what the kernel is told first is what is known.
    let following =
        config.controller.clone().map(|link| follow(link, &config, &published, &provider));
    let threads = threads();
    let pipeline = Arc::new(Pipeline {
        published: published.clone(),
        counters: Arc::new(AgentCounters::default()),
        quotas: Arc::new(Quotas::new(config.limits, threads)),
        idle: Arc::new(IdleSessions::new(config.reuse, published.sessions.clone())),
        timeouts: config.timeouts,
        ids: FlowIds::new(run_number(&provider)),
        workers: Workers::start(threads)
            .map_err(StartError::io("cannot start the threads for flows"))?,
        tasks: TaskTracker::new(),
        ending: CancellationToken::new(),
    });
    // Before anything is attached: once it is, nothing that may fail should follow.
    let policy = published.policy.clone();
    let mut metrics = Registry::new(move |workload| {
        policy.load().workload(workload).map(|workload| workload.name.clone())
    });
    pipeline.counters.register(&mut metrics)?;
    pipeline.quotas.register(&mut metrics)?;
    pipeline.idle.register(&mut metrics)?;
    control.verified().register(&mut metrics)?;
    let socket = config.instance.admin_socket();
    let admin = Server::bind(&socket)
        .map_err(StartError::io(format!("cannot open the admin socket {}", socket.display())))?;
    let handler = Arc::new(FlowHandler(pipeline.clone()));
    let supervisor = Supervisor::start(
        prepared,
        &config.capture,
        config.pods.clone(),
        control.wanted(),
        &published.directory.load(),
        processes,
        handler,
    )?;
    supervisor.maps().register(&mut metrics)?;
    let (supervisor_requests, supervisor_inbox) = mpsc::channel(4);
    let keeping = |states| Gatekeeping {
        states,
        desired,
        identities: published.identities.clone(),
        supervisor: supervisor_requests.downgrade(),
    };
    let gate = open_gate(&config, keeping, provider.secure_random, &mut metrics)?;
    let directory = following.as_ref().map(|following| following.views.clone());
    if let Some(directory) = &directory {
        directory.register(&mut metrics)?;
    }
    let observing = Observing {
        desired: control.desired(),
        identities: published.identities.clone(),
        supervisor: supervisor_requests.downgrade(),
    };
    let keeper = Keeper::new(supervisor.maps(), published.directory, published.sessions);
    let link = following.as_ref().map(|following| following.settings.link.clone());
    let following = following.map(|following| following.begin(observing, keeper));
    let info = AgentInfo {
        node: config.node.clone(),
        instance: config.instance.name.clone(),
        started,
        identities: published.identities,
        found,
        gate,
        directory,
        counters: pipeline.counters.clone(),
        metrics,
        threads: threads_of(pipeline.clone()),
    };
    let info = Arc::new(info);
    let telling = link.map(|link| {
        let supervisor = supervisor_requests.downgrade();
        AbortOnDropHandle::new(tokio::spawn(tell_troubles(link, info.clone(), supervisor)))
    });
    let (control_requests, control_inbox) = mpsc::channel(4);
    let mut controlling = tokio::spawn(control.run(control_inbox, supervisor_requests.downgrade()));
    let caretaker = pipeline.clone();
    // On a thread for flows: the allocator keeps a cache for each thread that frees memory, and `tidy` reaches the caches of
    // these alone.
    let looking_after =
        pipeline.workers.next().spawn(async move { caretaker.idle.evict_expired().await });
    let tidying = tokio::spawn(tidy(pipeline.clone()));
    let mut supervising = tokio::spawn(supervisor.run(supervisor_inbox));
    let reloading = tokio::spawn(reload_on(hangup, control_requests.downgrade()));
    let draining = control_requests.clone();
    let planes = Planes { supervisor: supervisor_requests, control: control_requests };
    let serving = tokio::spawn(admin.serve(info, planes));
    tracing::info!(node = config.node, instance = config.instance.name, "ready");
    service_manager::ready();
    let asked = pipeline.clone();
    let proving = tokio::spawn(service_manager::keep_proving(move || asked.workers.all_answer()));
    // Starting has left free memory in the cache of this thread, which only waits from now on.
    heap::give_back();

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        // Without it, capture is not repaired: it is better to be started anew.
        _ = &mut supervising => return Err(StartError::Ended("the supervisor")),
        _ = &mut controlling => return Err(StartError::Ended("the control plane")),
    }
    tracing::info!(flows = pipeline.counters.flows(), "draining");
    service_manager::stopping();
    // The admin server has the last sender of requests to the supervisor. Without it the supervisor ends. The control plane
    // stays: live flows must be judged until they end.
    reloading.abort();
    serving.abort();
    drop((following, telling));
    let _ = supervising.await;
    pipeline.ending.cancel();
    looking_after.abort();
    tidying.abort();
    pipeline.idle.clear();
    pipeline.tasks.close();
    if tokio::time::timeout(config.drain, pipeline.tasks.wait()).await.is_err() {
        tracing::warn!(flows = pipeline.counters.flows(), "drain timeout; live flows are reset");
    }
    drop(draining);
    proving.abort();
    tracing::info!("stopped; protected connections are refused until an agent runs again");
    Ok(())
}

/// The directory, as it was known last, and what it takes to follow it.
struct Following {
    settings: FollowerSettings,
    views: DirectoryViews,
}

/// Puts the directory in force that an earlier run has known; without one, every address is one that the controller has to tell of.
fn follow(
    link: LinkSettings,
    config: &Config,
    published: &Published,
    provider: &Arc<CryptoProvider>,
) -> Following {
    let trust_domain = link.spiffe_id.trust_domain().clone();
    let memory = Memory::new(config.instance.directory_state(), trust_domain.clone());
    let mut catalogue = Catalogue::new(Node::default(), published.services.services());
    let known = memory.recall().map(|(known, services)| {
        catalogue.apply(services);
        known.complete_with(&Directory::default(), catalogue.all_ports()).0
    });
    published.directory.publish(known.unwrap_or_else(Directory::unknown));
    let views = DirectoryViews::new(published.directory.clone());
    let link = Arc::new(Link::new(link, provider.clone()));
    let backoff = Backoff::between(provider.secure_random, FOLLOW_FIRST, FOLLOW_LONGEST);
    Following {
        settings: FollowerSettings { link, trust_domain, memory, backoff, catalogue },
        views,
    }
}

impl Following {
    /// Follows until the result is dropped.
    fn begin(self, observing: Observing, keeper: Keeper) -> [AbortOnDropHandle<()>; 2] {
        let (told, observed) = watch::channel(None);
        let follower = Follower::new(self.settings, keeper, self.views);
        let tasks = [tokio::spawn(observing.run(told)), tokio::spawn(follower.run(observed))];
        tasks.map(AbortOnDropHandle::new)
    }
}

/// Has the container runtime ask before pods start, where that is wanted.
///
/// # Errors
/// If the gate's socket cannot be opened, or the name of a metric is taken.
fn open_gate(
    config: &Config,
    keeping: impl FnOnce(Arc<PodStates>) -> Gatekeeping,
    random: &'static dyn SecureRandom,
    metrics: &mut Registry,
) -> Result<Option<Gate>, StartError> {
    let wanted = |settings: &&GateSettings| settings.gate != GateKind::None;
    let Some(settings) = config.gate.as_ref().filter(wanted) else {
        return Ok(None);
    };
    let states = Arc::new(PodStates::new(settings));
    states.register(metrics)?;
    tokio::spawn(keeping(states.clone()).run());
    let Instance { name, .. } = &config.instance;
    Ok(Some(Gate::start(settings, name, &config.instance.gate_socket(), states, random)?))
}

fn threads_of(pipeline: Arc<Pipeline>) -> Threads {
    Threads::new(move || Box::pin(pipeline.workers.all_answer()))
}

/// Checks that the runtime can open the files that it needs: without them it panics.
fn room_to_start() -> Result<(), StartError> {
    const ROOM: usize = 32;
    descriptors::can_open(ROOM).map_err(StartError::io(format!(
        "cannot open the {ROOM} files that starting takes; see RLIMIT_NOFILE (LimitNOFILE= in a unit)"
    )))
}

/// Gives memory back that bursts of flows have left, and forgets workloads that are gone.
async fn tidy(pipeline: Arc<Pipeline>) {
    loop {
        tokio::time::sleep(TIDY).await;
        pipeline.quotas.trim();
        forget_workloads(&pipeline);
        heap::give_back();
        pipeline.workers.each(heap::give_back);
    }
}

/// Forgets what was counted for workloads that are gone.
fn forget_workloads(pipeline: &Pipeline) {
    let policy = pipeline.published.policy.load();
    let is_living = |workload| policy.workload(workload).is_some();
    pipeline.quotas.retain(is_living);
    pipeline.counters.retain(is_living);
}

/// Reads the configuration again, which must differ from that at the start in nothing that takes a restart.
fn reread(path: &Path, config: &Config) -> Reread {
    let (path, first) = (path.to_owned(), config.clone());
    Box::new(move || {
        let new = Config::load(&path)?;
        first.check_reload(&new)?;
        Ok(new.control())
    })
}

/// Has the configuration read again at every SIGHUP.
async fn reload_on(mut hangup: Signal, control: mpsc::WeakSender<ControlRequest>) {
    while hangup.recv().await.is_some() {
        let (answer, reloaded) = oneshot::channel();
        let Some(control) = control.upgrade() else {
            return;
        };
        if control.send(ControlRequest::Reload(answer)).await.is_err() {
            return;
        }
        drop(control);
        if let Ok(Err(reason)) = reloaded.await {
            tracing::error!(%reason, "configuration not reloaded; the previous one stays in force");
        }
    }
}

/// Threads for flows: one for each core.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Takes the lock of an instance, for as long as the result lives. Makes its directory if need be.
///
/// # Errors
/// [`StartError::AlreadyRunning`] if another process has it.
pub fn lock(instance: &Instance) -> Result<Flock<File>, StartError> {
    let directory = instance.directory();
    let cannot = |what: &str| StartError::io(format!("cannot {what} {}", directory.display()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(cannot("make"))?;
    let metadata = fs::metadata(&directory).map_err(cannot("look at"))?;
    if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
        return Err(cannot("trust")(io::Error::other(
            "it must belong to root and be writable by nobody else",
        )));
    }
    let file = File::create(instance.lock()).map_err(cannot("lock"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| StartError::AlreadyRunning(instance.name.clone()))
}

/// A random number that distinguishes this run's flow ids from those of other runs.
fn run_number(provider: &CryptoProvider) -> u32 {
    let mut bytes = [0; 4];
    match provider.secure_random.fill(&mut bytes) {
        Ok(()) => u32::from_ne_bytes(bytes),
        Err(_) => std::process::id(),
    }
}
