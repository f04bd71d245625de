//! Making maps.

use std::ffi::c_char;
use std::io;
use std::os::fd::OwnedFd;

use aya_obj::generated::{bpf_cmd, bpf_map_type};

use super::{open, zeroed};

/// Makes a map.
pub fn create(
    kind: bpf_map_type,
    name: &str,
    [key_size, value_size]: [usize; 2],
    room: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    attr.__bindgen_anon_1.map_type = kind as u32;
    attr.__bindgen_anon_1.key_size = key_size as u32;
    attr.__bindgen_anon_1.value_size = value_size as u32;
    attr.__bindgen_anon_1.max_entries = room;
    attr.__bindgen_anon_1.map_flags = flags;
    attr.__bindgen_anon_1.map_name = short(name);
    open(bpf_cmd::BPF_MAP_CREATE, &mut attr)
}

/// Makes a map as an object describes it.
///
/// # Errors
/// If the kernel refuses it, or has no such kind of maps.
pub fn create_map(name: &str, map: &aya_obj::Map) -> io::Result<OwnedFd> {
    let kind = bpf_map_type::try_from(map.map_type()).map_err(|_| io::ErrorKind::Unsupported)?;
    let sizes = [map.key_size() as usize, map.value_size() as usize];
    create(kind, name, sizes, map.max_entries(), map.map_flags())
}

/// A name as the kernel takes it. The last byte stays zero.
pub fn short(name: &str) -> [c_char; 16] {
    let mut short = [0; 16];
    for (place, byte) in short.iter_mut().take(15).zip(name.bytes()) {
        *place = byte as c_char;
    }
    short
}
