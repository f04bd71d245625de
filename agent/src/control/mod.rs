//! The control plane: one task that knows the configuration, the files it names, the sources of identities and
//! the names that DNS resolves, and publishes what follows from them as immutable snapshots. The data path
//! reads those and waits for nothing here.

mod certificates;
mod names;
mod resolution;
mod trust;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use sheath_common::workload::WorkloadId;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::capture::{Processes, Reconfiguration, SupervisorRequest, is_member};
use crate::config::Config;
use crate::desired::Workload;
use crate::identity::{
    CaError, CaSource, Credentials, EmbeddedCa, FileSource, Held, Identities, Membership, Snapshot,
    Source, SourceConfig, SpireSource, Update, Updates, WorkloadRef,
};
use crate::materials::Materials;
use crate::policy::{Policy, SharedPolicy};
use crate::published::Published;
use crate::sessions::Sessions;
use crate::sys::clock;
use crate::sys::watch::Watch;
use crate::tls::Contexts;
use crate::trust::VerifiedChains;
use crate::wire::words;

use names::{Answer, Names};

pub use certificates::CertificatesView;
pub use names::{NameView, NameViews};

/// Pause before what capture has refused is tried again.
const STEER_AGAIN: Duration = Duration::from_secs(5);
/// Pause before a source that has broken down is followed again.
const AFTER_BREAKDOWN: Duration = Duration::from_secs(10);
/// How long a start waits for the first word of all sources.
const FIRST_WORD: Duration = Duration::from_secs(3);

/// What people ask of the control plane.
#[derive(Debug)]
pub enum ControlRequest {
    /// Read the configuration again, and apply it or say why not.
    Reload(oneshot::Sender<Result<(), String>>),
    Certificates(oneshot::Sender<CertificatesView>),
}

#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    config: Config,
    provider: Arc<CryptoProvider>,
    materials: Materials,
    verified: Arc<VerifiedChains>,
    names: Names,
    cas: HashMap<PathBuf, Arc<EmbeddedCa>>,
    followed: HashMap<WorkloadId, Followed>,
    generation: u64,
    processes: Arc<Processes>,
    published: Published,
    updates: (mpsc::Sender<SourceUpdate>, mpsc::Receiver<SourceUpdate>),
    answers: mpsc::Receiver<Answer>,
}

type SourceUpdate = (WorkloadRef, u64, Update);

/// A workload whose source is followed.
#[derive(Debug)]
struct Followed {
    config: Arc<Workload>,
    kind: &'static str,
    generation: u64,
    /// Ends with this.
    _task: Task,
    snapshot: Option<Snapshot>,
    problem: Option<String>,
    /// True once the source has said anything.
    heard: bool,
}

/// A task that ends with this.
#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Follows a source, again and again if it should break down.
async fn keep_following(source: Arc<dyn Source>, updates: Updates) {
    loop {
        let following = tokio::spawn(source.clone().follow(updates.clone()));
        let _guard = Task(following.abort_handle());
        match following.await {
            Err(error) if error.is_panic() => {
                let reason = "its source broke down; please report this".to_owned();
                if updates.send(Update::Failed(reason)).await.is_err() {
                    return;
                }
                tokio::time::sleep(AFTER_BREAKDOWN).await;
            }
            _ => return,
        }
    }
}

