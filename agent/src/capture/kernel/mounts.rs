//! Network file systems that a workload's processes have mounted. Their connections are the kernel's own and belong to no
//! process and no cgroup: no program of the agent sees them.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

/// A file system whose contents cross the network unprotected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NetworkMount {
    /// As mount(8) calls it.
    pub kind: String,
    /// The server, and what of it is mounted.
    pub source: String,
    pub path: String,
}

/// What the processes have mounted.
#[must_use]
pub fn of_processes(processes: &BTreeSet<u32>) -> Vec<NetworkMount> {
    of_processes_in(Path::new("/proc"), processes)
}

fn of_processes_in(proc: &Path, processes: &BTreeSet<u32>) -> Vec<NetworkMount> {
    let mut namespaces = HashSet::new();
    let mut mounts = BTreeSet::new();
    for process in processes {
        let directory = proc.join(process.to_string());
        // A process that has ended meanwhile has nothing mounted.
        let Ok(namespace) = fs::metadata(directory.join("ns/mnt")) else {
            continue;
        };
        if namespaces.insert(namespace.ino())
            && let Ok(text) = fs::read_to_string(directory.join("mountinfo"))
        {
            mounts.extend(parse(&text));
        }
    }
    mounts.into_iter().collect()
}

/// proc_pid_mountinfo(5): after a variable number of fields, ` - ` and then type, source and options.
fn parse(mountinfo: &str) -> impl Iterator<Item = NetworkMount> {
    mountinfo.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let path = mount.split(' ').nth(4)?;
        let mut fields = file_system.split(' ');
        let (kind, source) = (fields.next()?, fields.next()?);
        let options: Vec<_> = fields.next().unwrap_or_default().split(',').collect();
        is_exposed(kind, &options).then(|| NetworkMount {
            kind: kind.to_owned(),
            source: unescape(source),
            path: unescape(path),
        })
    })
}

/// True if the kernel fetches its contents through the network, and not by TLS of its own (nfs(5), `xprtsec`).
fn is_exposed(kind: &str, options: &[&str]) -> bool {
    match kind {
        "nfs" | "nfs4" => !options.iter().any(|o| matches!(*o, "xprtsec=tls" | "xprtsec=mtls")),
        "cifs" | "smb3" | "ceph" | "afs" | "lustre" | "coda" => true,
        // Otherwise it is a virtual machine's share of its host's files.
        "9p" => options.contains(&"trans=tcp"),
        _ => false,
    }
}

/// Space, tab, newline and backslash are written as octal numbers.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(field.to_owned(), |text, (written, meant)| text.replace(written, meant))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /proc rw - proc proc rw
90 22 0:52 / /srv/a\\040b rw,relatime shared:40 master:2 - nfs4 store:/export rw,vers=4.2,sec=sys,addr=10.0.0.9
91 22 0:53 / /srv/safe rw - nfs4 store:/export rw,vers=4.2,xprtsec=mtls,addr=10.0.0.9
92 22 0:54 / /mnt/share rw - cifs //files/share rw,vers=3.1.1
93 22 0:55 / /run/host rw - 9p hostshare rw,trans=virtio
94 22 0:56 / /mnt/plan rw - 9p 10.0.0.8 rw,trans=tcp,port=564
95 22 0:57 / /mnt/fuse rw - fuse.sshfs me@there:/ rw
broken line";

    fn mount(kind: &str, source: &str, path: &str) -> NetworkMount {
        let [kind, source, path] = [kind, source, path].map(str::to_owned);
        NetworkMount { kind, source, path }
    }

    #[test]
    fn file_systems_that_the_kernel_fetches_in_the_clear_are_found() {
        let found: Vec<_> = parse(MOUNTINFO).collect();
        assert_eq!(
            found,
            [
                mount("nfs4", "store:/export", "/srv/a b"),
                mount("cifs", "//files/share", "/mnt/share"),
                mount("9p", "10.0.0.8", "/mnt/plan"),
            ]
        );
    }

    #[test]
    fn every_process_of_a_workload_is_asked_and_none_twice_in_one_namespace() {
        let proc = tempfile::tempdir().unwrap();
        for (process, text) in [(7, MOUNTINFO), (8, ""), (9, "1 1 0:1 / /x rw - nfs a:/b rw")] {
            let directory = proc.path().join(process.to_string());
            fs::create_dir_all(directory.join("ns")).unwrap();
            fs::write(directory.join("mountinfo"), text).unwrap();
            fs::write(directory.join("ns/mnt"), "").unwrap();
        }
        let found = |pids: &[u32]| of_processes_in(proc.path(), &pids.iter().copied().collect());
        assert_eq!(found(&[7, 8, 10]).len(), 3);
        assert_eq!(found(&[7, 9]).len(), 4);
        assert_eq!(found(&[8]), []);
        // One namespace is one file.
        fs::remove_file(proc.path().join("9/ns/mnt")).unwrap();
        fs::hard_link(proc.path().join("8/ns/mnt"), proc.path().join("9/ns/mnt")).unwrap();
        assert_eq!(found(&[8, 9]), []);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in ".{0,200}") {
            let _ = parse(&text).count();
        }
    }
}
