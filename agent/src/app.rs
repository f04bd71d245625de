//! Puts the agent together, and takes it down again. The only place that builds things.

mod claim;
mod error;
mod following;
mod lock;
mod running;
mod service_manager;
mod told;
mod upkeep;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rustls::crypto::{CryptoProvider, SecureRandom};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, AgentInfo, Planes, Threads};
use crate::capture::{Maps, Prepared, Processes, Supervisor};
use crate::check::{Level, requirements};
use crate::config::{Config, Instance};
use crate::control::{Control, Keeper, Observing, Reread};
use crate::flow::FlowIds;
use crate::gate::{Gate, GateKind, GateSettings, PodStates};
use crate::gatekeeping::Gatekeeping;
use crate::handover::{self, FlowResumer, TakeOver, Yielded};
use crate::limits::Quotas;
use crate::metrics::Registry;
use crate::peer::crypto_provider;
use crate::pipeline::{FlowHandler, Pipeline};
use crate::sessions::IdleSessions;
use crate::sys::own_program::OwnProgram;
use crate::sys::{descriptors, hardening, heap, owner};
use crate::telemetry::AgentCounters;
use crate::troubles::tell_troubles;
use crate::workers::Workers;

use claim::{Claim, await_identities, take_over, welcome};
pub use error::StartError;
use following::Following;
pub use lock::Lock;
use running::Running;
use told::Told;
use upkeep::{reload_on, tidy};

/// Runs the agent until SIGTERM or SIGINT, then lets live flows finish within the drain timeout. `path` is
/// where `config` was read, and is read again at SIGHUP. `takes_over` from an agent of the instance that runs.
///
/// # Errors
/// Mostly from starting; then nothing that this start has made stays behind.
pub fn run(path: &Path, config: Config, takes_over: bool) -> Result<(), StartError> {
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
    // For everything but flows.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(StartError::io("cannot start the runtime"))?
        .block_on(serve(path, config, takes_over))
}

