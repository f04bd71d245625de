//! Links: they keep a program attached, also without the process that made them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_link_info, bpf_link_type};

use super::objects::{describe, no_description};
use super::perf_event::PerfEvent;
use super::{call, number, open, zeroed};

/// Where programs of Sheath attach.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachType {
    CgroupInetIngress = bpf_attach_type::BPF_CGROUP_INET_INGRESS as u32,
    CgroupInetEgress = bpf_attach_type::BPF_CGROUP_INET_EGRESS as u32,
    CgroupInetSockCreate = bpf_attach_type::BPF_CGROUP_INET_SOCK_CREATE as u32,
    CgroupSockOps = bpf_attach_type::BPF_CGROUP_SOCK_OPS as u32,
    CgroupInet4Connect = bpf_attach_type::BPF_CGROUP_INET4_CONNECT as u32,
    CgroupInet6Connect = bpf_attach_type::BPF_CGROUP_INET6_CONNECT as u32,
    CgroupInet4GetPeername = bpf_attach_type::BPF_CGROUP_INET4_GETPEERNAME as u32,
    CgroupInet6GetPeername = bpf_attach_type::BPF_CGROUP_INET6_GETPEERNAME as u32,
    CgroupInet4GetSockname = bpf_attach_type::BPF_CGROUP_INET4_GETSOCKNAME as u32,
    CgroupInet6GetSockname = bpf_attach_type::BPF_CGROUP_INET6_GETSOCKNAME as u32,
    SkLookup = bpf_attach_type::BPF_SK_LOOKUP as u32,
}

impl AttachType {
    /// Those that attach to cgroups.
    pub const OF_CGROUPS: [Self; 10] = [
        Self::CgroupInetIngress,
        Self::CgroupInetEgress,
        Self::CgroupInetSockCreate,
        Self::CgroupSockOps,
        Self::CgroupInet4Connect,
        Self::CgroupInet6Connect,
        Self::CgroupInet4GetPeername,
        Self::CgroupInet6GetPeername,
        Self::CgroupInet4GetSockname,
        Self::CgroupInet6GetSockname,
    ];
}

/// Attaches a program to a cgroup or network namespace through a link.
pub fn create_link(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach_type: AttachType,
) -> io::Result<OwnedFd> {
    create(program, target, attach_type as u32)
}

/// Attaches a program to a tracepoint, given the id in its `events/*/*/id` file, through a perf event; such links exist
/// since Linux 5.15.
pub fn create_tracepoint_link(program: BorrowedFd<'_>, tracepoint: u64) -> io::Result<OwnedFd> {
    let event = PerfEvent::of_tracepoint(tracepoint)?;
    let link = create(program, event.as_fd(), bpf_attach_type::BPF_PERF_EVENT as u32)?;
    event.enable()?;
    Ok(link)
}

fn create(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    attr.link_create.__bindgen_anon_1.prog_fd = number(program);
    attr.link_create.__bindgen_anon_2.target_fd = number(target);
    attr.link_create.attach_type = attach_type;
    open(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// Replaces the program of a link; there is no moment without one.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed();
    attr.link_update.link_fd = number(link);
    attr.link_update.__bindgen_anon_1.new_prog_fd = number(program);
    call(bpf_cmd::BPF_LINK_UPDATE, &mut attr)
}

/// What the kernel says about a link.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkInfo {
    pub program_id: u32,
    /// For a cgroup link, the id of its cgroup; for a namespace link, the inode number of its namespace;
    /// zero once that is gone or the link has been detached. Other links: zero.
    pub target: u64,
}

pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    const CGROUP: u32 = bpf_link_type::BPF_LINK_TYPE_CGROUP as u32;
    const NETNS: u32 = bpf_link_type::BPF_LINK_TYPE_NETNS as u32;
    let mut info: bpf_link_info = no_description();
    describe(link, &mut info)?;
    let more = info.__bindgen_anon_1;
    // SAFETY: the type says which member is meant, and all of them are made of integers.
    let target = unsafe {
        match info.type_ {
            CGROUP => more.cgroup.cgroup_id,
            NETNS => u64::from(more.netns.netns_ino),
            _ => 0,
        }
    };
    Ok(LinkInfo { program_id: info.prog_id, target })
}
