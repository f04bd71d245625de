//! The kernel's maps of the kubelet's own connections to pods (`ebpf/src/probes.rs`).

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use sheath_common::flow::GuardedKey;
use sheath_common::probe::{MAX_PROBER_PATH, Probe, ProbeKey};
use sheath_common::selector::{BeginningKey, beginning_bits};
use sheath_common::workload::WorkloadId;

use super::pins::Pins;
use crate::sys::bpf::{Prefix, Table};

/// Entries older than this are removed: their sockets have closed without a word. A SYN is sent again for about two minutes
/// (`tcp_syn_retries`), and an entry is for the handshake alone.
const LIFETIME: Duration = Duration::from_secs(240);

#[derive(Debug)]
pub struct ProbeMaps {
    probers: Table<u64, u32>,
    paths: Table<Prefix<BeginningKey>, u32>,
    probes: Table<ProbeKey, Probe>,
    ports: Table<GuardedKey, u32>,
    /// The workload that has every port of a namespace, by the namespace's cookie.
    pub owners: Table<u64, WorkloadId>,
}

impl ProbeMaps {
    /// # Errors
    /// `InvalidData` if a map has another shape than this agent's.
    pub fn open(pins: &Pins) -> io::Result<Self> {
        Ok(Self {
            probers: Table::open(&pins.map("PROBERS"))?,
            paths: Table::open(&pins.map("PROBER_PATHS"))?,
            probes: Table::open(&pins.map("PROBES"))?,
            ports: Table::open(&pins.map("PROBE_PORTS"))?,
            owners: Table::open(&pins.map("OWNERS"))?,
        })
    }

    /// From now on a new cgroup at this path is a prober's, and at no other. A path that is too long is not recognised.
    ///
    /// # Errors
    /// If the map cannot be read or written.
    pub fn set_path(&self, path: Option<&[u8]>) -> io::Result<()> {
        let key = path.and_then(|path| Some((prober_path(path)?, path.len() as u32)));
        if let Some((key, len)) = &key {
            self.paths.insert(key, len)?;
        }
        for old in self.paths.keys()? {
            let is_it = key.as_ref().is_some_and(|(key, _)| {
                (key.bits, { key.data }.text) == (old.bits, { old.data }.text)
            });
            if !is_it {
                self.paths.remove(&old)?;
            }
        }
        Ok(())
    }

    /// Processes of this cgroup are probers.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn add_prober(&self, cgroup: u64) -> io::Result<()> {
        self.probers.insert(&cgroup, &0)
    }

    /// Processes of other cgroups are none, but for those to keep.
    ///
    /// # Errors
    /// If the map cannot be read or written.
    pub fn prune_probers(&self, keep: impl Fn(u64) -> bool) -> io::Result<()> {
        for cgroup in self.probers.keys()?.into_iter().filter(|cgroup| !keep(*cgroup)) {
            self.probers.remove(&cgroup)?;
        }
        Ok(())
    }

    /// Adds ports on which workloads are probed.
    ///
    /// # Errors
    /// If the map cannot be written, for want of room for instance.
    pub fn add_ports(&self, ports: &HashSet<GuardedKey>) -> io::Result<()> {
        ports.iter().try_for_each(|port| self.ports.insert(port, &0))
    }

    /// Removes all other such ports.
    ///
    /// # Errors
    /// If the map cannot be read or written.
    pub fn prune_ports(&self, ports: &HashSet<GuardedKey>) -> io::Result<()> {
        self.ports.keep_only(ports)
    }

    /// How many connections of probers are open.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn open_probes(&self) -> io::Result<usize> {
        Ok(self.probes.keys()?.len())
    }

    /// Removes entries whose sockets have closed without a word.
    ///
    /// # Errors
    /// If the map cannot be read or written.
    pub fn sweep(&self) -> io::Result<()> {
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
        for (key, probe) in self.probes.entries()? {
            if now.saturating_sub(Duration::from_nanos(probe.created_ns)) > LIFETIME {
                self.probes.remove(&key)?;
            }
        }
        Ok(())
    }
}

/// `None` if the path is longer than keys are.
fn prober_path(path: &[u8]) -> Option<Prefix<BeginningKey>> {
    let mut text = [0; MAX_PROBER_PATH];
    text.get_mut(..path.len())?.copy_from_slice(path);
    Some(Prefix {
        bits: beginning_bits(path.len() as u32),
        data: BeginningKey { generation: 0, text },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_key_as_far_as_it_fits() {
        let path = b"/system.slice/kubelet.service";
        let key = prober_path(path).unwrap();
        let (bits, text) = (key.bits, { key.data }.text);
        assert_eq!(bits, 32 + 8 * path.len() as u32);
        assert!(text.starts_with(path) && text[path.len()..].iter().all(|byte| *byte == 0));
        assert!(prober_path(&[b'x'; MAX_PROBER_PATH]).is_some());
        assert!(prober_path(&[b'x'; MAX_PROBER_PATH + 1]).is_none());
    }
}
