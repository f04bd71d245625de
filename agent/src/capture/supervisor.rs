//! Keeps capture true: finds cgroups, processes and namespaces as they come and go, repairs what somebody
//! removes, and tells what it sees.
//!
//! One task owns everything that changes. Kernel events wake it; a timer makes sure that a lost event delays
//! things and breaks nothing.

mod awaited;
mod dropped;
mod enrolment;
mod listening;
mod look;
mod namespaces;
mod observed;
mod ports;
mod reconfigure;
mod status;
mod survey;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use sheath_common::event::{Event, EventKind};
use sheath_common::flow::ActivatedKey;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::cgroups;
use super::error::CaptureError;
use super::kernel::events::{Events, calls_for_a_look, denial_reason, drop_reason};
use super::kernel::filesystems;
use super::kernel::held::{self, HeldMaps};
use super::kernel::maps::Tables;
use super::kernel::pins::{FreshPins, Pins};
use super::kernel::programs::{self, Programs};
use super::kernel::steering::SteerLoader;
use super::kernel::targets::Places;
use super::namespace::owned_sockets::Owned;
use super::namespace::{FlowStarter, Namespace, existing};
use super::processes::Roster;
use crate::config::{CaptureRoot, Config};
use crate::policy::Policy;
use crate::sys::clock;
use crate::sys::netns::NetworkNamespace;
use crate::telemetry::log_denied_connect;

use dropped::Dropped;
use enrolment::{Unenrolled, selectors};
use observed::Observed;
pub use reconfigure::Reconfiguration;
use reconfigure::{guarded_ports, refuse_own_cgroup};
pub use status::{
    NamespaceStatus, ProgramStatus, StatusView, UnprotectedConnection, WorkloadState,
    WorkloadStatus,
};

pub use survey::survey;

/// How often everything is looked at without being asked.
const LOOK: Duration = Duration::from_secs(1);
/// How often the programs are checked, and routes asked for again.
const CHECK: Duration = Duration::from_secs(3);
/// Namespaces that one workload may be in: each costs descriptors.
const MAX_NAMESPACES: usize = 64;
/// An entry that no accepted connection has taken for so long never will be.
const FLOW_LIFETIME: Duration = Duration::from_secs(120);
/// Pause after each batch of events: whoever causes them cannot keep the agent busy with them.
const BREATH: Duration = Duration::from_millis(5);
/// Refused connections logged within one [`LOOK`]; the rest are only counted.
const DENIALS_LOGGED: u32 = 100;

/// What is asked of the supervisor.
#[derive(Debug)]
pub enum SupervisorRequest {
    /// It looks, then answers.
    Status(oneshot::Sender<StatusView>),
    /// Another configuration, to be put in force while everything runs.
    Reconfigure(Box<Reconfiguration>, oneshot::Sender<Result<(), String>>),
}

#[derive(Debug)]
pub struct Supervisor {
    /// The policy that the kernel has.
    in_force: Arc<Policy>,
    /// True while enrolments of an earlier configuration have yet to be removed.
    is_forgetting: bool,
    roster: Arc<Roster>,
    pub(super) tables: Arc<Tables>,
    pub(super) programs: Programs,
    steer_loader: SteerLoader,
    own_netns: NetworkNamespace,
    mount: PathBuf,
    starter: Arc<dyn FlowStarter>,
    pub(super) workloads: Vec<Observed>,
    /// By inode number.
    pub(super) namespaces: HashMap<u64, Served>,
    /// Who listens in namespaces in which that matters, by inode number.
    listening: HashMap<u64, Vec<Owned>>,
    /// What the kernel has been told of service managers that listen for workloads.
    activated: Option<HashSet<ActivatedKey>>,
    routed_prefixes: Vec<IpNet>,
    events: Events,
    /// False while the agent comes up.
    is_up: bool,
    /// When to look whether processes that were new in the agent's own namespace have stayed there.
    look_again: Option<Instant>,
    denials_logged: u32,
    dropped: Dropped,
    unenrolled: Unenrolled,
}

#[derive(Debug)]
pub(super) struct Served {
    pub namespace: Arc<Namespace>,
    last_seen: Instant,
}

