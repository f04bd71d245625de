//! Who listens on the workloads' ports now.

use super::Finding;
use crate::capture::{PodRoot, cgroup_mount, survey};
use crate::desired::Desired;

pub fn listeners(desired: &Desired, pods: Option<&PodRoot>) -> Vec<Finding> {
    let Ok(mount) = cgroup_mount() else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for workload in &desired.workloads {
        let within = |reason: &String| format!("`{}`: {reason}", workload.name);
        match survey(&mount, workload, pods) {
            Ok(survey) => {
                let advice = "its callers are refused, or not protected, until then; inbound.addresses says at which addresses \
                              the ports are the workload's, inbound.namespace: own that they are not this host's, \
                              inbound.activator who listens for it";
                findings.extend(
                    survey
                        .problems
                        .iter()
                        .map(|problem| Finding::error("listeners", within(problem), advice)),
                );
                findings.extend(survey.notes.iter().map(|note| {
                    Finding::warning(
                        "listeners",
                        within(note),
                        "nothing to do if that is meant; add the port to inbound.ports to protect it",
                    )
                }));
            }
            Err(error) => findings.push(Finding::warning(
                "listeners",
                within(&format!("listening sockets cannot be listed: {error}")),
                "run as root",
            )),
        }
    }
    findings
}
