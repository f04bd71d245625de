//! `bpf(2)`: pinned maps by their bytes, links that can be updated in place, and what is really attached.
//!
//! aya loads programs and creates maps; it neither updates links of cgroup programs nor lets several tasks
//! write a map through a shared reference, so those system calls are made here. Shapes: `include/uapi/linux/bpf.h`.

use std::ffi::CString;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya::Pod;
use aya::maps::{MapData, RingBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
pub(super) const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;

const BPF_F_QUERY_EFFECTIVE: u32 = 1;

/// Attach types used by Sheath (`enum bpf_attach_type`).
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachType {
    CgroupInetIngress = 0,
    CgroupInetEgress = 1,
    CgroupInetSockCreate = 2,
    CgroupSockOps = 3,
    CgroupInet4Connect = 10,
    CgroupInet6Connect = 11,
    CgroupInet4GetPeername = 29,
    CgroupInet6GetPeername = 30,
    CgroupInet4GetSockname = 31,
    CgroupInet6GetSockname = 32,
    SkLookup = 36,
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

/// The kernel's `union bpf_attr`, as far as it is used here: 64-bit words of the size of the largest member.
#[repr(C, align(8))]
pub(super) struct Attr(pub(super) [u8; 128]);

impl Attr {
    pub(super) fn new() -> Self {
        Self([0; 128])
    }

    pub(super) fn u32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    pub(super) fn u64(mut self, at: usize, value: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    pub(super) fn fd(self, at: usize, fd: BorrowedFd<'_>) -> Self {
        self.u32(at, fd.as_raw_fd() as u32)
    }

    pub(super) fn read_u32(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[at..at + 4]);
        u32::from_ne_bytes(bytes)
    }
}

pub(super) fn bpf(command: libc::c_int, attr: &mut Attr) -> io::Result<i32> {
    // SAFETY: the attribute block is zeroed beyond what the command uses and outlives the call; pointers in it
    // are made from live references by the callers below.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr.0, attr.0.len()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

pub(super) fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: only called with a descriptor that the kernel has just returned.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Opens a pinned object.
///
/// # Errors
/// `NotFound` if nothing is pinned there.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    bpf(BPF_OBJ_GET, &mut Attr::new().u64(0, path.as_ptr() as u64)).map(owned)
}

/// Pins an object.
///
/// # Errors
/// `AlreadyExists` if the path is taken.
pub fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    bpf(BPF_OBJ_PIN, &mut Attr::new().u64(0, path.as_ptr() as u64).fd(8, fd)).map(drop)
}

/// Attaches a program to a cgroup or network namespace through a link.
pub fn create_link(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach_type: AttachType,
) -> io::Result<OwnedFd> {
    bpf(BPF_LINK_CREATE, &mut Attr::new().fd(0, program).fd(4, target).u32(8, attach_type as u32))
        .map(owned)
}

/// Attaches a program to a tracepoint, given the id in its `events/*/*/id` file, through a perf event
/// (perf_event_open(2)); such links exist since Linux 5.15.
pub fn create_tracepoint_link(program: BorrowedFd<'_>, tracepoint: u64) -> io::Result<OwnedFd> {
    const PERF_TYPE_TRACEPOINT: u32 = 2;
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;
    const BPF_PERF_EVENT: u32 = 41;
    let mut event = Attr::new();
    let size = event.0.len() as u32;
    event = event.u32(0, PERF_TYPE_TRACEPOINT).u32(4, size).u64(8, tracepoint);
    // One CPU suffices: a BPF program on a tracepoint runs on whichever CPU passes it.
    // SAFETY: the attribute block is live, zeroed where unused and as long as it says.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const event.0,
            -1_i32,
            0_i32,
            -1_i32,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let event = owned(fd as RawFd);
    let link = bpf(
        BPF_LINK_CREATE,
        &mut Attr::new().fd(0, program).fd(4, event.as_fd()).u32(8, BPF_PERF_EVENT),
    )
    .map(owned)?;
    // SAFETY: an ioctl without argument on a descriptor that is ours.
    if unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_ENABLE, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(link)
}

/// Replaces the program of a link; there is no moment without one.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    bpf(BPF_LINK_UPDATE, &mut Attr::new().fd(0, link).fd(4, program)).map(drop)
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
    const LINK_TYPE_CGROUP: u32 = 3;
    const LINK_TYPE_NETNS: u32 = 5;
    let mut info = Attr::new();
    let at = info.0.as_mut_ptr() as u64;
    bpf(
        BPF_OBJ_GET_INFO_BY_FD,
        &mut Attr::new().fd(0, link).u32(4, info.0.len() as u32).u64(8, at),
    )?;
    let target = match info.read_u32(0) {
        LINK_TYPE_CGROUP => u64::from(info.read_u32(16)) | u64::from(info.read_u32(20)) << 32,
        LINK_TYPE_NETNS => u64::from(info.read_u32(16)),
        _ => 0,
    };
    Ok(LinkInfo { program_id: info.read_u32(8), target })
}

