//! Counters of which each CPU has its own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use aya_obj::generated::{BPF_ANY, bpf_cmd};

use super::table::entry;
use super::{call, open_pin};

/// The per-CPU counters.
#[derive(Debug)]
pub struct PerCpuCounters {
    fd: OwnedFd,
    cpus: usize,
}

impl PerCpuCounters {
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = open_pin(path)?;
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        Ok(Self { fd, cpus })
    }

    /// The sum over all CPUs.
    pub fn read(&self, slot: u32) -> io::Result<u64> {
        let mut values = vec![0_u64; self.cpus];
        let (key, place) = (&raw const slot as u64, values.as_mut_ptr() as u64);
        call(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut entry(self.fd.as_fd(), key, place, BPF_ANY))?;
        Ok(values.into_iter().sum())
    }
}