impl Supervisor {
    /// Brings capture up: loads and attaches the programs or takes over those that are pinned, opens the
    /// namespaces of workloads that run, enrols them, and pins everything. Needs a tokio runtime.
    ///
    /// # Errors
    /// If any of it fails; then nothing that this start has made stays behind.
    pub fn start(
        config: &Config,
        policy: Arc<Policy>,
        roster: Arc<Roster>,
        starter: Arc<dyn FlowStarter>,
    ) -> Result<Self, CaptureError> {
        filesystems::ensure_bpffs()?;
        let tracefs = filesystems::ensure_tracefs()?;
        let mount = filesystems::cgroup_mount()?;
        refuse_own_cgroup(&config.workloads)?;
        let pins = Pins::of(&config.instance.name);
        let undo = FreshPins::begin(&pins)?;
        let root = match &config.capture {
            CaptureRoot::Auto => mount.clone(),
            CaptureRoot::Below(path) => cgroups::join(&mount, path),
        };
        if undo.is_none() {
            take_over(&pins).map_err(CaptureError::during("cannot take over the pinned maps"))?;
        }
        let mut loaded = programs::load(&pins)?;
        let events = Events::new(loaded.take_events()?)
            .map_err(CaptureError::during("cannot wait for kernel events"))?;
        let tables = Tables::open(&pins).map_err(CaptureError::during("cannot open the maps"))?;
        let tables = Arc::new(tables);
        let held = HeldMaps::open(&pins).map_err(CaptureError::during("cannot open the maps"))?;
        let held = Arc::new(held);
        let add_policy = || {
            tables.add_rules(&policy.kernel_rules())?;
            tables.add_guarded(&guarded_ports(&config.workloads))?;
            tables.forget_connections()
        };
        add_policy().map_err(CaptureError::during("cannot write the policy into the maps"))?;
        let places = Places { mount: mount.clone(), cgroup: root, tracefs };
        let programs = loaded.attach(&held, &tables, places)?;
        let own_netns = NetworkNamespace::own()
            .map_err(CaptureError::during("cannot open the agent's network namespace"))?;
        let mut supervisor = Self {
            starter,
            workloads: config.workloads.iter().cloned().map(Observed::new).collect(),
            routed_prefixes: policy.protected_prefixes(),
            in_force: policy,
            is_forgetting: false,
            roster,
            tables,
            programs,
            steer_loader: SteerLoader::new(held),
            own_netns,
            mount,
            namespaces: HashMap::new(),
            listening: HashMap::new(),
            activated: None,
            events,
            is_up: false,
            look_again: None,
            denials_logged: 0,
            dropped: Dropped::default(),
            unenrolled: Unenrolled::default(),
        };
        supervisor.bring_up()?;
        if let Some(undo) = undo {
            undo.keep();
        }
        pins.remove_others()
            .map_err(CaptureError::during("cannot remove the pins of an agent with other maps"))?;
        Ok(supervisor)
    }

    fn bring_up(&mut self) -> Result<(), CaptureError> {
        let write = CaptureError::during("cannot write the workloads into the maps");
        let before = self
            .tables
            .workloads
            .keys()
            .map_err(CaptureError::during("cannot read the map of workloads"))?;
        // From here on the kernel recognises new cgroups itself; those that exist are found by looking.
        self.tables.replace_selectors(&selectors(&mut self.workloads)).map_err(write)?;
        self.serve(self.own_netns.clone())?;
        self.look();
        self.serve_what_is_held()
            .map_err(CaptureError::during("cannot serve what an earlier agent has served"))?;
        self.look();
        self.forget_the_old(&before)
            .map_err(CaptureError::during("cannot remove what an earlier agent left"))?;
        self.is_up = true;
        self.programs.pin().map_err(CaptureError::during("cannot pin the BPF links"))
    }

    /// Detaches steering from namespaces, dead or alive, that are not served: none of their ports is ours.
    fn detach_unserved(&self) -> io::Result<()> {
        let served: HashSet<u64> =
            self.namespaces.values().map(|served| served.namespace.cookie()).collect();
        for cookie in self.steer_loader.pinned()? {
            if !served.contains(&cookie) {
                self.steer_loader.detach(cookie)?;
                self.tables.forget_namespace(cookie)?;
            }
        }
        Ok(())
    }