impl Control {
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// If an embedded CA cannot be used: then nothing can be issued, and most likely nothing will.
    pub fn start(
        path: PathBuf,
        config: Config,
        processes: Arc<Processes>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, CaError> {
        let mut materials = Materials::default();
        materials.follow(&config.desired);
        let (answer_sender, answers) = mpsc::channel(16);
        let mut names = Names::new(answer_sender, provider.secure_random, config.instance.names());
        names.follow(&config.desired, &config.dns_servers);
        let policy = Policy::new(&config.desired, &materials, &names.addresses(&config.desired));
        let policy: SharedPolicy = Arc::new(ArcSwap::from_pointee(policy));
        let identities = Arc::new(Identities::default());
        let sessions = Arc::new(Sessions::new(policy.clone(), identities.clone()));
        sessions.set_expired_peer(config.expired_peer);
        let published = Published { policy, identities, sessions };
        let mut control = Self {
            cas: load_cas(&config, &HashMap::new(), &provider)?,
            path,
            materials,
            verified: Arc::default(),
            names,
            followed: HashMap::new(),
            generation: 0,
            processes,
            published,
            updates: mpsc::channel(64),
            answers,
            provider,
            config,
        };
        control.follow_sources();
        Ok(control)
    }

    /// The chains that were verified, for whichever workload and whatever is published.
    #[must_use]
    pub fn verified(&self) -> Arc<VerifiedChains> {
        self.verified.clone()
    }

    #[must_use]
    pub fn name_views(&self) -> NameViews {
        self.names.views()
    }

    /// What flows go by.
    #[must_use]
    pub fn published(&self) -> Published {
        self.published.clone()
    }

    /// Waits until every source has said something, but not for long: what is not there yet is refused, not
    /// waited for.
    pub async fn settle(&mut self) {
        let all_heard = async {
            while self.followed.values().any(|followed| !followed.heard) {
                if let Some(update) = self.updates.1.recv().await {
                    self.take_update(update);
                }
            }
        };
        if tokio::time::timeout(FIRST_WORD, all_heard).await.is_err() {
            tracing::warn!("not every source of identities has answered yet");
        }
        self.publish();
    }

    /// Works until `requests` closes.
    pub async fn run(
        mut self,
        mut requests: mpsc::Receiver<ControlRequest>,
        supervisor: mpsc::WeakSender<SupervisorRequest>,
    ) {
        let mut watch = Watch::new(self.materials.paths());
        // What has changed while nobody watched yet.
        self.refresh_materials();
        // When to try again what capture has refused.
        let mut steer_again = None;
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    Some(ControlRequest::Reload(answer)) => {
                        let result = self.reload(&supervisor).await;
                        watch = Watch::new(self.materials.paths());
                        self.refresh_materials();
                        // Whoever asked may have gone.
                        let _ = answer.send(result);
                    }
                    Some(ControlRequest::Certificates(answer)) => {
                        let _ = answer.send(self.certificates());
                    }
                    None => break,
                },
                update = self.updates.1.recv() => if let Some(update) = update {
                    let workload = update.0.id;
                    if let Some(is_new) = self.take_update(update) {
                        self.publish_one(workload, is_new);
                    }
                },
                answer = self.answers.recv() => if let Some(answer) = answer
                    && self.names.take(answer)
                {
                    self.publish();
                    steer_again = self.steer(&supervisor).await;
                },
                () = clock::reach(steer_again) => steer_again = self.steer(&supervisor).await,
                () = watch.changed() => self.refresh_materials(),
            }
        }
    }

    fn refresh_materials(&mut self) {
        if tokio::task::block_in_place(|| self.materials.refresh()) {
            self.publish();
        }
    }

    /// Has capture steer what the policy says now. Returns when to try again, if that is refused.
    async fn steer(&self, supervisor: &mpsc::WeakSender<SupervisorRequest>) -> Option<Instant> {
        let policy = self.published.policy.load_full();
        let reason = apply(supervisor, &self.config.desired.workloads, policy).await.err()?;
        tracing::error!(reason, "addresses of external peers are not steered");
        Some(Instant::now() + STEER_AGAIN)
    }

    /// Reads the configuration again. It is applied as a whole or not at all: everything that may fail comes
    /// before anything is changed that is not easily put back.
    async fn reload(
        &mut self,
        supervisor: &mpsc::WeakSender<SupervisorRequest>,
    ) -> Result<(), String> {
        let path = self.path.clone();
        let new = tokio::task::block_in_place(|| Config::load(&path));
        let new = new.map_err(|error| error.to_string())?;
        self.config.check_reload(&new).map_err(|error| error.to_string())?;
        let cas = load_cas(&new, &self.cas, &self.provider).map_err(|error| error.to_string())?;
        let mut materials = self.materials.clone();
        tokio::task::block_in_place(|| materials.follow(&new.desired));
        let addresses = self.names.addresses(&new.desired);
        let policy = Arc::new(Policy::new(&new.desired, &materials, &addresses));
        // Before the kernel turns anything to us that we would know nothing of. Live sessions are not judged by it
        // yet.
        let before = self.published.policy.swap(policy.clone());
        if let Err(reason) = apply(supervisor, &new.desired.workloads, policy).await {
            self.published.policy.store(before);
            return Err(reason);
        }
        self.published.sessions.set_expired_peer(new.expired_peer);
        self.config = new;
        self.cas = cas;
        self.materials = materials;
        self.names.follow(&self.config.desired, &self.config.dns_servers);
        self.follow_sources();
        self.publish();
        tracing::info!("configuration reloaded");
        self.config.log_summary();
        Ok(())
    }

    /// Follows the source of each workload; those that stay as they are go on undisturbed.
    fn follow_sources(&mut self) {
        let mut old = std::mem::take(&mut self.followed);
        for workload in self.config.desired.workloads.clone() {
            let same = |followed: &Followed| {
                followed.config.source == workload.source
                    && followed.config.spiffe_id == workload.spiffe_id
                    && followed.config.cgroup == workload.cgroup
            };
            let followed = match old.remove(&workload.id) {
                Some(mut followed) if same(&followed) => {
                    followed.config = workload.clone();
                    followed
                }
                Some(mut followed) => {
                    // What it is now stays so until its new source has spoken, if it is still to be that.
                    let snapshot = followed.snapshot.take().filter(|snapshot| {
                        workload.spiffe_id.is_none() || snapshot.svid.id == workload.spiffe_id
                    });
                    Followed { snapshot, ..self.follow_source(&workload) }
                }
                None => self.follow_source(&workload),
            };
            self.followed.insert(workload.id, followed);
        }
    }

    fn follow_source(&mut self, workload: &Arc<Workload>) -> Followed {
        self.generation += 1;
        let member = workload.clone();
        let reference = WorkloadRef {
            id: workload.id,
            name: workload.name.clone(),
            spiffe_id: workload.spiffe_id.clone(),
            processes: self.processes.subscribe(workload.id),
            membership: Membership(Arc::new(move |pid| is_member(&member, pid))),
        };
        let updates = Updates::new(self.updates.0.clone(), reference, self.generation);
        let source = self.source(&workload.source);
        let kind = source.kind();
        Followed {
            kind,
            _task: Task(tokio::spawn(keep_following(source, updates)).abort_handle()),
            config: workload.clone(),
            generation: self.generation,
            snapshot: None,
            problem: None,
            heard: false,
        }
    }

    fn source(&self, config: &SourceConfig) -> Arc<dyn Source> {
        match config {
            SourceConfig::Ca { dir, svid_ttl } => {
                // Loaded with the configuration that names it.
                Arc::new(CaSource::new(self.cas[dir].clone(), *svid_ttl))
            }
            SourceConfig::Files(files) => {
                Arc::new(FileSource::new(files.clone(), self.provider.secure_random))
            }
            SourceConfig::Spire { socket, selectors } => {
                Arc::new(SpireSource::new(socket, selectors.clone(), self.provider.secure_random))
            }
        }
    }

    /// Takes in what a source says, if it is still followed. Returns whether live sessions are to be judged by it.
    fn take_update(&mut self, (workload, generation, update): SourceUpdate) -> Option<bool> {
        let followed = self.followed.get_mut(&workload.id)?;
        if followed.generation != generation {
            return None;
        }
        followed.heard = true;
        let name = &workload.name;
        let mut is_new = true;
        match update {
            Update::Snapshot(snapshot) => {
                tracing::debug!(workload = name, serial = snapshot.svid.facts.serial, "identity");
                followed.snapshot = Some(snapshot);
                followed.problem = None;
            }
            Update::Waiting(reason) => {
                tracing::info!(workload = name, reason, "no identity yet");
                followed.problem = Some(reason);
                is_new = false;
            }
            Update::Failed(reason) => {
                let kept = followed.snapshot.is_some();
                tracing::error!(
                    workload = name,
                    reason,
                    kept,
                    "identity not refreshed; what was there stays until it expires"
                );
                followed.problem = Some(reason);
                is_new = false;
            }
            Update::Withdrawn(reason) => {
                tracing::error!(workload = name, reason, "identity withdrawn");
                followed.snapshot = None;
                followed.problem = Some(reason);
            }
        }
        Some(is_new)
    }

    /// Publishes everything anew, and has all live sessions judged by it.
    fn publish(&mut self) {
        let addresses = self.names.addresses(&self.config.desired);
        let policy = Policy::new(&self.config.desired, &self.materials, &addresses);
        self.published.policy.store(Arc::new(policy));
        let held = self.followed.keys().map(|id| (*id, Arc::new(self.hold(*id)))).collect();
        self.published.identities.publish(held);
        tokio::task::block_in_place(|| self.published.sessions.review(|_| true));
    }

    /// Publishes what is held for one workload anew, and has its live sessions judged by it if it `is_new`.
    fn publish_one(&mut self, workload: WorkloadId, is_new: bool) {
        let identities = &self.published.identities;
        let mut held: HashMap<_, _> =
            self.followed.keys().filter_map(|id| Some((*id, identities.held(*id)?))).collect();
        held.insert(workload, Arc::new(self.hold(workload)));
        identities.publish(held);
        if is_new {
            let sessions = &self.published.sessions;
            tokio::task::block_in_place(|| sessions.review(|facts| facts.workload == workload));
        }
    }

    /// What is held for a workload that is followed.
    fn hold(&self, workload: WorkloadId) -> Held {
        let Some(followed) = self.followed.get(&workload) else {
            return Held { credentials: None, source: "", problem: None, next_renewal: None };
        };
        let credentials = followed.snapshot.as_ref().map(|snapshot| {
            let policy = self.published.policy.load();
            let inbound = policy.inbound(workload).cloned().unwrap_or_default();
            let further = &self.config.desired.trust_domains;
            let trust = trust::complete(&snapshot.trust, further, &self.materials, &self.verified);
            let key = snapshot.svid.key.clone();
            Contexts::new(self.provider.clone(), key, trust, &inbound)
                .map(|contexts| Arc::new(Credentials { svid: snapshot.svid.clone(), contexts }))
                .map_err(|error| format!("TLS cannot be set up: {}", words::handshake(&error)))
        });
        let (credentials, trouble) = match credentials.transpose() {
            Ok(credentials) => (credentials, None),
            Err(trouble) => (None, Some(trouble)),
        };
        Held {
            credentials,
            source: followed.kind,
            problem: trouble.or_else(|| followed.problem.clone()),
            next_renewal: followed.snapshot.as_ref().and_then(|snapshot| snapshot.next_renewal),
        }
    }
}

