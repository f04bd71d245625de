use std::collections::BTreeMap;
use std::os::fd::AsFd;

use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LPM_TRIE};

use super::super::attached::let_everything_pass;
use super::super::{Prefix, map_info, program_info};
use super::*;

fn hash(room: u32) -> Table<u64, u32> {
    Table::made(BPF_MAP_TYPE_HASH, "HASH", room).unwrap()
}

fn trie(room: u32) -> Table<Prefix<u32>, u32> {
    Table::made(BPF_MAP_TYPE_LPM_TRIE, "TRIE", room).unwrap()
}

/// More than one batch, and not a whole number of them.
const MANY: u32 = 3 * BATCH as u32 + 7;

#[test]
fn what_is_written_at_once_is_read_at_once() {
    let table = hash(MANY);
    let entries: Vec<_> = (0..MANY).map(|n| (u64::from(n) << 20, n)).collect();
    table.insert_all(&entries).unwrap();
    let read: BTreeMap<_, _> = table.entries().unwrap().into_iter().collect();
    assert_eq!(read, entries.iter().copied().collect());
    // Written again, with other values.
    let entries: Vec<_> = entries.into_iter().map(|(key, value)| (key, value + 1)).collect();
    table.insert_all(&entries).unwrap();
    let read: BTreeMap<_, _> = table.entries().unwrap().into_iter().collect();
    assert_eq!(read, entries.iter().copied().collect());
}

#[test]
fn a_trie_is_written_and_read_at_once_too() {
    let table = trie(MANY);
    let entries: Vec<_> = (0..MANY).map(|n| (Prefix { bits: 32, data: n }, n)).collect();
    table.insert_all(&entries).unwrap();
    let mut read: Vec<u32> = table.entries().unwrap().into_iter().map(|(_, value)| value).collect();
    read.sort_unstable();
    assert!(read.into_iter().eq(0..MANY));
    let keys: Vec<_> = entries.into_iter().map(|(key, _)| key).collect();
    table.remove_all(&keys).unwrap();
    assert!(table.entries().unwrap().is_empty());
}

#[test]
fn what_is_not_there_is_passed_over_when_much_is_removed() {
    let table = hash(MANY);
    let entries: Vec<_> = (0..MANY).map(|n| (u64::from(n), n)).collect();
    table.insert_all(&entries).unwrap();
    // Every other one is missing, the first and the last too.
    let keys: Vec<u64> = (0..u64::from(MANY)).map(|n| n * 2 + 1).chain([1 << 40]).collect();
    table.remove_all(&keys).unwrap();
    let mut left: Vec<u64> = table.entries().unwrap().into_iter().map(|(key, _)| key).collect();
    left.sort_unstable();
    assert!(left.into_iter().eq((0..u64::from(MANY)).filter(|n| n % 2 == 0)));
    table.remove_all(&[]).unwrap();
}

#[test]
fn an_empty_map_has_no_entries() {
    assert!(hash(1).entries().unwrap().is_empty());
    assert!(trie(1).entries().unwrap().is_empty());
}

#[test]
fn a_map_that_becomes_full_is_named() {
    let entries: Vec<_> = (0..11).map(|n| (n, 0)).collect();
    let error = hash(10).insert_all(&entries).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(error.to_string().contains("the kernel's map HASH is full"), "{error}");
}

/// Somebody removes the pin, and the map is found by the program.
#[test]
fn a_map_that_is_bound_to_a_program_is_among_its_maps() {
    let program = let_everything_pass().unwrap();
    let map = hash(1);
    let id = map_info(map.as_fd()).unwrap().id;
    assert!(!program_info(program.as_fd()).unwrap().maps.contains(&id));
    for _ in 0..2 {
        bind_map(program.as_fd(), map.as_fd()).unwrap();
        assert_eq!(program_info(program.as_fd()).unwrap().maps, [id]);
    }
}