    /// Works until `requests` closes.
    pub async fn run(mut self, mut requests: mpsc::Receiver<SupervisorRequest>) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut check = tokio::time::interval(CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => tokio::task::block_in_place(|| self.answer(request)),
                    None => break,
                },
                happened = self.events.next() => match happened {
                    Ok(happened) => {
                        self.heed(&happened);
                        tokio::time::sleep(BREATH).await;
                    }
                    Err(error) => {
                        tracing::error!(%error, "kernel events cannot be read; looking once a second instead");
                        tokio::time::sleep(LOOK).await;
                    }
                },
                _ = look.tick() => {
                    self.denials_logged = 0;
                    tokio::task::block_in_place(|| {
                        self.abort_dropped();
                        self.look();
                    });
                }
                () = clock::reach(self.look_again) => {
                    self.look_again = None;
                    tokio::task::block_in_place(|| self.look());
                }
                _ = check.tick() => tokio::task::block_in_place(|| self.check()),
            }
        }
        for served in self.namespaces.values() {
            served.namespace.stop_accepting();
        }
    }

    fn heed(&mut self, events: &[Event]) {
        for event in events {
            self.log_event(event);
            self.dropped.note(event);
        }
        if self.dropped.is_due() {
            tokio::task::block_in_place(|| self.abort_dropped());
        }
        if events.iter().any(calls_for_a_look) {
            tokio::task::block_in_place(|| self.look());
        }
    }

    fn log_event(&mut self, event: &Event) {
        let kind = EventKind::from_code(event.kind);
        let policy = self.in_force.clone();
        let name = policy.workload(event.workload).map_or("", |workload| &workload.name);
        match kind {
            Some(EventKind::ConnectDenied) => {
                self.denials_logged += 1;
                if self.denials_logged <= DENIALS_LOGGED {
                    let destination = event.destination.into();
                    log_denied_connect(name, destination, event.pid, denial_reason(event.detail));
                }
            }
            Some(EventKind::GuardDroppedOutbound | EventKind::GuardDroppedInbound) => {
                self.denials_logged += 1;
                if self.denials_logged <= DENIALS_LOGGED {
                    let [source, destination] =
                        [event.source, event.destination].map(SocketAddr::from);
                    let reason = drop_reason(event.detail);
                    tracing::warn!(workload = name, %source, %destination, reason, "the guard dropped a packet");
                }
            }
            _ => tracing::debug!(workload = name, cgroup = event.cgroup, ?kind, "kernel event"),
        }
    }

    /// Checks that what was attached still is, and tidies up after what has gone.
    fn check(&mut self) {
        self.programs.check_and_repair();
        for served in self.namespaces.values() {
            if let Err(error) = served.namespace.repair(&self.steer_loader) {
                tracing::error!(namespace = served.namespace.inode(), %error, "steering not put back");
            }
            if let Err(error) = served.namespace.publish_sources(&self.routed_prefixes) {
                tracing::debug!(namespace = served.namespace.inode(), %error, "routes not read");
            }
        }
        for served in self.namespaces.values() {
            if let Err(error) = served.namespace.review_silent() {
                tracing::warn!(namespace = served.namespace.inode(), %error, "cannot look who listens");
            }
        }
        if self.is_forgetting
            && let Err(error) = self.forget_later()
        {
            tracing::warn!(%error, "enrolments of an earlier configuration stay");
        }
        if let Err(error) = self.sweep() {
            tracing::warn!(%error, "traces of closed namespaces or lost connections stay in the maps");
        }
    }

    fn sweep(&self) -> io::Result<()> {
        self.detach_unserved()?;
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
        let now = Duration::from(now);
        for (key, flow) in self.tables.flows.entries()? {
            if now.saturating_sub(Duration::from_nanos(flow.created_ns)) > FLOW_LIFETIME {
                self.tables.flows.remove(&key)?;
            }
        }
        Ok(())
    }

    /// Whoever asked may have gone.
    fn answer(&mut self, request: SupervisorRequest) {
        match request {
            SupervisorRequest::Status(answer) => {
                self.look();
                let _ = answer.send(status::view(self));
            }
            SupervisorRequest::Reconfigure(change, answer) => {
                let _ = answer.send(self.reconfigure(*change).map_err(|error| error.to_string()));
            }
        }
    }

    /// Connections of a workload that policy wants protected and that are not.
    pub(super) fn unprotected(&self, workload: &Observed) -> Vec<UnprotectedConnection> {
        let inodes = workload.namespaces();
        let sockets = inodes.iter().filter_map(|inode| {
            let namespace = &self.namespaces.get(inode)?.namespace;
            let policy = &self.in_force;
            existing::unprotected(namespace, &workload.processes, workload.config.id, policy).ok()
        });
        sockets
            .flatten()
            .map(|socket| UnprotectedConnection { local: socket.local, remote: socket.remote })
            .collect()
    }

    /// The maps.
    #[must_use]
    pub fn tables(&self) -> Arc<Tables> {
        self.tables.clone()
    }

    /// True if all programs run for a cgroup.
    pub(super) fn covers(&self, path: &Path) -> bool {
        File::open(cgroups::join(&self.mount, path))
            .is_ok_and(|cgroup| self.programs.all_in_force_for(&cgroup))
    }
}

/// Makes sure that what an earlier agent has pinned fits this one, before its programs are replaced.
fn take_over(pins: &Pins) -> io::Result<()> {
    let recovered = held::recover_pins(pins)?;
    if !recovered.is_empty() {
        tracing::warn!(maps = ?recovered, "pins of maps were removed while no agent ran; put back");
    }
    match Tables::open(pins) {
        // No program that is in force uses what is missing: it is made anew.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map(drop),
    }
}
