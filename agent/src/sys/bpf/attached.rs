//! The programs that are attached to a cgroup or a network namespace, our own and those of others.

use std::io;
use std::os::fd::BorrowedFd;

use aya_obj::generated::{BPF_F_ALLOW_MULTI, BPF_F_QUERY_EFFECTIVE, bpf_cmd};

use super::{AttachType, call, number, zeroed};

/// More programs than this at one place are an error.
const ROOM: usize = 64;

/// Programs at a place.
struct Attached {
    ids: Vec<u32>,
    /// How they were attached.
    flags: u32,
}

/// Ids of the programs that run for a cgroup (its own and its ancestors'), or for a network namespace.
pub fn effective_programs(target: BorrowedFd<'_>, attach_type: AttachType) -> io::Result<Vec<u32>> {
    // Namespaces know no hierarchy and refuse the flag.
    let flags = if matches!(attach_type, AttachType::SkLookup) { 0 } else { BPF_F_QUERY_EFFECTIVE };
    Ok(query(target, attach_type, flags)?.ids)
}

/// True if a program is attached to a cgroup in the old, exclusive way, which shuts out links there and below.
pub fn has_exclusive_program(cgroup: BorrowedFd<'_>, attach_type: AttachType) -> io::Result<bool> {
    let attached = query(cgroup, attach_type, 0)?;
    Ok(!attached.ids.is_empty() && attached.flags & BPF_F_ALLOW_MULTI == 0)
}

fn query(target: BorrowedFd<'_>, attach_type: AttachType, flags: u32) -> io::Result<Attached> {
    let mut ids = vec![0_u32; ROOM];
    let mut attr = zeroed();
    attr.query.__bindgen_anon_1.target_fd = number(target);
    attr.query.attach_type = attach_type as u32;
    attr.query.query_flags = flags;
    attr.query.prog_ids = ids.as_mut_ptr() as u64;
    attr.query.__bindgen_anon_2.prog_cnt = ROOM as u32;
    call(bpf_cmd::BPF_PROG_QUERY, &mut attr)?;
    // SAFETY: it is what the kernel has answered in, and made of integers.
    let (count, flags) = unsafe { (attr.query.__bindgen_anon_2.prog_cnt, attr.query.attach_flags) };
    ids.truncate(count as usize);
    Ok(Attached { ids, flags })
}

/// Attaches a program that lets everything pass, in the old way that shuts links out.
#[cfg(test)]
pub fn attach_exclusively(cgroup: BorrowedFd<'_>) -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::AsFd;

    let program = let_everything_pass()?;
    let mut attach = zeroed();
    attach.__bindgen_anon_5.__bindgen_anon_1.target_fd = number(cgroup);
    attach.__bindgen_anon_5.attach_bpf_fd = number(program.as_fd());
    attach.__bindgen_anon_5.attach_type = AttachType::CgroupInetEgress as u32;
    call(bpf_cmd::BPF_PROG_ATTACH, &mut attach)?;
    Ok(program)
}

/// A program for packets that leave, by the name of `pass`, which does.
#[cfg(test)]
pub fn let_everything_pass() -> io::Result<std::os::fd::OwnedFd> {
    use aya_obj::generated::bpf_prog_type;

    // r0 = 1; exit
    let instructions: [u64; 2] = [0x0000_0001_0000_00b7, 0x0000_0000_0000_0095];
    let mut load = zeroed();
    load.__bindgen_anon_3.prog_type = bpf_prog_type::BPF_PROG_TYPE_CGROUP_SKB as u32;
    load.__bindgen_anon_3.insn_cnt = instructions.len() as u32;
    load.__bindgen_anon_3.insns = instructions.as_ptr() as u64;
    load.__bindgen_anon_3.license = c"GPL".as_ptr() as u64;
    load.__bindgen_anon_3.expected_attach_type = AttachType::CgroupInetEgress as u32;
    load.__bindgen_anon_3.prog_name = b"pass\0\0\0\0\0\0\0\0\0\0\0\0".map(|byte| byte as _);
    super::open(bpf_cmd::BPF_PROG_LOAD, &mut load)
}