/// Type, key size, value size and number of entries of a map.
pub fn map_shape(map: BorrowedFd<'_>) -> io::Result<[u32; 4]> {
    let mut info = Attr::new();
    let at = info.0.as_mut_ptr() as u64;
    bpf(
        BPF_OBJ_GET_INFO_BY_FD,
        &mut Attr::new().fd(0, map).u32(4, info.0.len() as u32).u64(8, at),
    )?;
    Ok([0, 8, 12, 16].map(|offset| info.read_u32(offset)))
}

/// Ids of the programs that run for a cgroup (its own and its ancestors'), or for a network namespace.
pub fn effective_programs(target: BorrowedFd<'_>, attach_type: AttachType) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; 64];
    // Namespaces know no hierarchy and refuse the flag.
    let flags = if matches!(attach_type, AttachType::SkLookup) { 0 } else { BPF_F_QUERY_EFFECTIVE };
    let mut attr = Attr::new()
        .fd(0, target)
        .u32(4, attach_type as u32)
        .u32(8, flags)
        .u64(16, ids.as_mut_ptr() as u64)
        .u32(24, ids.len() as u32);
    bpf(BPF_PROG_QUERY, &mut attr)?;
    ids.truncate(attr.read_u32(24) as usize);
    Ok(ids)
}

/// True if a program is attached to a cgroup in the old, exclusive way, which shuts out links there and below.
pub fn has_exclusive_program(cgroup: BorrowedFd<'_>, attach_type: AttachType) -> io::Result<bool> {
    let mut ids = vec![0_u32; 64];
    let mut attr = Attr::new()
        .fd(0, cgroup)
        .u32(4, attach_type as u32)
        .u64(16, ids.as_mut_ptr() as u64)
        .u32(24, ids.len() as u32);
    bpf(BPF_PROG_QUERY, &mut attr)?;
    // BPF_F_ALLOW_OVERRIDE is 1, BPF_F_ALLOW_MULTI is 2.
    let flags = attr.read_u32(12);
    Ok(attr.read_u32(24) > 0 && flags & 2 == 0)
}

/// A pinned map of keys `K` and values `V`, usable from any number of tasks at once.
pub struct Table<K, V> {
    fd: OwnedFd,
    /// Its name, and how many entries it has room for.
    name: String,
    room: u32,
    _types: PhantomData<fn(K) -> V>,
}

impl<K, V> std::fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("fd", &self.fd).finish_non_exhaustive()
    }
}

/// A key of a longest-prefix trie: the number of bits that count, then the data.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Prefix<K> {
    pub bits: u32,
    pub data: K,
}

// SAFETY: packed, so without padding, and made of `Pod`s.
unsafe impl<K: Pod> Pod for Prefix<K> {}

/// The descriptor of a socket, as a socket map takes it.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct SocketFd(pub u32);

// SAFETY: a transparent integer.
unsafe impl Pod for SocketFd {}