async fn serve(path: &Path, config: Config, takes_over: bool) -> Result<(), StartError> {
    let started = Instant::now();
    let program = OwnProgram::find();
    let program = program.map_err(StartError::io("cannot tell which program this is"))?;
    let mut told = Told::new()?;
    let hangup = signal(SignalKind::hangup()).map_err(StartError::io("cannot wait for signals"))?;
    let claim = tokio::select! {
        claim = Claim::make(&config.instance, takes_over) => claim?,
        () = told.wait() => return Ok(()),
    };

    let provider = Arc::new(crypto_provider());
    let processes = Arc::new(Processes::default());
    let reread = reread(path, &config);
    let mut prepared = Prepared::begin(&config.instance.name)?;
    let (settings, ids) = (config.control(), prepared.ids());
    let control = Control::start(settings, reread, ids, processes.clone(), provider.clone());
    let mut control = control.map_err(StartError::Source)?;
    control.await_first_messages().await;
    let (published, found) = (control.published(), control.found_views());
    let desired = control.desired();
    let welcome = welcome(control.desired(), published.identities.clone());
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
        moves: Default::default(),
        places: Default::default(),
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
    control.register(&mut metrics)?;
    let (socket, calls_at) = (config.instance.admin_socket(), config.instance.handover_socket());
    let cannot_open = |what, path: &Path| {
        StartError::io(format!("cannot open the {what} socket {}", path.display()))
    };
    let admin = admin::PreparedServer::new(&socket).map_err(cannot_open("admin", &socket))?;
    let calling = handover::PreparedServer::new(&calls_at);
    let calling = calling.map_err(cannot_open("hand-over", &calls_at))?;
    // A predecessor has done all that it does for the node until here, and does not any more.
    let (lock, yielded) = match claim {
        Claim::Held(lock) => (lock, None),
        Claim::Called(predecessor) => {
            // First: it is asked to yield only if the kernel takes the programs, and nobody has changed his mind.
            prepared.load()?;
            await_identities(&predecessor, &mut control, &mut told).await?;
            if told.is_told().await {
                return Ok(());
            }
            take_over(predecessor, &config.instance).await?
        }
    };
    prepared.set_predecessor(yielded.is_some());
    // Before anything is captured: what the kernel is told first is what is known.
    let following = config
        .controller
        .clone()
        .map(|link| Following::prepare(link, &config, &published, &provider));
    let handler = Arc::new(FlowHandler(pipeline.clone()));
    let resumer = handler.clone();
    let supervisor = Supervisor::start(
        prepared,
        &config.capture,
        config.pods.clone(),
        control.wanted(),
        &published.directory.load(),
        processes,
        handler,
    )?;
    let maps = supervisor.maps();
    maps.register(&mut metrics)?;
    let (supervisor_requests, supervisor_inbox) = mpsc::channel(4);
    let keeping = |states| Gatekeeping {
        states,
        desired,
        identities: published.identities.clone(),
        supervisor: supervisor_requests.downgrade(),
    };
    let gate = open_gate(&config, keeping, provider.secure_random, &mut metrics)?;
    let directory = following.as_ref().map(Following::views);
    if let Some(directory) = &directory {
        directory.register(&mut metrics)?;
    }
    let observing = Observing {
        desired: control.desired(),
        identities: published.identities.clone(),
        supervisor: supervisor_requests.downgrade(),
    };
    let keeper = Keeper::new(maps.clone(), published.directory, published.sessions);
    let link = following.as_ref().map(Following::link);
    let taken_over = yielded.as_ref().map(|yielded| Arc::new(yielded.begin()));
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
        taken_over: taken_over.clone(),
        handing_over: AtomicBool::new(false),
        program,
        has_service_manager: service_manager::is_there(),
    };
    let info = Arc::new(info);
    let (control_requests, control_inbox) = mpsc::channel(4);
    let mut writing = vec![tokio::spawn(reload_on(hangup, control_requests.downgrade()))];
    let following = following.map(|following| following.begin(observing, keeper));
    writing.extend(link.map(|link| {
        let supervisor = supervisor_requests.downgrade();
        tokio::spawn(tell_troubles(link, info.clone(), supervisor))
    }));
    let controlling = tokio::spawn(control.run(control_inbox, supervisor_requests.downgrade()));
    let caretaker = pipeline.clone();
    // On a thread for flows: the allocator keeps a cache for each thread that frees memory, and `tidy` reaches the caches of
    // these alone.
    let looking_after =
        pipeline.workers.next().spawn(async move { caretaker.idle.evict_expired().await });
    let tidying = tokio::spawn(tidy(pipeline.clone()));
    if yielded.is_some() {
        // Until here, the predecessor is better off without this agent if that is to end.
        if told.is_told().await {
            return Ok(());
        }
        supervisor.take_connections()?;
    }
    let supervisor_requested = supervisor_requests.downgrade();
    let supervising = tokio::spawn(supervisor.run(supervisor_inbox));
    let planes = Planes { supervisor: supervisor_requests, control: control_requests.clone() };
    let admin = admin.publish().map_err(cannot_open("admin", &socket))?;
    let serving = tokio::spawn(admin.serve(info.clone(), planes));
    let calling = calling.publish().map_err(cannot_open("hand-over", &calls_at))?;
    let (calls, successors) = mpsc::channel(1);
    let calling = tokio::spawn(calling.serve(welcome, calls));
    if let Some((yielded, taken_over)) = yielded.zip(taken_over) {
        begin_serving(yielded, taken_over, resumer, maps).await;
    }
    tracing::info!(node = config.node, instance = config.instance.name, "ready");
    service_manager::ready();
    let asked = pipeline.clone();
    let proving = tokio::spawn(service_manager::keep_proving(move || asked.workers.all_answer()));
    // Starting has left free memory in the cache of this thread, which only waits from now on.
    heap::give_back();
    let running = Running {
        drain: config.drain,
        lock,
        pipeline,
        info,
        supervisor: supervisor_requested,
        supervising,
        control: control_requests,
        controlling,
        serving,
        calling,
        successors,
        following,
        writing,
        upkeep: vec![looking_after, tidying],
        proving,
    };
    running.until_the_end(&mut told).await
}

/// Tells the predecessor that new connections come to this agent, and takes what it gives: flows that `resumer` can restore.
async fn begin_serving(
    yielded: Yielded,
    take_over: Arc<TakeOver>,
    resumer: Arc<dyn FlowResumer>,
    maps: Arc<Maps>,
) {
    if let Err(error) = yielded.serving().await {
        tracing::warn!(%error, "the agent that was to be taken over from is gone");
    }
    tracing::info!(
        pid = take_over.pid,
        version = take_over.version,
        "taken over from the agent before; new connections come to this one"
    );
    tokio::spawn(async move {
        yielded.take_flows(resumer, &take_over).await;
        if let Err(error) = maps.forget_predecessor() {
            tracing::warn!(%error, "entries of the agent before stay in the maps");
        }
    });
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

/// Reads the configuration again, which must differ from that at the start in nothing that takes a restart.
fn reread(path: &Path, config: &Config) -> Reread {
    let (path, first) = (path.to_owned(), config.clone());
    Box::new(move || {
        let new = Config::load(&path)?;
        first.check_reload(&new)?;
        Ok(new.control())
    })
}

/// Threads for flows: one for each core.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// A random number that distinguishes this run's flow ids from those of other runs.
fn run_number(provider: &CryptoProvider) -> u32 {
    let mut bytes = [0; 4];
    match provider.secure_random.fill(&mut bytes) {
        Ok(()) => u32::from_ne_bytes(bytes),
        Err(_) => std::process::id(),
    }
}
