//! Reconciles what the configuration wants with what there is on the host.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use sheath_common::pod_uid::PodUid;

use super::attention::Attention;
use super::conditions::{ConditionsView, InForceView};
use super::enrolled::Enrolled;
use super::enrolled_cgroup::STAY;
use super::kubelet::Kubelet;
use super::listening::Listening;
use super::namespaces::Namespaces;
use super::port_steering::PortSteering;
use super::rules::Rules;
use super::start::{Attached, refuse_own_cgroup};
use super::status::{Owners, ServedWorkload, StatusView};
use crate::capture::error::CaptureError;
use crate::capture::kernel::ids::WorkloadIds;
use crate::capture::kernel::programs::Programs;
use crate::capture::namespace::{FlowStarter, Listeners};
use crate::capture::processes::Processes;
use crate::desired::{self, Pods};
use crate::steering::Steering;
use crate::telemetry::Refusals;

/// How many times as long as a look at everything takes there is none, unless somebody asks: on a node on which many pods start, the
/// processor is for them, and those that wait at the gate are looked at by themselves.
const REST: u32 = 4;

/// What capture wants to know of a configuration.
#[derive(Debug)]
pub struct Reconfiguration {
    pub workloads: Vec<Arc<desired::Workload>>,
    /// Other pods that are known; `None` if nothing is known about pods yet.
    pub pods: Option<Pods>,
    pub policy: Arc<dyn Steering>,
}

/// The owners of all that changes, and the order in which they are asked.
#[derive(Debug)]
pub struct Reconciler {
    /// What is attached.
    programs: Programs,
    /// The policy in the kernel.
    rules: Rules,
    /// The workloads.
    enrolled: Enrolled,
    /// The namespaces that are served.
    namespaces: Namespaces,
    /// The listening sockets.
    listening: Listening,
    /// Who owns the ports.
    ports: PortSteering,
    /// Whose probes are let through to pods.
    kubelet: Kubelet,
    /// The table of workload numbers.
    ids: Arc<WorkloadIds>,
    /// When to look whether processes that were new in a namespace have stayed there.
    look_again: Option<Instant>,
    /// Until then there is time for others, after the last look at everything.
    rests_until: Instant,
}

impl Reconciler {
    /// Enrols the workloads that there are, serves their namespaces, and pins everything.
    ///
    /// # Errors
    /// If something of an earlier agent cannot be taken over, or something new cannot be put in force.
    pub fn bring_up(
        attached: Attached,
        workloads: Vec<Arc<desired::Workload>>,
        processes: Arc<Processes>,
        starter: Arc<dyn FlowStarter>,
    ) -> Result<Self, CaptureError> {
        let Attached { maps, programs, steer_loader, rules, ids, mount, pods, kubelet } = attached;
        let known = pods.decisions().known();
        let mut namespaces = Namespaces::new(maps.clone(), steer_loader, starter, mount.clone())?;
        let mut enrolled = Enrolled::new(maps.clone(), mount.clone(), processes, pods);
        let recorded = enrolled
            .recorded()
            .map_err(CaptureError::during("cannot read the map of workloads"))?;
        enrolled
            .set_workloads(workloads, known)
            .map_err(CaptureError::during("cannot write the workloads into the maps"))?;
        namespaces.set_prefixes(rules.policy().protected_prefixes());
        namespaces.serve_own()?;
        let listening = Listening::new(mount.clone());
        let ports = PortSteering::new(maps, mount);
        let (look_again, rests_until) = (None, Instant::now());
        let mut new = Self {
            programs,
            rules,
            enrolled,
            namespaces,
            listening,
            ports,
            kubelet,
            ids,
            look_again,
            rests_until,
        };
        new.reconcile();
        new.enrolled
            .serve_held(&mut new.namespaces)
            .map_err(CaptureError::during("cannot serve what an earlier agent has served"))?;
        new.reconcile();
        new.prune(&recorded)
            .map_err(CaptureError::during("cannot remove what an earlier agent left"))?;
        new.enrolled.set_up();
        new.programs.pin().map_err(CaptureError::during("cannot pin the BPF links"))?;
        Ok(new)
    }

