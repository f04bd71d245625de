//! A program of somebody else's that leads `connect()` elsewhere, as socket load balancers do for the addresses of Services.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::cgroup::Cgroup;
use crate::pins::{bpf, owned};

/// Of `linux/bpf.h`.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_CGROUP_SOCK_ADDR: u64 = 18;
const BPF_CGROUP_INET4_CONNECT: u64 = 10;

/// How it is attached to its cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// By a link: beside others.
    Link,
    /// Without flags: alone, and nobody may attach one below it afterwards.
    Exclusive,
}

/// In force until it is dropped.
pub struct Translator {
    program: OwnedFd,
    cgroup: File,
    /// `None` if it is attached without one.
    link: Option<OwnedFd>,
}

impl Translator {
    /// Has whoever connects to one address connect to another. Nothing else is touched.
    ///
    /// # Errors
    /// If the kernel refuses to attach it.
    pub fn attach(
        cgroup: &Cgroup,
        [from, to]: [Ipv4Addr; 2],
        attachment: Attachment,
    ) -> io::Result<Self> {
        // As they are in memory.
        let bits = |address: Ipv4Addr| u64::from(u32::from_ne_bytes(address.octets())) << 32;
        // struct bpf_sock_addr: user_ip4 is at 4.
        let instructions = [
            // w2 = ctx->user_ip4; if w2 != from skip two; w3 = to; ctx->user_ip4 = w3; r0 = 1; return r0
            0x61 | 0x12 << 8 | 4 << 16,
            0x56 | 0x02 << 8 | 2 << 16 | bits(from),
            0xb4 | 0x03 << 8 | bits(to),
            0x63 | 0x31 << 8 | 4 << 16,
            0xb7 | 1 << 32,
            0x95,
        ];
        let program = load(&instructions);
        let cgroup = File::open(cgroup.path()).expect("the cgroup");
        let link = match attachment {
            Attachment::Link => {
                let mut create = [0_u64; 16];
                create[0] = number(&program) | number(&cgroup) << 32;
                create[1] = BPF_CGROUP_INET4_CONNECT;
                Some(owned(bpf(BPF_LINK_CREATE, &create)?))
            }
            Attachment::Exclusive => {
                bpf(BPF_PROG_ATTACH, &attached(&cgroup, &program))?;
                None
            }
        };
        Ok(Self { program, cgroup, link })
    }
}

impl Drop for Translator {
    fn drop(&mut self) {
        if self.link.is_none() {
            let _ = bpf(BPF_PROG_DETACH, &attached(&self.cgroup, &self.program));
        }
    }
}

fn load(instructions: &[u64]) -> OwnedFd {
    let licence = CString::new("GPL").unwrap();
    let mut load = [0_u64; 16];
    load[0] = BPF_PROG_TYPE_CGROUP_SOCK_ADDR | (instructions.len() as u64) << 32;
    load[1] = instructions.as_ptr() as u64;
    load[2] = licence.as_ptr() as u64;
    load[8] = BPF_CGROUP_INET4_CONNECT << 32;
    owned(bpf(BPF_PROG_LOAD, &load).expect("loading a program that translates addresses"))
}

/// What attaching and detaching take.
fn attached(cgroup: &File, program: &OwnedFd) -> [u64; 16] {
    let mut attributes = [0_u64; 16];
    attributes[0] = number(cgroup) | number(program) << 32;
    attributes[1] = BPF_CGROUP_INET4_CONNECT;
    attributes
}

fn number(file: &impl AsRawFd) -> u64 {
    u64::from(u32::try_from(file.as_raw_fd()).unwrap())
}
