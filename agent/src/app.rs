//! Puts the agent together, and takes it down again. The only place that builds things.

mod service_manager;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::sync::Arc;
use std::time::Instant;

use nix::fcntl::{Flock, FlockArg};
use rustls::crypto::CryptoProvider;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::admin::{AgentInfo, Server};
use crate::capture::Supervisor;
use crate::check::{Level, requirements};
use crate::config::{Config, Instance};
use crate::flow::FlowIds;
use crate::identity::{EmbeddedCa, Identities, Snapshot, keep_renewed};
use crate::pipeline::{Credentials, Pipeline, Starter};
use crate::policy::{Policy, PolicyError, SharedPolicy};
use crate::spiffe::Authorizer;
use crate::sys::hardening;
use crate::telemetry::AgentCounters;
use crate::tls::{Contexts, crypto_provider};

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
    #[error("the supervisor has ended, which it never should; please report this")]
    SupervisorEnded,
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Ca(#[from] crate::identity::CaError),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error(transparent)]
    Capture(#[from] crate::capture::CaptureError),
}

impl StartError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
}

/// Runs the agent until SIGTERM or SIGINT, then lets live flows finish within the drain timeout.
///
/// # Errors
/// Mostly from starting; then nothing that this start has made stays behind.
pub fn run(config: Config) -> Result<(), StartError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(StartError::NotRoot);
    }
    hardening::apply()
        .map_err(|errno| StartError::io("cannot harden the process")(errno.into()))?;
    if let Some(lack) = requirements().into_iter().find(|finding| finding.level == Level::Error) {
        return Err(StartError::Host { found: lack.found, advice: lack.advice });
    }
    let _lock = lock(&config.instance)?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(StartError::io("cannot start the runtime"))?
        .block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), StartError> {
    let started = Instant::now();
    let mut terminate =
        signal(SignalKind::terminate()).map_err(StartError::io("cannot wait for signals"))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(StartError::io("cannot wait for signals"))?;

    let provider = Arc::new(crypto_provider());
    let ca = EmbeddedCa::load(
        &config.identity.ca_dir,
        &config.trust_domain,
        config.identity.svid_ttl,
        provider.clone(),
    )?;
    let policy = Arc::new(Policy::new(&config));
    let identities = issue_identities(&config, &policy, Arc::new(ca), &provider)?;
    let pipeline = Arc::new(Pipeline {
        policy,
        identities: identities.clone(),
        counters: Arc::new(AgentCounters::default()),
        timeouts: config.timeouts,
        ids: FlowIds::new(run_number(&provider)),
        tasks: TaskTracker::new(),
    });
    // Before anything is attached: once it is, nothing that may fail should follow.
    let admin = Server::bind(&config.instance.admin_socket())
        .map_err(StartError::io("cannot open the admin socket"))?;
    let starter = Arc::new(Starter(pipeline.clone()));
    let supervisor = Supervisor::start(&config, pipeline.policy.clone(), starter)?;
    let info = AgentInfo {
        node: config.node.clone(),
        instance: config.instance.name.clone(),
        started,
        counters: pipeline.counters.clone(),
        identities,
        tables: supervisor.tables(),
    };
    let (questions, answers) = mpsc::channel(4);
    let mut supervising = tokio::spawn(supervisor.run(answers));
    let serving = tokio::spawn(admin.serve(info, questions));
    tracing::info!(node = config.node, instance = config.instance.name, "ready");
    service_manager::notify("READY=1");

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        // Without it nothing is looked after: better to be started anew.
        _ = &mut supervising => return Err(StartError::SupervisorEnded),
    }
    tracing::info!(flows = pipeline.counters.flows(), "draining");
    service_manager::notify("STOPPING=1");
    // With the admin server goes the last sender of questions, and so the supervisor ends.
    serving.abort();
    let _ = supervising.await;
    pipeline.tasks.close();
    if tokio::time::timeout(config.timeouts.drain, pipeline.tasks.wait()).await.is_err() {
        tracing::warn!(flows = pipeline.counters.flows(), "drain timeout; live flows are reset");
    }
    tracing::info!("stopped; protected connections are refused until an agent runs again");
    Ok(())
}

/// Issues each workload's first SVID and keeps it renewed from then on.
fn issue_identities(
    config: &Config,
    policy: &SharedPolicy,
    ca: Arc<EmbeddedCa>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<Identities<Credentials>>, StartError> {
    let mut first = Vec::new();
    for workload in &config.workloads {
        let callers = policy.callers(workload.id)?;
        let snapshot = ca.issue(&workload.spiffe_id)?;
        first.push((workload.id, callers, snapshot));
    }
    let ready = first
        .iter()
        .map(|(id, callers, snapshot)| Ok((*id, credentials(provider, callers, snapshot)?)))
        .collect::<Result<Vec<_>, StartError>>()?;
    let identities = Arc::new(Identities::new(ready));
    for (workload, callers, snapshot) in first {
        let (identities, provider) = (identities.clone(), provider.clone());
        let random = provider.secure_random;
        let svid = snapshot.svid;
        tokio::spawn(keep_renewed(ca.clone(), svid, random, move |snapshot| {
            match credentials(&provider, &callers, &snapshot) {
                Ok(value) => identities.publish(workload, value),
                Err(error) => tracing::error!(%error, "renewed SVID cannot be used"),
            }
        }));
    }
    Ok(identities)
}

/// What policy says about callers and identity about the workload, ready for the tls stage.
fn credentials(
    provider: &Arc<CryptoProvider>,
    callers: &Authorizer,
    snapshot: &Snapshot,
) -> Result<Credentials, StartError> {
    let contexts = Contexts::new(
        provider.clone(),
        snapshot.svid.key.clone(),
        snapshot.bundle.clone(),
        callers.clone(),
    )?;
    Ok(Credentials { svid: snapshot.svid.clone(), contexts })
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

/// Tells this run's flow ids from those of other runs.
fn run_number(provider: &CryptoProvider) -> u32 {
    let mut bytes = [0; 4];
    match provider.secure_random.fill(&mut bytes) {
        Ok(()) => u32::from_ne_bytes(bytes),
        Err(_) => std::process::id(),
    }
}