impl<K: Pod, V: Pod> Table<K, V> {
    /// Opens the map pinned at `path` and checks that keys and values have the expected sizes.
    ///
    /// # Errors
    /// `InvalidData` if the map has another shape.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = open_pin(path)?;
        let [_, key_size, value_size, room] = map_shape(fd.as_fd())?;
        if key_size as usize != size_of::<K>() || value_size as usize != size_of::<V>() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{} has another shape (key {key_size}, value {value_size} bytes); run `sheath cleanup`",
                    path.display()
                ),
            ));
        }
        let name = path.file_name().unwrap_or_default().display().to_string();
        Ok(Self { fd, name, room, _types: PhantomData })
    }

    fn attr(&self, key: Option<&K>, value: u64) -> Attr {
        Attr::new()
            .fd(0, self.fd.as_fd())
            .u64(8, key.map_or(0, |key| std::ptr::from_ref(key) as u64))
            .u64(16, value)
    }

    /// # Errors
    /// Any but `ENOENT`, which is `None`.
    pub fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = MaybeUninit::<V>::uninit();
        match bpf(BPF_MAP_LOOKUP_ELEM, &mut self.attr(Some(key), value.as_mut_ptr() as u64)) {
            // SAFETY: the kernel has filled as many bytes as the map's values have, which `open` compared.
            Ok(_) => Ok(Some(unsafe { value.assume_init() })),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds or replaces an entry.
    ///
    /// # Errors
    /// `StorageFull` if the map is full.
    pub fn insert(&self, key: &K, value: &V) -> io::Result<()> {
        bpf(BPF_MAP_UPDATE_ELEM, &mut self.attr(Some(key), std::ptr::from_ref(value) as u64))
            .map(drop)
            .map_err(|error| self.or_full(error))
    }

    /// Kinds of maps differ in how they say that they are full, and neither speaks of a map.
    fn or_full(&self, error: io::Error) -> io::Error {
        if !matches!(error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC)) {
            return error;
        }
        let (name, room) = (&self.name, self.room);
        io::Error::new(
            io::ErrorKind::StorageFull,
            format!(
                "the kernel's map {name} is full; it has room for {room} entries (README, Limits)"
            ),
        )
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// `AlreadyExists` if there is one, `StorageFull` if the map is full.
    pub fn insert_new(&self, key: &K, value: &V) -> io::Result<()> {
        const BPF_NOEXIST: u64 = 1;
        let mut attr = self.attr(Some(key), std::ptr::from_ref(value) as u64);
        attr = attr.u64(24, BPF_NOEXIST);
        bpf(BPF_MAP_UPDATE_ELEM, &mut attr).map(drop).map_err(|error| self.or_full(error))
    }

    /// Replaces an entry. False if there is none.
    pub fn replace(&self, key: &K, value: &V) -> io::Result<bool> {
        const BPF_EXIST: u64 = 2;
        let mut attr = self.attr(Some(key), std::ptr::from_ref(value) as u64);
        attr = attr.u64(24, BPF_EXIST);
        match bpf(BPF_MAP_UPDATE_ELEM, &mut attr) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// True if there was an entry to remove.
    pub fn remove(&self, key: &K) -> io::Result<bool> {
        match bpf(BPF_MAP_DELETE_ELEM, &mut self.attr(Some(key), 0)) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All keys. A map that changes meanwhile may show a key twice or not at all.
    pub fn keys(&self) -> io::Result<Vec<K>> {
        let mut keys: Vec<K> = Vec::new();
        loop {
            let mut next = MaybeUninit::<K>::uninit();
            match bpf(BPF_MAP_GET_NEXT_KEY, &mut self.attr(keys.last(), next.as_mut_ptr() as u64)) {
                // SAFETY: the kernel has filled as many bytes as the map's keys have, which `open` compared.
                Ok(_) => keys.push(unsafe { next.assume_init() }),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
                Err(error) => return Err(error),
            }
        }
    }

    pub fn entries(&self) -> io::Result<Vec<(K, V)>> {
        let mut entries = Vec::new();
        for key in self.keys()? {
            if let Some(value) = self.get(&key)? {
                entries.push((key, value));
            }
        }
        Ok(entries)
    }
}

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
        bpf(
            BPF_MAP_LOOKUP_ELEM,
            &mut Attr::new()
                .fd(0, self.fd.as_fd())
                .u64(8, &raw const slot as u64)
                .u64(16, values.as_mut_ptr() as u64),
        )?;
        Ok(values.into_iter().sum())
    }
}

