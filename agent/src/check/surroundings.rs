//! What the agent can see of the host, and what the kernel lets it do: the namespaces it has been started in, what is
//! mounted in them, and lockdown.

use std::fs;
use std::path::Path;

use nix::sys::statfs::{SECURITYFS_MAGIC, statfs};

use super::Finding;
use crate::capture::{CaptureError, cgroup_mount, pins_outlive_the_agent};
use crate::sys::namespaces::Kind;

/// Where the kernel tells how it is locked down (kernel_lockdown(7)): here, and as the host's first process sees it, for securityfs is in
/// few containers.
const LOCKDOWN: [&str; 2] =
    ["/sys/kernel/security/lockdown", "/proc/1/root/sys/kernel/security/lockdown"];

/// The namespaces that must be the host's.
pub fn namespaces() -> Finding {
    let missed: Vec<_> = [Kind::Cgroup, Kind::Pid, Kind::User]
        .into_iter()
        .filter(|kind| !kind.is_hosts().unwrap_or(false))
        .map(Kind::name)
        .collect();
    if missed.is_empty() {
        return Finding::ok("namespaces", "cgroups, processes and users are the host's");
    }
    Finding::error(
        "namespaces",
        format!(
            "started in a namespace of its own ({}), where it does not see the host",
            missed.join(", ")
        ),
        "start it in the host's: a container needs `--cgroupns=host --pid=host --userns=host`, and the host's /sys/fs/cgroup and /sys/fs/bpf",
    )
}

pub fn hierarchy() -> Finding {
    match cgroup_mount() {
        Ok(path) => Finding::ok("cgroup v2", format!("mounted on {}", path.display())),
        Err(error) => {
            let advice = match error {
                CaptureError::HiddenCgroup2 => {
                    "enter the network namespace alone, with `nsenter --net=/run/netns/NAME sheath ...`"
                }
                CaptureError::PartOfCgroup2 { .. } => {
                    "mount the host's /sys/fs/cgroup there, as a whole"
                }
                _ => "boot with systemd.unified_cgroup_hierarchy=1, or mount the hierarchy",
            };
            Finding::error("cgroup v2", error.to_string(), advice)
        }
    }
}

/// What is pinned must not go with the agent.
pub fn bpf_file_system() -> Finding {
    if pins_outlive_the_agent() {
        return Finding::ok("bpffs", "what is pinned outlives the agent");
    }
    Finding::error(
        "bpffs",
        "/sys/fs/bpf is not the host's here: the programs would go with this mount namespace, and with them all protection",
        "mount bpffs on the host (`mount -t bpf bpf /sys/fs/bpf`) and start the agent where it is seen",
    )
}

pub fn lockdown() -> Finding {
    lockdown_at(&LOCKDOWN.map(Path::new))
}

fn lockdown_at(places: &[&Path]) -> Finding {
    if let Some(text) = places.iter().find_map(|place| fs::read_to_string(place).ok()) {
        return judge_lockdown(&text);
    }
    let is_securityfs = |directory: &Path| {
        statfs(directory).is_ok_and(|found| found.filesystem_type() == SECURITYFS_MAGIC)
    };
    let found = match places.iter().filter_map(|place| place.parent()).any(is_securityfs) {
        true => "this kernel knows none",
        false => {
            "not known, as securityfs is mounted neither here nor for the host's first process (`mount -t securityfs \
             securityfs /sys/kernel/security`); under lockdown for confidentiality the agent does not start, and says so"
        }
    };
    Finding::ok("lockdown", found)
}

/// The mode in force stands in brackets, as in `none [integrity] confidentiality`. Of the two, only confidentiality denies
/// what is needed: reading kernel memory from BPF (`LOCKDOWN_BPF_READ_KERNEL`) and tracepoints (`LOCKDOWN_PERF`).
fn judge_lockdown(text: &str) -> Finding {
    let mode = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    match mode.map_or("of no known mode", |(mode, _)| mode) {
        "confidentiality" => Finding::error(
            "lockdown",
            "the kernel is locked down for confidentiality, and so denies BPF programs the tracepoint at which new workloads are recognised",
            "boot with lockdown=integrity, which does no harm here (Secure Boot asks for no more), or without lockdown",
        ),
        mode => Finding::ok("lockdown", format!("{mode}, which BPF can live with")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn lockdown_for_confidentiality_is_an_error_and_integrity_is_not() {
        for (text, level) in [
            ("none integrity [confidentiality]\n", Level::Error),
            ("none [integrity] confidentiality\n", Level::Ok),
            ("[none] integrity confidentiality\n", Level::Ok),
            ("", Level::Ok),
        ] {
            assert_eq!(judge_lockdown(text).level, level, "{text}");
        }
    }

    #[test]
    fn lockdown_is_read_from_the_kernels_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lockdown");
        let other = directory.path().join("other/lockdown");
        let look = || lockdown_at(&[&other, &file]);
        // A directory that is no securityfs tells nothing by lacking the file.
        assert!(look().level == Level::Ok && look().found.contains("not known"), "{:?}", look());
        fs::write(&file, "[none] integrity confidentiality\n").unwrap();
        assert!(look().level == Level::Ok && look().found.starts_with("none,"), "{:?}", look());
        fs::write(&file, "none integrity [confidentiality]\n").unwrap();
        let finding = look();
        assert_eq!(finding.level, Level::Error);
        assert!(finding.advice.contains("lockdown=integrity"), "{finding:?}");
    }
}