    /// Finds what there is now and serves it.
    pub fn reconcile(&mut self) {
        let begun = Instant::now();
        let own = self.namespaces.own_inode();
        self.programs.follow();
        self.kubelet.update();
        self.enrolled.reconcile(&mut self.namespaces, self.rules.policy().as_ref());
        for (inode, error) in self.namespaces.open_missing_listeners() {
            let problem =
                format!("not every listener is open in network namespace {inode}: {error}");
            self.enrolled.report_where(|workload| workload.namespaces().contains(&inode), &problem);
        }
        self.listening.update(&self.enrolled.where_listeners_matter(own), &self.namespaces);
        self.enrolled.update_whereabouts(&mut self.namespaces, &self.listening);
        self.look_again = self.enrolled.may_be_passing(own).then(|| Instant::now() + STAY);
        self.ports.update(&mut self.enrolled, &self.namespaces, &self.listening);
        self.enrolled.compare_with_listeners(&self.listening, own);
        self.enrolled.finish_reports();
        self.namespaces.release_unused();
        self.listening.keep_only(&self.namespaces);
        let ended = Instant::now();
        self.rests_until = ended + REST * (ended - begun);
    }

    /// The same, or soon, so that whoever asks something is answered meanwhile: with many pods, a look at everything takes its
    /// time, and what is new may never end.
    pub fn reconcile_or_rest(&mut self) {
        if Instant::now() < self.rests_until {
            self.look_again_by(self.rests_until);
        } else {
            self.reconcile();
        }
    }

    /// Finds what there is of these pods and serves it, as far as they are workloads. Of everything else stays what the last look has
    /// found: so this takes no longer on a node with many pods.
    /// Returns true if that was all.
    pub fn serve_pods(&mut self, pods: &BTreeSet<PodUid>) -> bool {
        if pods.is_empty() {
            return true;
        }
        let policy = self.rules.policy().as_ref();
        let mut places = BTreeSet::new();
        let is_all = self.enrolled.serve_pods(pods, &mut self.namespaces, policy, &mut places);
        self.ports.update_in(&places, &mut self.enrolled, &self.namespaces, &self.listening);
        self.look_again_by(Instant::now() + STAY);
        is_all
    }

    fn look_again_by(&mut self, at: Instant) {
        self.look_again = Some(self.look_again.map_or(at, |earlier| earlier.min(at)));
    }

    /// When to reconcile again, if that cannot wait for the next turn.
    pub fn look_again(&self) -> Option<Instant> {
        self.look_again.map(|at| at.max(self.rests_until))
    }

    /// Checks that what was attached still is, and tidies up after what has gone.
    pub fn check(&mut self) {
        self.programs.check_and_repair();
        self.namespaces.check_and_repair();
        if self.enrolled.is_pruning()
            && let Err(error) = self.prune_later()
        {
            tracing::warn!(%error, "enrolments of an earlier configuration stay");
        }
        if let Err(error) = self.namespaces.sweep().and_then(|()| self.kubelet.sweep()) {
            tracing::warn!(%error, "entries of closed namespaces or lost connections stay in the maps");
        }
    }

    /// The status, after another reconciliation.
    pub fn status(&mut self, refusals: &Refusals) -> StatusView {
        self.reconcile();
        let found = self.programs.check_and_repair();
        self.owners().view(found, refusals)
    }

    /// What is in force, after a look at the programs alone.
    pub fn in_force(&mut self) -> InForceView {
        let found = self.programs.check_and_repair();
        self.owners().in_force(found)
    }

    /// What is wrong, by the last look.
    pub fn conditions(&self, refusals: &Refusals) -> ConditionsView {
        self.owners().conditions(refusals)
    }

    /// What the last look has found of what is served.
    pub fn served(&self) -> Vec<ServedWorkload> {
        self.owners().served()
    }

