//! The control plane: one task that merges the desired state, reads materials, follows sources of identities, and
//! publishes the result as immutable snapshots. The data path reads the snapshots and never waits for this task.
//!
//! The desired state comes from the configuration and from [discoveries](crate::discovery).

mod certificates;
mod directory;
mod discoveries;
mod numbers;
mod publish;
mod reload;
mod sources;
mod trust;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use tokio::sync::{mpsc, oneshot};

use crate::capture::{PodRoot, Processes, Reconfiguration, SupervisorRequest, WorkloadIds};
use crate::credentials::Identities;
use crate::desired::Desired;
use crate::directory::Shared;
use crate::discovery::Discovery;
use crate::follow::Problem;
use crate::materials::Materials;
use crate::metrics::{Registry, RegistryError};
use crate::policy::{Policy, SharedPolicy};
use crate::published::Published;
use crate::services::Chooser;
use crate::sessions::{ExpiredPeer, Sessions};
use crate::sys::clock;
use crate::sys::watch::Watch;
use crate::trust::VerifiedChains;

use discoveries::Discoveries;
use numbers::Numbers;
use sources::Sources;

pub use certificates::CertificatesView;
pub use directory::{
    DirectoryView, DirectoryViews, Follower, FollowerSettings, Keeper, Memory, Observing,
};
pub use discoveries::{FoundViews, NameView, ProblemView};
pub use reload::{NotApplied, ReloadError, Reread, Unreadable};

/// How long a start waits for the first message of all sources and discoveries.
const FIRST_MESSAGES: Duration = Duration::from_secs(3);

/// Requests to the control plane.
#[derive(Debug)]
pub enum ControlRequest {
    /// Read the configuration again and apply it.
    Reload(oneshot::Sender<Result<(), ReloadError>>),
    Certificates(oneshot::Sender<CertificatesView>),
}

/// Settings of the control plane. A reload may change them.
#[derive(Clone, Debug)]
pub struct Settings {
    pub desired: Desired,
    pub discoveries: Vec<Arc<dyn Discovery>>,
    /// What pods are below, if there are any. A reload does not change it.
    pub pod_root: Option<PodRoot>,
    pub expired_peer: ExpiredPeer,
}

/// The control plane.
pub struct Control {
    /// Reads the configuration again.
    reread: Reread,
    /// The configuration's part of the desired state.
    configured: Desired,
    /// The desired state, merged from all producers.
    desired: Arc<Desired>,
    /// Gives workloads their numbers.
    numbers: Numbers,
    /// The cryptography of TLS configurations.
    provider: Arc<CryptoProvider>,
    /// The last good content of files.
    materials: Materials,
    /// Notices changes of those files.
    watch: Watch,
    /// The files that `watch` is for.
    watched: BTreeSet<PathBuf>,
    /// Chains that were verified, for all workloads.
    verified: Arc<VerifiedChains>,
    /// What finds further parts of the desired state.
    discoveries: Discoveries,
    /// The source of each workload's identity.
    sources: Sources,
    /// What the data path reads.
    published: Published,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("desired", &self.desired).finish_non_exhaustive()
    }
}

impl Control {
    /// Starts following sources and discoveries. Needs a tokio runtime. `reread` reads the configuration again.
    ///
    /// # Errors
    /// If a source cannot be opened, for example an embedded CA without a usable root, or a workload gets no number.
    pub fn start(
        mut settings: Settings,
        reread: Reread,
        ids: Arc<WorkloadIds>,
        processes: Arc<Processes>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Problem> {
        let mut numbers = Numbers::new(ids);
        numbers.give(&mut settings.desired)?;
        let mut sources = Sources::new(provider.clone(), processes, settings.pod_root);
        let opened = sources.open(&settings.desired.workloads)?;
        let mut discoveries = Discoveries::new(provider.secure_random);
        let merged = discoveries.merged(&settings.desired);
        let desired = merged.desired.clone();
        discoveries.announce(&merged);
        let mut materials = Materials::default();
        materials.follow(&desired);
        discoveries.follow(&settings.discoveries);
        sources.follow(&desired.workloads, opened);
        let directory = Arc::new(Shared::default());
        let services = Arc::new(Chooser::new(Arc::default(), provider.secure_random));
        let policy = Policy::new(&desired, &materials).with_directory(directory.clone());
        let policy: SharedPolicy = Arc::new(ArcSwap::from_pointee(policy));
        let identities = Arc::new(Identities::default());
        let sessions = Arc::new(Sessions::new(policy.clone(), identities.clone()));
        sessions.set_expired_peer(settings.expired_peer);
        Ok(Self {
            reread,
            configured: settings.desired,
            desired,
            numbers,
            provider,
            watch: Watch::new(materials.paths()),
            watched: materials.paths(),
            materials,
            verified: Arc::default(),
            discoveries,
            sources,
            published: Published { policy, directory, services, identities, sessions },
        })
    }

    /// The chains that were verified. They outlive every snapshot.
    #[must_use]
    pub fn verified(&self) -> Arc<VerifiedChains> {
        self.verified.clone()
    }

    /// What capture has to enforce.
    #[must_use]
    pub fn wanted(&self) -> Reconfiguration {
        let policy = self.published.policy.load_full();
        let Desired { workloads, pods, .. } = self.desired.as_ref();
        Reconfiguration { workloads: workloads.clone(), pods: pods.clone(), policy }
    }

    /// What is wanted, now and later.
    #[must_use]
    pub fn desired(&self) -> tokio::sync::watch::Receiver<Arc<Desired>> {
        self.discoveries.wanted()
    }

    /// Registers what is counted of discoveries.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn register(&self, registry: &mut Registry) -> Result<(), RegistryError> {
        self.discoveries.register(registry)
    }

