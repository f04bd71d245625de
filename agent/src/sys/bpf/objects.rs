//! `bpf(2)` on programs and maps as the kernel lists them: by id, with their names and what they use, whoever has made
//! them. Shapes: `include/uapi/linux/bpf.h`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::bpf::{Attr, BPF_OBJ_GET_INFO_BY_FD, bpf, owned};

const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_MAP_GET_FD_BY_ID: libc::c_int = 14;

/// Bytes of an object's name, the terminating zero included (`BPF_OBJ_NAME_LEN`).
const NAME_LEN: usize = 16;

/// What the kernel says about a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramInfo {
    pub id: u32,
    pub name: String,
    /// Ids of the maps it uses.
    pub maps: Vec<u32>,
}

/// What the kernel says about a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapInfo {
    pub id: u32,
    pub name: String,
}

/// Kernel's id of a program.
pub fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    let info = info::<256>(program, |_| {})?;
    Ok(u32_at(&info, 4))
}

pub fn program_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    const MAP_COUNT: usize = 52;
    const MAP_IDS: usize = 56;
    const NAME: usize = 64;
    let count = u32_at(&info::<256>(program, |_| {})?, MAP_COUNT);
    let mut maps = vec![0_u32; count as usize];
    let at = maps.as_mut_ptr() as u64;
    let info = info::<256>(program, |ask| {
        ask[MAP_COUNT..MAP_COUNT + 4].copy_from_slice(&count.to_ne_bytes());
        ask[MAP_IDS..MAP_IDS + 8].copy_from_slice(&at.to_ne_bytes());
    })?;
    maps.truncate(u32_at(&info, MAP_COUNT) as usize);
    Ok(ProgramInfo { id: u32_at(&info, 4), name: name_at(&info, NAME), maps })
}

pub fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    const NAME: usize = 24;
    let info = info::<128>(map, |_| {})?;
    Ok(MapInfo { id: u32_at(&info, 4), name: name_at(&info, NAME) })
}

/// Opens a program by its id.
///
/// # Errors
/// `NotFound` if it is gone.
pub fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    bpf(BPF_PROG_GET_FD_BY_ID, &mut Attr::new().u32(0, id)).map(owned)
}

/// Opens a map by its id.
///
/// # Errors
/// `NotFound` if it is gone.
pub fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    bpf(BPF_MAP_GET_FD_BY_ID, &mut Attr::new().u32(0, id)).map(owned)
}

/// What a program returns for a frame that comes in on, or goes out by, the loopback interface.
pub fn test_run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<u32> {
    const RETURNED: usize = 4;
    let mut attr = Attr::new()
        .fd(0, program)
        .u32(8, frame.len() as u32)
        .u64(16, frame.as_ptr() as u64)
        .u32(32, 1);
    bpf(BPF_PROG_TEST_RUN, &mut attr)?;
    Ok(attr.read_u32(RETURNED))
}

/// The kernel's description of an object, `N` bytes of it. `ask` writes what the kernel reads first: where to put lists.
fn info<const N: usize>(
    object: BorrowedFd<'_>,
    ask: impl FnOnce(&mut [u8; N]),
) -> io::Result<[u8; N]> {
    let mut info = [0_u8; N];
    ask(&mut info);
    let at = info.as_mut_ptr() as u64;
    let mut attr = Attr::new().fd(0, object.as_fd()).u32(4, N as u32).u64(8, at);
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

fn u32_at(info: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&info[at..at + 4]);
    u32::from_ne_bytes(bytes)
}

fn name_at(info: &[u8], at: usize) -> String {
    let name = &info[at..at + NAME_LEN];
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(NAME_LEN);
    String::from_utf8_lossy(&name[..end]).into_owned()
}
