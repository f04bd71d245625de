//! What the host must have.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::{Finding, surroundings};
use crate::capture::{CaptureError, cgroup_mount, try_programs};
use crate::config::Config;
use crate::sys::bpf::{self, AttachType};

/// The oldest long-term kernel with everything in use; `bpf_set_retval` (5.18) and `bpf_skc_to_mptcp_sock` (5.19)
/// are the youngest of it.
const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// Number and name of each capability the agent uses (capability.h).
const CAPABILITIES: [(u32, &str); 7] = [
    (2, "CAP_DAC_READ_SEARCH"),
    (12, "CAP_NET_ADMIN"),
    (14, "CAP_IPC_LOCK"),
    (19, "CAP_SYS_PTRACE"),
    (21, "CAP_SYS_ADMIN"),
    (38, "CAP_PERFMON"),
    (39, "CAP_BPF"),
];

/// Everything that does not depend on the configuration.
#[must_use]
pub fn requirements() -> Vec<Finding> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    vec![
        kernel(release.trim()),
        surroundings::lockdown(),
        btf(),
        surroundings::namespaces(),
        surroundings::hierarchy(),
        surroundings::bpf_file_system(),
        legacy_controllers(release.trim(), &mounts),
        capabilities(&status),
    ]
}

fn kernel(release: &str) -> Finding {
    let (major, minor) = OLDEST_KERNEL;
    match version(release) {
        Some(version) if version >= OLDEST_KERNEL => Finding::ok("kernel", release),
        _ => Finding::error(
            "kernel",
            format!("Linux {release} is too old"),
            format!("Sheath needs Linux {major}.{minor} or later"),
        ),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn btf() -> Finding {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        Finding::ok("btf", "the kernel describes its types")
    } else {
        Finding::error(
            "btf",
            "there is no /sys/kernel/btf/vmlinux",
            "boot a kernel built with CONFIG_BPF_SYSCALL and CONFIG_DEBUG_INFO_BTF",
        )
    }
}

/// Before Linux 5.15 a socket belonged either to a net_cls/net_prio class or to a v2 cgroup, never to both:
/// programs on the latter would miss sockets.
fn legacy_controllers(release: &str, mounts: &str) -> Finding {
    let uses = |line: &str| {
        let mut fields = line.split(' ').skip(2);
        let (kind, options) = (fields.next(), fields.next().unwrap_or_default());
        kind == Some("cgroup") && options.split(',').any(|o| o == "net_cls" || o == "net_prio")
    };
    let used = mounts.lines().any(uses);
    let harmless = version(release).is_some_and(|version| version >= (5, 15));
    match (used, harmless) {
        (false, _) => Finding::ok("cgroup v1", "net_cls and net_prio are not mounted"),
        (true, true) => Finding::ok(
            "cgroup v1",
            "net_cls or net_prio is mounted, which this kernel keeps apart",
        ),
        (true, false) => Finding::error(
            "cgroup v1",
            "net_cls or net_prio is mounted, and on this kernel that hides sockets from cgroup v2 programs",
            "unmount the controllers, or run Linux 5.15 or later",
        ),
    }
}

fn capabilities(status: &str) -> Finding {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .unwrap_or(0);
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(number, _)| effective & 1 << number == 0)
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        Finding::ok("privileges", "all capabilities that are needed")
    } else {
        Finding::error(
            "privileges",
            format!("missing {}", missing.join(", ")),
            "run as root, with these capabilities",
        )
    }
}

/// Whether the kernel's verifier lets all programs pass: kernels differ, newer ones among each other too.
pub fn programs() -> Finding {
    match try_programs() {
        Ok(count) => Finding::ok("programs", format!("the kernel takes all {count} BPF programs")),
        Err(error) => {
            let said = match error {
                CaptureError::Load(said) => said,
                other => other.to_string(),
            };
            Finding::error(
                "programs",
                format!("the kernel refuses a BPF program: {said}"),
                "the agent cannot start on this kernel; with `log.level: debug` it logs what the verifier says: please report that",
            )
        }
    }
}

/// Programs of others that are attached exclusively, so that ours cannot be.
pub fn attachments(config: &Config) -> Vec<Finding> {
    let Ok(mount) = cgroup_mount() else {
        return Vec::new();
    };
    let root = config.capture.directory(&mount);
    if let Err(error) = File::open(&root) {
        return vec![Finding::error(
            "capture",
            format!("capture.cgroup {}: {error}", root.display()),
            "name a cgroup that exists, or `auto`",
        )];
    }
    let conflicts: Vec<Finding> = root
        .ancestors()
        .take_while(|path| path.starts_with(&mount))
        .map(PathBuf::from)
        .filter(|path| has_exclusive(path))
        .map(|path| {
            Finding::error(
                "capture",
                format!("a program is attached exclusively to {}", path.display()),
                "find it with `bpftool cgroup show` and attach it with BPF_F_ALLOW_MULTI or through a link",
            )
        })
        .collect();
    if conflicts.is_empty() {
        return vec![Finding::ok(
            "capture",
            format!("programs can be attached to {}", root.display()),
        )];
    }
    conflicts
}

fn has_exclusive(path: &Path) -> bool {
    let Ok(cgroup) = File::open(path) else {
        return false;
    };
    AttachType::OF_CGROUPS
        .into_iter()
        .any(|kind| bpf::has_exclusive_program(cgroup.as_fd(), kind).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn old_kernels_are_refused() {
        assert_eq!(kernel("6.1.0-18-amd64").level, Level::Ok);
        assert_eq!(kernel("6.1").level, Level::Ok);
        assert_eq!(kernel("5.19.9").level, Level::Error);
        assert_eq!(kernel("4.19").level, Level::Error);
        assert_eq!(kernel("").level, Level::Error);
    }

    #[test]
    fn net_cls_is_refused_where_it_hides_sockets() {
        let used = "cgroup /sys/fs/cgroup/net_cls cgroup rw,net_cls,net_prio 0 0\n";
        let unused = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n";
        assert_eq!(legacy_controllers("5.10.0", used).level, Level::Error);
        assert_eq!(legacy_controllers("5.10.0", unused).level, Level::Ok);
        assert_eq!(legacy_controllers("6.1.0", used).level, Level::Ok);
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(capabilities("CapEff:\t000001ffffffffff\n").level, Level::Ok);
        let finding = capabilities("CapEff:\t0000000000000000\n");
        assert!(finding.found.contains("CAP_BPF"));
        assert_eq!(finding.level, Level::Error);
    }

    #[test]
    fn a_program_that_shuts_ours_out_is_named() {
        let path = cgroup_mount().unwrap().join(format!("sheath-check-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let cgroup = File::open(&path).unwrap();
        let before = has_exclusive(&path);
        let attached = bpf::attach_exclusively(cgroup.as_fd());
        let after = has_exclusive(&path);
        fs::remove_dir(&path).unwrap();
        attached.unwrap();
        assert!(!before && after);
    }
}
