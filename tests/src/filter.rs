//! A packet filter of somebody else's on a cgroup, as systemd attaches for some properties of a unit.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::cgroup::Cgroup;
use crate::pins::{bpf, owned};

/// Of `linux/bpf.h`.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_CGROUP_SKB: u64 = 8;
const BPF_CGROUP_INET_EGRESS: u64 = 1;

/// In force until it is dropped.
pub struct Filter {
    _link: OwnedFd,
}

impl Filter {
    /// Drops what goes out by the loopback interface, as `RestrictNetworkInterfaces=` without `lo` does.
    pub fn without_loopback(cgroup: &Cgroup, name: &str) -> Self {
        Self::attach(
            cgroup,
            name,
            &[
                // r2 = skb->ifindex; r0 = 1; if r2 != 1 skip; r0 = 0; return r0
                0x61 | 0x12 << 8 | 40 << 16,
                0xb7 | 1 << 32,
                0x55 | 0x02 << 8 | 1 << 16 | 1 << 32,
                0xb7,
                0x95,
            ],
        )
    }

    /// Lets everything pass, as `IPAccounting=` does.
    pub fn that_only_counts(cgroup: &Cgroup, name: &str) -> Self {
        Self::attach(cgroup, name, &[0xb7 | 1 << 32, 0x95])
    }

    fn attach(cgroup: &Cgroup, name: &str, instructions: &[u64]) -> Self {
        let licence = CString::new("GPL").unwrap();
        let mut load = [0_u64; 16];
        load[0] = BPF_PROG_TYPE_CGROUP_SKB | (instructions.len() as u64) << 32;
        load[1] = instructions.as_ptr() as u64;
        load[2] = licence.as_ptr() as u64;
        let mut bytes = [0_u8; 16];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        load[6] = u64::from_ne_bytes(bytes[..8].try_into().unwrap());
        load[7] = u64::from_ne_bytes(bytes[8..].try_into().unwrap());
        load[8] = BPF_CGROUP_INET_EGRESS << 32;
        let program = owned(bpf(BPF_PROG_LOAD, &load).expect("loading a packet filter"));
        let directory = File::open(cgroup.path()).expect("the cgroup");
        let fd = |fd: i32| u64::from(u32::try_from(fd).unwrap());
        let mut create = [0_u64; 16];
        create[0] = fd(program.as_raw_fd()) | fd(directory.as_raw_fd()) << 32;
        create[1] = BPF_CGROUP_INET_EGRESS;
        let link = bpf(BPF_LINK_CREATE, &create).expect("attaching a packet filter");
        Self { _link: owned(link) }
    }
}
