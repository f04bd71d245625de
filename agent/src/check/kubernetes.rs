//! What else on a node has to do with its pods: whether the runtime asks before they start, and who else decides where their
//! connections go.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::Finding;
use crate::capture::cgroup_mount;
use crate::config::Config;
use crate::gate::{GateKind, GateSettings};
use crate::sys::bpf::{self, AttachType};

/// How the programs of Cilium that choose the endpoints of Services are called.
const CILIUM: &str = "cil_sock";

/// Looks at the runtime and at others' programs, on a node with pods.
pub fn node(config: &Config) -> Vec<Finding> {
    let Some(settings) = &config.gate else {
        return Vec::new();
    };
    let mut findings = vec![gate(settings)];
    findings.extend(load_balancers());
    findings
}

fn gate(settings: &GateSettings) -> Finding {
    let GateSettings { gate, nri_socket, installation, .. } = settings;
    let is_socket =
        |path: &Path| fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let advice = "have the runtime offer NRI (containerd 1.7: disable = false of the plugin io.containerd.nri.v1.nri; CRI-O before 1.30: \
                  enable_nri = true), or set kubernetes.gate to `cni`";
    match gate {
        GateKind::None => Finding::warning(
            "gate",
            "nobody asks before pods start: after a restart of the node a protected pod may be ready before the agent is, and is \
             then not protected until the agent runs",
            "set kubernetes.gate to `auto` or `cni`",
        ),
        GateKind::Cni => Finding::ok("gate", "the plugin of CNI asks"),
        GateKind::Auto | GateKind::Nri if is_socket(nri_socket) && installation.is_none() => {
            Finding::warning(
                "gate",
                format!(
                    "the runtime offers NRI at {}, and asks nobody while no agent runs: after a reboot a selected pod may start \
                     before the agent, and is not protected until then",
                    nri_socket.display()
                ),
                "set kubernetes.gate to `auto` and kubernetes.cni to where the node's network is configured (the chart: agent.gate)",
            )
        }
        GateKind::Auto | GateKind::Nri if is_socket(nri_socket) => Finding::ok(
            "gate",
            format!(
                "the runtime offers NRI at {}; while no agent runs the plugin of CNI has pods wait",
                nri_socket.display()
            ),
        ),
        GateKind::Auto | GateKind::Nri => {
            let found = format!(
                "the runtime does not offer NRI: there is no socket {}",
                nri_socket.display()
            );
            // Otherwise somebody may have installed the plugin of CNI.
            let is_wanted = *gate == GateKind::Nri;
            if is_wanted {
                Finding::error("gate", found, advice)
            } else {
                Finding::warning("gate", found, advice)
            }
        }
    }
}

/// Others' programs see what an application asks for before or after ours. Cilium's put the address of an endpoint in the place
/// of a Service's.
fn load_balancers() -> Option<Finding> {
    let names = connect_programs().unwrap_or_default();
    let cilium = names.iter().find(|name| name.starts_with(CILIUM))?;
    Some(Finding::warning(
        "services",
        format!(
            "Cilium chooses the endpoints of Services when pods connect ({cilium}); Sheath is not tested beside it"
        ),
        "set socketLB.hostNamespaceOnly=true in Cilium, so that pods' connections reach Sheath as the applications asked for them",
    ))
}

/// The names of all programs that see `connect()` of IPv4 at the root of the hierarchy.
fn connect_programs() -> io::Result<Vec<String>> {
    let mount = cgroup_mount().map_err(io::Error::other)?;
    let root = File::open(mount)?;
    let mut names = Vec::new();
    for id in bpf::effective_programs(root.as_fd(), AttachType::CgroupInet4Connect)? {
        // One that is gone meanwhile does nothing any more.
        if let Ok(program) = bpf::program_by_id(id) {
            names.push(bpf::program_info(program.as_fd())?.name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::check::Level;
    use crate::gate::cni::Installation;

    #[test]
    fn a_gate_that_nobody_asks_at_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let nri_socket = dir.path().join("nri.sock");
        let with = |kind, installation| {
            let nri_socket = nri_socket.clone();
            let settings =
                GateSettings { gate: kind, nri_socket, installation, ..Default::default() };
            gate(&settings).level
        };
        let level = |kind| with(kind, None);
        assert_eq!(level(GateKind::Auto), Level::Warning);
        assert_eq!(level(GateKind::Nri), Level::Error);
        assert_eq!(level(GateKind::None), Level::Warning);
        assert_eq!(level(GateKind::Cni), Level::Ok);
        let _listener = UnixListener::bind(&nri_socket).unwrap();
        // After a reboot nobody asks.
        assert_eq!(level(GateKind::Auto), Level::Warning);
        assert_eq!(level(GateKind::Nri), Level::Warning);
        assert_eq!(with(GateKind::Auto, Some(Installation::default())), Level::Ok);
    }

    #[test]
    fn programs_of_the_root_can_be_named() {
        // There may be none; what there is has a name that the kernel tells.
        assert!(connect_programs().is_ok());
    }
}