    /// What discoveries have found, now and later.
    #[must_use]
    pub fn found_views(&self) -> FoundViews {
        self.discoveries.views()
    }

    /// What flows go by.
    #[must_use]
    pub fn published(&self) -> Published {
        self.published.clone()
    }

    /// Waits a little for the first message of every source and discovery. After that a workload without an identity is
    /// refused, and nobody waits.
    pub async fn await_first_messages(&mut self) {
        let all_heard = async {
            while !(self.sources.all_heard() && self.discoveries.all_heard()) {
                self.hear().await;
            }
        };
        if tokio::time::timeout(FIRST_MESSAGES, all_heard).await.is_err() {
            tracing::warn!(
                "not every source of identities has answered yet; workloads without an identity are refused"
            );
        }
        self.publish();
    }

    /// Waits until those of these workloads that are still wanted have identities, but for whom their sources refuse one, or until
    /// something else happens, which is returned then. They are told by their keys.
    pub async fn await_identities<O>(
        &mut self,
        of: &BTreeSet<String>,
        otherwise: impl Future<Output = O>,
    ) -> Option<O> {
        let all_there = async {
            while !self.discoveries.all_heard() || self.sources.lacking(of).next().is_some() {
                self.hear().await;
            }
        };
        let ended = tokio::select! {
            () = all_there => None,
            other = otherwise => Some(other),
        };
        self.publish();
        ended
    }

    /// Names of those that [`Self::await_identities`] waits for.
    pub fn lacking<'s>(&'s self, of: &'s BTreeSet<String>) -> impl Iterator<Item = &'s str> {
        self.sources.lacking(of)
    }

    /// Takes the next message of a source or a discovery. Nothing is published.
    async fn hear(&mut self) {
        tokio::select! {
            update = self.sources.next() => drop(self.sources.take(update)),
            message = self.discoveries.next() => if self.discoveries.take(message) {
                self.merge();
            },
        }
    }

    /// Runs until `requests` closes.
    pub async fn run(
        mut self,
        mut requests: mpsc::Receiver<ControlRequest>,
        supervisor: mpsc::WeakSender<SupervisorRequest>,
    ) {
        // Files may have changed before they were watched.
        self.refresh_materials();
        // When to retry what capture has refused.
        let mut steer_again = None;
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    Some(ControlRequest::Reload(answer)) => {
                        let result = self.reload(&supervisor).await;
                        self.refresh_materials();
                        // The receiver may be gone.
                        let _ = answer.send(result);
                    }
                    Some(ControlRequest::Certificates(answer)) => {
                        let _ = answer.send(self.certificates());
                    }
                    None => break,
                },
                update = self.sources.next() => {
                    let workload = update.0.id;
                    if let Some(is_new) = self.sources.take(update) {
                        self.publish_one(workload, is_new);
                    }
                },
                // More may have come while capture was at work.
                message = self.discoveries.next() => if self.discoveries.take_all(message) {
                    steer_again = self.apply_found(&supervisor).await;
                },
                () = clock::reach(steer_again) => steer_again = self.steer(&supervisor).await,
                () = self.watch.changed() => self.refresh_materials(),
            }
        }
    }

    /// Watches the files of the materials, if those have changed.
    fn watch_materials(&mut self) {
        let paths = self.materials.paths();
        if paths != self.watched {
            self.watch = Watch::new(paths.clone());
            self.watched = paths;
            // Files may have changed before they were watched.
            tokio::task::block_in_place(|| self.materials.refresh());
        }
    }

    fn refresh_materials(&mut self) {
        if tokio::task::block_in_place(|| self.materials.refresh()) {
            self.publish();
        }
    }
}
