//! Identities from a SPIRE agent, through its Delegated Identity API. A workload is identified by selectors or by one of its
//! processes. The bundles of federated trust domains come with the SVID.

mod error;
mod received;
mod settings;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::SecureRandom;
use spiffe::transport::{Endpoint, connector};
use spire_api::pb::spire::api::agent::delegatedidentity::v1::delegated_identity_client::DelegatedIdentityClient;
use spire_api::pb::spire::api::agent::delegatedidentity::v1::{
    SubscribeToX509BundlesRequest, SubscribeToX509sviDsRequest,
};
use spire_api::pb::spire::api::types;
use tonic::transport::Channel;

use super::{Processes, Source, Update, Updates};
use crate::follow::{Backoff, Following, Unfollowed};
use crate::sys::pidfd::PidFd;

use error::{SpireError, Unreachable};

pub use settings::{NotASelector, SpireSelector, SpireSettings};

/// Time limit for an answer of the SPIRE agent.
const PATIENCE: Duration = Duration::from_secs(20);

/// Follows a workload through a SPIRE agent.
#[derive(Debug)]
struct SpireSource {
    socket: PathBuf,
    selectors: Vec<SpireSelector>,
    random: &'static dyn SecureRandom,
}

/// A request, and the process that it is about, if it names one.
struct Subject {
    request: SubscribeToX509sviDsRequest,
    process: Option<PidFd>,
}

impl Subject {
    /// False if the process has ended: its number may belong to another process now.
    fn is_itself(&self) -> bool {
        self.process.as_ref().is_none_or(PidFd::is_alive)
    }

    /// Waits until the process has ended; for ever without a process.
    async fn ended(&self) {
        match &self.process {
            Some(process) => process.ended().await,
            None => std::future::pending().await,
        }
    }
}

impl SpireSource {
    /// A request by selectors, or by a process as soon as there is one.
    async fn subject(&self, updates: &Updates) -> Result<Subject, Unfollowed> {
        if !self.selectors.is_empty() {
            let selector = |selector: &SpireSelector| types::Selector {
                r#type: selector.kind.clone(),
                value: selector.value.clone(),
            };
            let selectors = self.selectors.iter().map(selector).collect();
            return Ok(Subject {
                request: SubscribeToX509sviDsRequest { selectors, pid: 0 },
                process: None,
            });
        }
        let mut processes: Processes = updates.workload().processes.clone();
        let mut said = false;
        loop {
            let candidates = processes.borrow_and_update().clone();
            if let Some((pid, process)) = attestable(&candidates, updates) {
                return Ok(Subject {
                    request: SubscribeToX509sviDsRequest { selectors: Vec::new(), pid },
                    process: Some(process),
                });
            }
            if !std::mem::replace(&mut said, true) {
                updates.send(Update::Waiting(SpireError::NoProcess.into())).await?;
            }
            if processes.changed().await.is_err() {
                // Capture has ended, and the agent is about to.
                std::future::pending::<()>().await;
            }
        }
    }

    async fn connect(&self) -> Result<DelegatedIdentityClient<Channel>, SpireError> {
        let unreachable = |reason| SpireError::Unreachable { socket: self.socket.clone(), reason };
        let endpoint = Endpoint::parse(&format!("unix:{}", self.socket.display()))
            .map_err(|_| unreachable(Unreachable::RelativePath))?;
        let channel = connector::connect(&endpoint).await.map_err(|error| {
            tracing::debug!(%error, "SPIRE");
            unreachable(why_unreachable(&self.socket))
        })?;
        Ok(DelegatedIdentityClient::new(channel))
    }

    /// One subscription, for as long as it lasts.
    async fn subscribe(&self, updates: &Updates, backoff: &mut Backoff) -> Result<(), SpireError> {
        let subject = self.subject(updates).await?;
        let open = async {
            let mut client = self.connect().await?;
            let asked = SubscribeToX509BundlesRequest {};
            let bundles = client.subscribe_to_x509_bundles(asked).await?.into_inner();
            let svids = client.subscribe_to_x509svi_ds(subject.request.clone()).await?;
            Ok::<_, SpireError>((bundles, svids.into_inner()))
        };
        let (mut bundles, mut svids) = tokio::select! {
            opened = tokio::time::timeout(PATIENCE, open) => {
                opened.map_err(|_| SpireError::Silent)??
            }
            () = subject.ended() => return Err(SpireError::ProcessEnded),
        };
        let mut latest_svids = None;
        let mut latest_bundles = None;
        let patience = tokio::time::sleep(PATIENCE);
        tokio::pin!(patience);
        loop {
            let is_waiting = latest_svids.is_none() || latest_bundles.is_none();
            tokio::select! {
                message = svids.message() => latest_svids = Some(message?.ok_or(SpireError::Ended)?),
                message = bundles.message() => latest_bundles = Some(message?.ok_or(SpireError::Ended)?),
                () = subject.ended() => return Err(SpireError::ProcessEnded),
                () = &mut patience, if is_waiting => return Err(SpireError::Silent),
            }
            // The process still lives, so it is the one that was attested.
            if !subject.is_itself() {
                return Err(SpireError::ProcessEnded);
            }
            let (Some(svids), Some(bundles)) = (&latest_svids, &latest_bundles) else {
                continue;
            };
            backoff.reset();
            let expected = updates.workload().spiffe_id.as_ref();
            let update = match received::snapshot(svids, bundles, expected) {
                Ok(snapshot) => Update::Snapshot(snapshot),
                Err(error) => error.into_update(),
            };
            updates.send(update).await?;
        }
    }
}

fn why_unreachable(socket: &Path) -> Unreachable {
    use std::os::unix::fs::FileTypeExt;
    match socket.metadata().map(|metadata| metadata.file_type().is_socket()) {
        Ok(true) => Unreachable::NotListening,
        Ok(false) => Unreachable::NoSocket,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Unreachable::Missing,
        Err(_) => Unreachable::Unknown,
    }
}

/// A process of the workload. Its descriptor is opened before its cgroup is checked, so the number cannot be reused in
/// between.
fn attestable(candidates: &BTreeSet<u32>, updates: &Updates) -> Option<(i32, PidFd)> {
    candidates.iter().find_map(|pid| {
        let process = PidFd::open(*pid).ok()?;
        let is_member = (updates.workload().membership.0)(*pid) && process.is_alive();
        is_member.then_some((i32::try_from(*pid).ok()?, process))
    })
}

impl Source for SpireSource {
    fn follow(self: Arc<Self>, updates: Updates) -> Following {
        Box::pin(async move {
            let mut backoff = Backoff::new(self.random);
            loop {
                match self.subscribe(&updates, &mut backoff).await {
                    Ok(()) => {}
                    Err(SpireError::Unfollowed(unfollowed)) => return Err(unfollowed),
                    // Another process takes its place, or there is none.
                    Err(SpireError::ProcessEnded) => {}
                    Err(error) => updates.send(error.into_update()).await?,
                }
                tokio::time::sleep(backoff.pause()).await;
            }
        })
    }
}
