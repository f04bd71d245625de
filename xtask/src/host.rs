//! What the scenarios need from this host's kernel. Nothing here can be installed: where it is missing, the
//! tests and the demo fail and say so.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

/// The kernel of Debian 12, the oldest one that the scenarios are run on.
const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// Capabilities by their number in `linux/capability.h`. Root in a container often lacks them.
const CAPABILITIES: [(&str, u32); 4] =
    [("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];

/// # Errors
/// When something is missing, with the whole list.
pub fn require() -> Result<()> {
    let missing: Vec<String> = [capabilities(), kernel(), btf(), cgroup_v2(), bpf_filesystem()]
        .into_iter()
        .flatten()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!("this host cannot run the scenarios:\n  - {}", missing.join("\n  - "));
}

fn capabilities() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
    let lacking: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(_, number)| effective & (1 << number) == 0)
        .map(|(name, _)| *name)
        .collect();
    (!lacking.is_empty()).then(|| format!("not root, or root without {}", lacking.join(", ")))
}

fn kernel() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (major, minor) = OLDEST_KERNEL;
    let old = parse_release(&release).is_none_or(|version| version < OLDEST_KERNEL);
    old.then(|| format!("Linux {} is older than {major}.{minor}", release.trim()))
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut parts =
        release.trim().split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    Some((parts.next()?, parts.next()?))
}

fn btf() -> Option<String> {
    let path = "/sys/kernel/btf/vmlinux";
    (!Path::new(path).exists()).then(|| format!("no {path}: a kernel with CONFIG_DEBUG_INFO_BTF"))
}

fn cgroup_v2() -> Option<String> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mounted = mounts.lines().any(|mount| mount.split(' ').nth(2) == Some("cgroup2"));
    (!mounted)
        .then(|| "no cgroup v2 mount: mount -t cgroup2 none /sys/fs/cgroup/unified".to_owned())
}

fn bpf_filesystem() -> Option<String> {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let known = known.lines().any(|line| line.split_whitespace().last() == Some("bpf"));
    (!known).then(|| "no bpf file system: a kernel with CONFIG_BPF_SYSCALL".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_read_up_to_the_minor_number() {
        assert_eq!(parse_release("6.1.0-31-amd64\n"), Some((6, 1)));
        assert_eq!(parse_release("6.18.44"), Some((6, 18)));
        assert_eq!(parse_release("7.0-rc1"), Some((7, 0)));
        assert_eq!(parse_release(""), None);
    }
}