/// Reads an event from a record of the ring buffer; `None` if the record is too short.
#[must_use]
pub fn read_event(record: &[u8]) -> Option<sheath_common::event::Event> {
    if record.len() < size_of::<sheath_common::event::Event>() {
        return None;
    }
    // SAFETY: the record is long enough, and an event is made of integers, so any bytes are one.
    Some(unsafe { record.as_ptr().cast::<sheath_common::event::Event>().read_unaligned() })
}

/// Registers a ring buffer with the runtime, to wait for records.
pub fn await_ring(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring buffer owns its map's descriptor and keeps it open and unchanged until it is dropped,
    // and it is dropped by the `AsyncFd`, after deregistration.
    unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }.map_err(io::Error::other)
}

/// Attaches a program that lets everything pass, in the old way that shuts links out.
#[cfg(test)]
pub fn attach_exclusively(cgroup: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_ATTACH: libc::c_int = 8;
    const BPF_PROG_TYPE_CGROUP_SKB: u32 = 8;
    // r0 = 1; exit
    let instructions: [u64; 2] = [0x0000_0001_0000_00b7, 0x0000_0000_0000_0095];
    let mut load = Attr::new()
        .u32(0, BPF_PROG_TYPE_CGROUP_SKB)
        .u32(4, instructions.len() as u32)
        .u64(8, instructions.as_ptr() as u64)
        .u64(16, c"GPL".as_ptr() as u64)
        .u32(68, AttachType::CgroupInetEgress as u32);
    let program = bpf(BPF_PROG_LOAD, &mut load).map(owned)?;
    let mut attach = Attr::new()
        .fd(0, cgroup)
        .fd(4, program.as_fd())
        .u32(8, AttachType::CgroupInetEgress as u32);
    bpf(BPF_PROG_ATTACH, &mut attach)?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `BPF_MAP_TYPE_HASH`, and `BPF_MAP_TYPE_LPM_TRIE`, which wants `BPF_F_NO_PREALLOC`.
    const HASH: (u32, u32) = (1, 0);
    const TRIE: (u32, u32) = (11, 1);

    /// A map with room for one entry.
    fn small(name: &str, (kind, flags): (u32, u32)) -> Table<u64, u32> {
        const BPF_MAP_CREATE: libc::c_int = 0;
        let mut attr = Attr::new().u32(0, kind).u32(4, 8).u32(8, 4).u32(12, 1).u32(16, flags);
        let fd = bpf(BPF_MAP_CREATE, &mut attr).map(owned).unwrap();
        Table { fd, name: name.to_owned(), room: 1, _types: PhantomData }
    }

    #[test]
    fn a_full_map_is_named_with_its_limit() {
        for kind in [HASH, TRIE] {
            let table = small("DESTINATIONS", kind);
            // As a trie reads it: 32 bits, and the bits.
            let key = |number: u64| number << 32 | 32;
            table.insert(&key(1), &0).unwrap();
            let error = table.insert(&key(2), &0).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            let expected = "the kernel's map DESTINATIONS is full; it has room for 1 entries";
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn an_entry_that_is_gone_is_not_replaced() {
        let table = small("SILENT", HASH);
        assert!(!table.replace(&1, &7).unwrap());
        assert_eq!(table.get(&1).unwrap(), None);
        table.insert_new(&1, &7).unwrap();
        assert_eq!(table.insert_new(&1, &8).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(table.replace(&1, &9).unwrap());
        assert_eq!(table.get(&1).unwrap(), Some(9));
    }
}