/// Has capture put workloads and policy in force, or say why not.
async fn apply(
    supervisor: &mpsc::WeakSender<SupervisorRequest>,
    workloads: &[Arc<Workload>],
    policy: Arc<Policy>,
) -> Result<(), String> {
    let gone = "capture has ended";
    let supervisor = supervisor.upgrade().ok_or(gone)?;
    let (answer, applied) = oneshot::channel();
    let change = Reconfiguration { workloads: workloads.to_vec(), policy };
    supervisor
        .send(SupervisorRequest::Reconfigure(Box::new(change), answer))
        .await
        .map_err(|_| gone)?;
    applied.await.map_err(|_| gone)?
}

/// Loads the CAs that a configuration names, or takes over those that are loaded.
fn load_cas(
    config: &Config,
    loaded: &HashMap<PathBuf, Arc<EmbeddedCa>>,
    provider: &Arc<CryptoProvider>,
) -> Result<HashMap<PathBuf, Arc<EmbeddedCa>>, CaError> {
    let mut cas = HashMap::new();
    for workload in &config.desired.workloads {
        let SourceConfig::Ca { dir, .. } = &workload.source else {
            continue;
        };
        if cas.contains_key(dir) {
            continue;
        }
        let ca = match loaded.get(dir) {
            Some(ca) => ca.clone(),
            None => {
                let ca = EmbeddedCa::load(dir, &config.trust_domain, provider.clone())?;
                let ca = Arc::new(ca);
                tokio::spawn(EmbeddedCa::keep_current(Arc::downgrade(&ca)));
                ca
            }
        };
        cas.insert(dir.clone(), ca);
    }
    Ok(cas)
}
