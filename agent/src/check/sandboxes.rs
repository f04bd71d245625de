//! Runtimes on a node whose pods do not use the sockets of its kernel.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Finding;
use crate::config::Config;

/// What the programs begin with that containerd and CRI-O start for each pod of such a runtime.
const SHIMS: [(&str, &str); 3] = [
    ("containerd-shim-runsc", "gVisor"),
    ("runsc-sandbox", "gVisor"),
    ("containerd-shim-kata", "Kata Containers"),
];

/// Looks for pods with a network stack of their own, on a node with pods.
pub fn sandboxes(config: &Config) -> Vec<Finding> {
    if config.gate.is_none() {
        return Vec::new();
    }
    let mut found: Vec<_> =
        programs_of_root(Path::new("/proc")).iter().filter_map(|it| is_shim(it)).collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().map(finding).collect()
}

fn is_shim(program: &str) -> Option<&'static str> {
    SHIMS.iter().find(|(prefix, _)| program.starts_with(prefix)).map(|(_, runtime)| *runtime)
}

fn finding(runtime: &'static str) -> Finding {
    Finding::warning(
        "sandboxes",
        format!(
            "{runtime} runs pods here: they have network stacks of their own, and what they say does not go by the programs in the node's kernel"
        ),
        "do not list its runtime classes in kubernetes.runtimeClasses: pods of these classes that are selected then get no identity and do not start",
    )
}

/// What root's processes were started as, without directories. Others may call theirs what they like.
fn programs_of_root(proc: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(proc) else {
        return Vec::new();
    };
    let program = |entry: fs::DirEntry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        if entry.metadata().ok()?.uid() != 0 {
            return None;
        }
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let first = line.split(|byte| *byte == 0).next()?;
        let name = Path::new(OsStr::from_bytes(first)).file_name()?;
        Some(name.to_string_lossy().into_owned())
    };
    entries.flatten().filter_map(program).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shims_are_known_by_what_they_were_started_as() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, line) in [
            ("7", &b"/usr/local/bin/containerd-shim-runsc-v1\0-namespace\0k8s.io\0"[..]),
            ("8", b"/opt/kata/bin/containerd-shim-kata-v2\0"),
            ("9", b"/usr/bin/containerd-shim-runc-v2\0"),
            ("10", b""),
            ("self", b"runsc-sandbox\0"),
        ] {
            fs::create_dir(proc.path().join(pid)).unwrap();
            fs::write(proc.path().join(pid).join("cmdline"), line).unwrap();
        }
        let programs = programs_of_root(proc.path());
        let mut runtimes: Vec<_> = programs.iter().filter_map(|it| is_shim(it)).collect();
        runtimes.sort_unstable();
        assert_eq!(runtimes, ["Kata Containers", "gVisor"], "{programs:?}");
    }
}
