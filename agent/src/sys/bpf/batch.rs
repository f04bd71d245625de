//! Maps as wholes: made by the agent itself, bound to programs, and read and written many entries at a time.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::path::Path;

use aya::Pod;
use aya_obj::generated::{BPF_F_NO_PREALLOC, bpf_attr, bpf_cmd, bpf_map_type};

use super::create::create;
use super::{Table, call, number, pin, zeroed};

/// Entries that one system call reads or writes.
const BATCH: usize = 4096;

/// Has a map live as long as a program, and be listed among the maps that it uses.
///
/// # Errors
/// If the kernel has no memory for it.
pub fn bind_map(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed();
    attr.prog_bind_map.prog_fd = number(program);
    attr.prog_bind_map.map_fd = number(map);
    call(bpf_cmd::BPF_PROG_BIND_MAP, &mut attr)
}

impl<K: Pod, V: Pod> Table<K, V> {
    /// Makes a hash map with these entries and pins it. There is no moment at which it is pinned without them.
    ///
    /// # Errors
    /// `AlreadyExists` if the path is taken.
    pub fn create(path: &Path, room: u32, entries: &[(K, V)]) -> io::Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let table = Self::made(bpf_map_type::BPF_MAP_TYPE_HASH, &name, room)?;
        table.insert_all(entries)?;
        pin(table.as_fd(), path)?;
        Ok(table)
    }

    pub(super) fn made(kind: bpf_map_type, name: &str, room: u32) -> io::Result<Self> {
        // Such a map takes memory as entries come.
        let fd = create(kind, name, [size_of::<K>(), size_of::<V>()], room, BPF_F_NO_PREALLOC)?;
        Ok(Self::of(fd, name.to_owned(), room))
    }

    /// For tests: a hash map that is pinned nowhere.
    #[cfg(test)]
    pub(crate) fn testing(name: &str, room: u32) -> Self {
        Self::made(bpf_map_type::BPF_MAP_TYPE_HASH, name, room).unwrap_or_else(|e| panic!("{e}"))
    }

    /// For tests: a trie of prefixes that is pinned nowhere.
    #[cfg(test)]
    pub(crate) fn testing_trie(name: &str, room: u32) -> Self {
        let kind = bpf_map_type::BPF_MAP_TYPE_LPM_TRIE;
        Self::made(kind, name, room).unwrap_or_else(|e| panic!("{e}"))
    }

    /// All entries. A map that changes meanwhile may show an entry twice or not at all.
    ///
    /// # Errors
    /// If the map is of a kind that cannot be read many entries at a time.
    pub fn entries(&self) -> io::Result<Vec<(K, V)>> {
        let mut entries = Vec::new();
        // Where to go on is said by the kernel, in a form that depends on the kind of map: a number of four bytes, or a
        // key.
        let mut position = vec![0_u8; size_of::<K>().max(4)];
        let mut is_first = true;
        let mut room = BATCH;
        loop {
            let mut keys: Vec<MaybeUninit<K>> = Vec::with_capacity(room);
            let mut values: Vec<MaybeUninit<V>> = Vec::with_capacity(room);
            let mut next = position.clone();
            let mut attr = self.batch(room);
            attr.batch.in_batch = if is_first { 0 } else { position.as_ptr() as u64 };
            attr.batch.out_batch = next.as_mut_ptr() as u64;
            attr.batch.keys = keys.as_mut_ptr() as u64;
            attr.batch.values = values.as_mut_ptr() as u64;
            let is_last = match call(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) {
                Ok(()) => false,
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENOENT) => true,
                    // More entries have the same hash than there was room for.
                    Some(libc::ENOSPC) => {
                        room *= 2;
                        continue;
                    }
                    _ => return Err(error),
                },
            };
            let count = done(&attr).min(room);
            // SAFETY: the kernel has written so many keys and values of the map's sizes, which are those of the types, and
            // any bytes are a `Pod`.
            unsafe {
                keys.set_len(count);
                values.set_len(count);
                let read = keys.iter().zip(&values);
                entries.extend(read.map(|(key, value)| (key.assume_init(), value.assume_init())));
            }
            if is_last {
                return Ok(entries);
            }
            position = next;
            is_first = false;
        }
    }

    /// Adds or replaces entries.
    ///
    /// # Errors
    /// `StorageFull` if the map is full. Those before it are written then.
    pub fn insert_all(&self, entries: &[(K, V)]) -> io::Result<()> {
        for chunk in entries.chunks(BATCH) {
            let (keys, values): (Vec<K>, Vec<V>) = chunk.iter().copied().unzip();
            let mut attr = self.batch(chunk.len());
            attr.batch.keys = keys.as_ptr() as u64;
            attr.batch.values = values.as_ptr() as u64;
            let written = call(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attr);
            written.map_err(|error| self.or_full(error))?;
        }
        Ok(())
    }

    /// Removes entries. Those that are not there are no error.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn remove_all(&self, keys: &[K]) -> io::Result<()> {
        let mut rest = keys;
        while !rest.is_empty() {
            let chunk = &rest[..rest.len().min(BATCH)];
            let mut attr = self.batch(chunk.len());
            attr.batch.keys = chunk.as_ptr() as u64;
            let removed = match call(bpf_cmd::BPF_MAP_DELETE_BATCH, &mut attr) {
                Ok(()) => chunk.len(),
                // The one behind those that were removed is not there.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => done(&attr) + 1,
                Err(error) => return Err(error),
            };
            rest = &rest[removed.min(rest.len())..];
        }
        Ok(())
    }

    /// Arguments of a command for so many entries.
    fn batch(&self, count: usize) -> bpf_attr {
        let mut attr = zeroed();
        attr.batch.count = count as u32;
        attr.batch.map_fd = number(self.as_fd());
        attr
    }
}

/// How many entries a command has read or written.
fn done(attr: &bpf_attr) -> usize {
    // SAFETY: it is where the kernel says so, and an integer.
    unsafe { attr.batch.count as usize }
}

#[cfg(test)]
mod tests;
