//! Puts the controller together, and takes it down again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::authority::{Authority, Keeper};
use super::caller::Doorkeeper;
use super::counters::Counters;
use super::directory::{ClusterRules, Directories};
use super::leader::Candidate;
use super::pages::Answers;
use super::pods::Pods;
use super::presence::Presence;
use super::readiness::Readiness;
use super::settings::NodeRanges;
use super::signing::{Signing, SigningLimits};
use super::tokens::Tokens;
use super::troubles::Telling;
use super::watches::{Objects, Watches};
use super::{Settings, pages, server};
use crate::kubernetes::{ClientError, Connection, Rules};
use crate::metrics::{Registry, RegistryError};
use crate::peer::crypto_provider;
use crate::sys::hardening;

/// How long calls may go on after SIGTERM. Streams do not end by themselves.
const DRAIN: Duration = Duration::from_secs(2);

/// Why the controller did not start, or stopped without being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{what}: {error}")]
    Io { what: String, error: io::Error },
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("no TLS server can be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error(transparent)]
    Metrics(#[from] RegistryError),
    #[error("the server has ended: {0}")]
    Server(#[from] tonic::transport::Error),
    #[error("{0} has ended, which it never should; please report this")]
    Ended(&'static str),
}

/// Runs the controller until SIGTERM or SIGINT.
///
/// # Errors
/// If it cannot start, or cannot go on.
pub fn run(settings: Settings) -> Result<(), RunError> {
    hardening::of_unprivileged().map_err(|errno| RunError::Io {
        what: "cannot harden the process".to_owned(),
        error: errno.into(),
    })?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| RunError::Io { what: "cannot start the runtime".to_owned(), error })?
        .block_on(serve(settings))
}

async fn serve(settings: Settings) -> Result<(), RunError> {
    let signals = |error| RunError::Io { what: "cannot wait for signals".to_owned(), error };
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let provider = Arc::new(crypto_provider());
    // Before it stands for election: by its address it is told from all others.
    let listen = settings.listen;
    let listening = |error| RunError::Io { what: format!("cannot listen on {listen}"), error };
    let listener = TcpListener::bind(listen).await.map_err(listening)?;
    let mut advertise = settings.advertise;
    if advertise.port() == 0 {
        advertise.set_port(listener.local_addr().map_err(listening)?.port());
    }
    let Connection { client, contact } = settings.access.connect().await?;
    let ending = CancellationToken::new();
    let candidate = Candidate::new(client.clone(), &settings.namespace, &settings.name, advertise);
    let leadership = candidate.leadership();
    let (counters, watches) = (Arc::new(Counters::default()), Arc::new(Watches::default()));
    let authority =
        Arc::new(Authority::new(settings.own.clone(), settings.terms, provider.clone()));
    let keeper = Keeper::new(
        authority.clone(),
        client.clone(),
        &settings.namespace,
        leadership.clone(),
        settings.provided_ca,
    );
    let pods = Arc::new(Pods::new(client.clone(), watches.of(Objects::Pods).clone()));
    let agents = &settings.agent_service_account;
    let presence = Arc::new(Presence::new(pods.clone(), agents));
    let rules = ClusterRules {
        trust_domain: settings.own.trust_domain().clone(),
        pods: Rules {
            system_namespaces: settings.system_namespaces.iter().cloned().collect(),
            ..Rules::default()
        },
        ranges: settings.cluster_ranges.clone(),
        service_ranges: settings.service_ranges.clone(),
        nodes_own_ranges: settings.node_ranges == NodeRanges::Own,
    };
    let directories =
        Directories::new(rules, leadership.clone(), presence.clone(), counters.clone());
    let readiness = Arc::new(Readiness {
        leadership: leadership.clone(),
        authority: authority.clone(),
        directories: directories.clone(),
        contact,
    });
    let mut registry = Registry::new(|_| None);
    counters.register(&mut registry)?;
    watches.register(&mut registry)?;
    readiness.register(&mut registry)?;
    let pages = pages::listeners(
        settings.health.map(|at| (at, readiness)),
        settings.metrics.map(|at| (at, Arc::new(registry))),
    );
    let pages = bound(pages).await?;
    let doorkeeper = Doorkeeper {
        leadership: leadership.clone(),
        tokens: Arc::new(Tokens::new(client.clone(), agents, counters.clone())),
        presence: presence.clone(),
        counters: counters.clone(),
    };
    let telling = Telling::new(client.clone(), counters.clone());
    let signing = Signing {
        authority: authority.clone(),
        pods: pods.clone(),
        presence,
        leadership,
        system_namespaces: settings.system_namespaces,
        limits: SigningLimits::default(),
        counters,
    };
    let services = Routes::new(signing.into_service())
        .add_service(directories.service())
        .add_service(telling.into_service());
    let tls = server::tls(provider.clone(), authority)?;
    tracing::info!(name = settings.name, %listen, %advertise, id = %settings.own, "ready");
    let mut answering = JoinSet::new();
    for (listener, at, answers) in pages {
        tracing::info!(listen = %at, "answers about health and metrics");
        answering.spawn(pages::serve(listener, answers));
    }

    let random = provider.secure_random;
    let electing = tokio::spawn(candidate.run(ending.clone()));
    let mut keeping = tokio::spawn(keeper.run());
    let mut watching = tokio::spawn(pods.clone().follow(random));
    let mut telling = tokio::spawn(directories.run(client, pods, watches, random));
    let serving = server::serve(listener, tls, doorkeeper, services, ending.cancelled());
    tokio::pin!(serving);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        served = &mut serving => return served.map_err(RunError::Server),
        _ = &mut keeping => return Err(RunError::Ended("the keeper of the CA")),
        _ = &mut telling => return Err(RunError::Ended("the directory")),
        _ = &mut watching => return Err(RunError::Ended("the watch of pods")),
    }
    // No new calls; then the Lease is given back, and another replica leads.
    ending.cancel();
    let _ = electing.await;
    let _ = tokio::time::timeout(DRAIN, serving).await;
    keeping.abort();
    watching.abort();
    telling.abort();
    tracing::info!("stopped");
    Ok(())
}

/// Listens for those who ask about health and metrics.
async fn bound(
    pages: Vec<(SocketAddr, Answers)>,
) -> Result<Vec<(TcpListener, SocketAddr, Answers)>, RunError> {
    let mut bound = Vec::new();
    for (at, answers) in pages {
        let failed = |error| RunError::Io {
            what: format!("cannot listen on {at} for health and metrics"),
            error,
        };
        let listener = TcpListener::bind(at).await.map_err(failed)?;
        let at = listener.local_addr().map_err(failed)?;
        bound.push((listener, at, answers));
    }
    Ok(bound)
}
