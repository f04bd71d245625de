//! The pods of the node: those that are workloads, looked at by themselves, and all others.

use std::collections::BTreeSet;
use std::io;

use super::Enrolled;
use crate::capture::pod_cgroups::PodCgroup;
use crate::capture::supervisor::enrolment::Pass;
use crate::capture::supervisor::namespaces::Namespaces;
use crate::capture::supervisor::workload::WorkloadState;
use crate::desired::{CgroupSelector, PodUid};
use crate::steering::Steering;

impl Enrolled {
    /// Looks at those workloads alone that are these pods. Adds the namespaces that they are in to `places`. What is wrong with them is
    /// said after the next look at all. Returns true if nothing of these pods is left for that.
    pub fn serve_pods(
        &mut self,
        uids: &BTreeSet<PodUid>,
        namespaces: &mut Namespaces,
        policy: &dyn Steering,
        places: &mut BTreeSet<u64>,
    ) -> bool {
        let Ok(mut pods) = self.pods.find() else {
            return false;
        };
        pods.retain(|pod| uids.contains(&pod.uid));
        let Ok(found) = self.enrolment.find(&self.recognition, &pods) else {
            return false;
        };
        let mut others: BTreeSet<PodUid> = pods.iter().map(|pod| pod.uid).collect();
        let mut is_all = true;
        let mut pass = Pass::new(namespaces, policy);
        for index in 0..self.workloads.len() {
            let CgroupSelector::Pod(uid) = self.workloads[index].config().cgroup else {
                continue;
            };
            if !uids.contains(&uid) {
                continue;
            }
            others.remove(&uid);
            match self.reconcile_workload(index, &found, &mut pass) {
                Ok(_) => places.extend(self.workloads[index].namespaces()),
                Err(_) => is_all = false,
            }
        }
        // Whether pods that are no workloads are held depends on all.
        is_all && others.is_empty()
    }

    /// Holds and releases pods that are no workloads.
    pub(super) fn reconcile_pods(&mut self, found: io::Result<Vec<PodCgroup>>) {
        let workloads = self.workloads.iter().flat_map(WorkloadState::recorded).collect();
        let is_complete = !self.workloads.iter().any(WorkloadState::is_unseen);
        let records = self.enrolment.records_mut();
        let settled =
            found.and_then(|found| self.pods.reconcile(&found, &workloads, is_complete, records));
        if let Err(error) = &settled
            && !self.are_pods_unseen
        {
            tracing::warn!(%error, "pods cannot be looked at; what is known of them stays");
        }
        self.are_pods_unseen = settled.is_err();
    }
}
