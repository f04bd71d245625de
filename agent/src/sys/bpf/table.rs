//! Pinned maps with typed keys and values.

use std::collections::HashSet;
use std::hash::Hash;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::Pod;
use aya_obj::generated::{BPF_ANY, BPF_EXIST, BPF_NOEXIST, bpf_attr, bpf_cmd};

use super::{MapInfo, call, map_info, number, open_pin, zeroed};

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
        let MapInfo { key_size, value_size, room, .. } = map_info(fd.as_fd())?;
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
        Ok(Self::of(fd, name, room))
    }

    /// A map whose keys and values have the sizes of these types.
    pub(super) fn of(fd: OwnedFd, name: String, room: u32) -> Self {
        Self { fd, name, room, _types: PhantomData }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Runs a command for one entry. Without a key, it is the position before the first entry.
    fn call(
        &self,
        command: bpf_cmd,
        key: Option<&K>,
        value: u64,
        flags: Overwrite,
    ) -> io::Result<()> {
        let key = key.map_or(0, |key| std::ptr::from_ref(key) as u64);
        call(command, &mut entry(self.fd.as_fd(), key, value, flags))
    }

    /// # Errors
    /// Any but `ENOENT`, which is `None`.
    pub fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = MaybeUninit::<V>::uninit();
        let place = value.as_mut_ptr() as u64;
        match self.call(bpf_cmd::BPF_MAP_LOOKUP_ELEM, Some(key), place, BPF_ANY) {
            // SAFETY: the kernel has filled as many bytes as the map's values have, which `open` compared.
            Ok(()) => Ok(Some(unsafe { value.assume_init() })),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds or replaces an entry.
    ///
    /// # Errors
    /// `StorageFull` if the map is full.
    pub fn insert(&self, key: &K, value: &V) -> io::Result<()> {
        self.put(key, value, BPF_ANY).map_err(|error| self.or_full(error))
    }

    fn put(&self, key: &K, value: &V, overwrite: Overwrite) -> io::Result<()> {
        let value = std::ptr::from_ref(value) as u64;
        self.call(bpf_cmd::BPF_MAP_UPDATE_ELEM, Some(key), value, overwrite)
    }

    /// Kinds of maps differ in how they say that they are full, and neither speaks of a map.
    pub(super) fn or_full(&self, error: io::Error) -> io::Error {
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
        self.put(key, value, BPF_NOEXIST).map_err(|error| self.or_full(error))
    }

    /// Replaces an entry. False if there is none.
    pub fn replace(&self, key: &K, value: &V) -> io::Result<bool> {
        or_missing(self.put(key, value, BPF_EXIST))
    }

    /// True if there was an entry to remove.
    pub fn remove(&self, key: &K) -> io::Result<bool> {
        or_missing(self.call(bpf_cmd::BPF_MAP_DELETE_ELEM, Some(key), 0, BPF_ANY))
    }

    /// Removes all keys but these.
    ///
    /// # Errors
    /// If the map cannot be read or written.
    pub fn keep_only(&self, wanted: &HashSet<K>) -> io::Result<()>
    where
        K: Eq + Hash,
    {
        for key in self.keys()?.iter().filter(|key| !wanted.contains(key)) {
            self.remove(key)?;
        }
        Ok(())
    }

    /// All keys. A map that changes meanwhile may show a key twice or not at all.
    pub fn keys(&self) -> io::Result<Vec<K>> {
        let mut keys: Vec<K> = Vec::new();
        loop {
            let mut next = MaybeUninit::<K>::uninit();
            let place = next.as_mut_ptr() as u64;
            match self.call(bpf_cmd::BPF_MAP_GET_NEXT_KEY, keys.last(), place, BPF_ANY) {
                // SAFETY: the kernel has filled as many bytes as the map's keys have, which `open` compared.
                Ok(()) => keys.push(unsafe { next.assume_init() }),
                Err(error) if is_missing(&error) => return Ok(keys),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether an entry may be there, must be, or must not: `BPF_ANY`, `BPF_EXIST`, `BPF_NOEXIST`.
pub(super) type Overwrite = u32;

/// Arguments of a command for one entry; `key` and `value` are addresses.
pub(super) fn entry(map: BorrowedFd<'_>, key: u64, value: u64, overwrite: Overwrite) -> bpf_attr {
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = number(map);
    attr.__bindgen_anon_2.key = key;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value;
    attr.__bindgen_anon_2.flags = overwrite.into();
    attr
}

fn is_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}

/// True if there was an entry, false if not.
fn or_missing(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LPM_TRIE};

    use super::*;

    #[test]
    fn a_full_map_is_named_with_its_limit() {
        for kind in [BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LPM_TRIE] {
            let table: Table<u64, u32> = Table::made(kind, "PREFIXES", 1).unwrap();
            // As a trie reads it: 32 bits, and the bits.
            let key = |number: u64| number << 32 | 32;
            table.insert(&key(1), &0).unwrap();
            let error = table.insert(&key(2), &0).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            let expected = "the kernel's map PREFIXES is full; it has room for 1 entries";
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn an_entry_that_is_gone_is_not_replaced() {
        let table: Table<u64, u32> = Table::made(BPF_MAP_TYPE_HASH, "SILENT", 1).unwrap();
        assert!(!table.replace(&1, &7).unwrap());
        assert_eq!(table.get(&1).unwrap(), None);
        table.insert_new(&1, &7).unwrap();
        assert_eq!(table.insert_new(&1, &8).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(table.replace(&1, &9).unwrap());
        assert_eq!(table.get(&1).unwrap(), Some(9));
    }
}