    fn owners(&self) -> Owners<'_> {
        Owners {
            programs: &self.programs,
            enrolled: &self.enrolled,
            namespaces: &self.namespaces,
            kubelet: &self.kubelet,
            policy: self.rules.policy().as_ref(),
        }
    }

    /// Puts another configuration in force, or leaves the previous one.
    ///
    /// # Errors
    /// If a workload of it selects the agent itself, or it cannot be written into the maps.
    pub fn reconfigure(&mut self, change: Reconfiguration) -> Result<(), CaptureError> {
        refuse_own_cgroup(&change.workloads, self.enrolled.pods().root())?;
        let before = Reconfiguration {
            workloads: self.enrolled.configs().cloned().collect(),
            pods: self.enrolled.pods().decisions().known(),
            policy: self.rules.policy().clone(),
        };
        self.put_in_force(change).inspect_err(|_| {
            if let Err(again) = self.put_in_force(before) {
                tracing::error!(error = %again, "the previous configuration is not completely back in force");
            }
        })
    }

    /// Adds what is new before it removes what is old: nothing that stays protected is ever unprotected.
    fn put_in_force(&mut self, change: Reconfiguration) -> Result<(), CaptureError> {
        let Reconfiguration { workloads, pods, policy } = change;
        let write = || CaptureError::during("cannot write the configuration into the maps");
        let recorded = self
            .enrolled
            .recorded()
            .map_err(CaptureError::during("cannot read the map of workloads"))?;
        let prefixes = policy.protected_prefixes();
        self.rules.add(policy, &workloads).map_err(write())?;
        let attention = self.enrolled.set_workloads(workloads, pods).map_err(write())?;
        let are_others = self.namespaces.set_prefixes(prefixes);
        let pruned = match attention {
            // Of a node's pods few change at a time.
            Attention::Pods(pods) if self.serve_pods(&pods) => {
                self.enrolled.prune_later();
                self.rules.prune()
            }
            _ => {
                self.reconcile();
                self.prune(&recorded)
            }
        };
        pruned.map_err(CaptureError::during("cannot remove what the configuration before had"))?;
        // Each namespace is asked for its routes: on a node with many pods that takes a while.
        if are_others {
            self.namespaces.publish_sources();
        }
        Ok(())
    }

    /// Removes what an earlier agent or configuration left and this one does not repeat: enrolments, rules, steering. Only
    /// when everything that the configuration does say is in force. `recorded` are the cgroups that had entries before
    /// the last look.
    fn prune(&mut self, recorded: &[u64]) -> io::Result<()> {
        self.enrolled.prune(recorded)?;
        if self.enrolled.put_off_pruning() {
            return Ok(());
        }
        self.rules.prune()?;
        let keys: Vec<_> =
            self.enrolled.configs().map(|config| (config.key(), config.id)).collect();
        let in_force = keys.iter().map(|(key, id)| (key.as_ref(), *id));
        if let Err(error) = self.ids.keep_only(&in_force.collect()) {
            tracing::warn!(%error, "names of workloads that are gone stay in the table of ids");
        }
        self.namespaces.detach_unserved()
    }

    /// Reads what is recorded before it looks at cgroups: what comes in between is seen.
    fn prune_later(&mut self) -> io::Result<()> {
        let recorded = self.enrolled.recorded()?;
        self.reconcile();
        self.prune(&recorded)
    }

    /// The policy in force.
    pub fn policy(&self) -> &dyn Steering {
        self.rules.policy().as_ref()
    }

    /// Ends the connections of these sockets, given by cookie.
    pub fn abort(&self, cookies: &HashSet<u64>) {
        self.namespaces.abort(cookies);
    }

    /// Has new connections come to this agent, and not to its predecessor any more.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn take_connections(&self) -> Result<(), CaptureError> {
        self.namespaces
            .take_connections()
            .map_err(CaptureError::during("cannot take the place of the agent before"))
    }

    /// Leaves everything to a successor: what is pinned stays, and nothing of this agent's keeps it there. What accepts
    /// connections goes on.
    pub fn hand_over(self) -> Listeners {
        self.namespaces.hand_over()
    }

    /// Stops accepting; connections that are not accepted yet are reset.
    pub fn stop_accepting(&self) {
        self.namespaces.stop_accepting();
    }
}
