//! Programs and maps as the kernel lists them: by id, with their names and what they use, our own and those of others.

use std::ffi::c_char;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use aya_obj::generated::{bpf_cmd, bpf_link_info, bpf_map_info, bpf_prog_info};

use super::{call, number, open, zeroed};

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
    /// In bytes.
    pub key_size: u32,
    /// In bytes.
    pub value_size: u32,
    /// How many entries it has room for.
    pub room: u32,
}

/// Kernel's id of a program.
pub fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info: bpf_prog_info = no_description();
    describe(program, &mut info)?;
    Ok(info.id)
}

pub fn program_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    let mut info: bpf_prog_info = no_description();
    describe(program, &mut info)?;
    let count = info.nr_map_ids;
    let mut maps = vec![0_u32; count as usize];
    // All but these is to be zero again, and so are the bytes that belong to no field.
    info = no_description();
    info.nr_map_ids = count;
    info.map_ids = maps.as_mut_ptr() as u64;
    describe(program, &mut info)?;
    maps.truncate(info.nr_map_ids as usize);
    Ok(ProgramInfo { id: info.id, name: text(&info.name), maps })
}

pub fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut info: bpf_map_info = no_description();
    describe(map, &mut info)?;
    Ok(MapInfo {
        id: info.id,
        name: text(&info.name),
        key_size: info.key_size,
        value_size: info.value_size,
        room: info.max_entries,
    })
}

/// Opens a program by its id.
///
/// # Errors
/// `NotFound` if it is gone.
pub fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    attr.__bindgen_anon_6.__bindgen_anon_1.prog_id = id;
    open(bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut attr)
}

/// Opens a map by its id.
///
/// # Errors
/// `NotFound` if it is gone.
pub fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    attr.__bindgen_anon_6.__bindgen_anon_1.map_id = id;
    open(bpf_cmd::BPF_MAP_GET_FD_BY_ID, &mut attr)
}

/// What a program returns for a frame that comes in on, or goes out by, the loopback interface.
pub fn test_run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<u32> {
    let mut attr = zeroed();
    attr.test.prog_fd = number(program);
    attr.test.data_size_in = frame.len() as u32;
    attr.test.data_in = frame.as_ptr() as u64;
    attr.test.repeat = 1;
    call(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr)?;
    // SAFETY: it is what the kernel has answered in, and made of integers.
    Ok(unsafe { attr.test.retval })
}

/// A structure in which the kernel describes objects of a kind.
///
/// # Safety
/// It is made of integers, so that any bytes are one.
pub unsafe trait Description: Copy {}

// SAFETY: it is, as all such structures of the kernel's are.
unsafe impl Description for bpf_prog_info {}
// SAFETY: as above.
unsafe impl Description for bpf_map_info {}
// SAFETY: as above.
unsafe impl Description for bpf_link_info {}

pub fn no_description<D: Description>() -> D {
    // SAFETY: any bytes are one.
    unsafe { std::mem::zeroed() }
}

/// Has the kernel describe an object. The description says where to put lists, and is otherwise empty: a kernel that
/// knows less refuses what is not zero behind that.
pub fn describe<D: Description>(object: BorrowedFd<'_>, description: &mut D) -> io::Result<()> {
    let mut attr = zeroed();
    attr.info.bpf_fd = number(object);
    attr.info.info_len = size_of::<D>() as u32;
    attr.info.info = std::ptr::from_mut(description) as u64;
    call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)
}

/// A name, which ends with a zero unless it fills the field.
fn text(name: &[c_char]) -> String {
    let bytes: Vec<u8> =
        name.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::attached::let_everything_pass;
    use super::*;

    #[test]
    fn a_program_is_described_found_and_run() {
        let program = let_everything_pass().unwrap();
        let info = program_info(program.as_fd()).unwrap();
        assert_eq!((info.name.as_str(), info.maps.as_slice()), ("pass", [].as_slice()));
        assert_eq!(program_id(program.as_fd()).unwrap(), info.id);
        let again = program_by_id(info.id).unwrap();
        assert_eq!(program_info(again.as_fd()).unwrap(), info);
        assert_eq!(test_run(program.as_fd(), &[0; 64]).unwrap(), 1);
    }
}
