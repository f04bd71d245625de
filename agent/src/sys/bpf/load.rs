//! Programs whose instructions are at hand, and the constants that they read.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya_obj::generated::{
    BPF_ANY, BPF_F_RDONLY_PROG, bpf_attr, bpf_cmd, bpf_insn, bpf_map_type, bpf_prog_type,
};

use super::create::{create, short};
use super::{AttachType, call, number, open, zeroed};

/// The verifier gives up when a signal comes, and wants to be asked again.
const ATTEMPTS: usize = 5;

/// What is read of the verifier's log.
const LOG: usize = 64 * 1024;

/// Makes a map of constants: nobody changes them any more, so the verifier takes them for what they are.
///
/// # Errors
/// If the kernel refuses it.
pub fn constants(bytes: &[u8]) -> io::Result<OwnedFd> {
    let sizes = [size_of::<u32>(), bytes.len()];
    let map = create(bpf_map_type::BPF_MAP_TYPE_ARRAY, ".rodata", sizes, 1, BPF_F_RDONLY_PROG)?;
    let key = 0_u32;
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = number(map.as_fd());
    attr.__bindgen_anon_2.key = std::ptr::from_ref(&key) as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = bytes.as_ptr() as u64;
    attr.__bindgen_anon_2.flags = u64::from(BPF_ANY);
    call(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr)?;
    freeze(map.as_fd())?;
    Ok(map)
}

fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = number(map);
    call(bpf_cmd::BPF_MAP_FREEZE, &mut attr)
}

/// Loads an `sk_lookup` program. Maps are in its instructions, by their descriptors. What the verifier says against it goes to the
/// debug log.
///
/// # Errors
/// If the kernel refuses it.
pub fn load_sk_lookup(
    name: &str,
    license: &CStr,
    instructions: &[bpf_insn],
) -> io::Result<OwnedFd> {
    let mut attr = program(name, license, instructions);
    let mut loaded = open(bpf_cmd::BPF_PROG_LOAD, &mut attr);
    for _ in 1..ATTEMPTS {
        match &loaded {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                loaded = open(bpf_cmd::BPF_PROG_LOAD, &mut attr);
            }
            _ => break,
        }
    }
    let error = match loaded {
        Ok(program) => return Ok(program),
        Err(error) => error,
    };
    let mut log = vec![0_u8; LOG];
    attr.__bindgen_anon_3.log_level = 1;
    attr.__bindgen_anon_3.log_size = LOG as u32;
    attr.__bindgen_anon_3.log_buf = log.as_mut_ptr() as u64;
    // If it is taken this time, it was no matter of the program.
    open(bpf_cmd::BPF_PROG_LOAD, &mut attr).inspect_err(|_| {
        let said: Vec<u8> = log.into_iter().take_while(|byte| *byte != 0).collect();
        tracing::debug!(program = name, %error, "refused: {}", String::from_utf8_lossy(&said));
    })
}

fn program(name: &str, license: &CStr, instructions: &[bpf_insn]) -> bpf_attr {
    let mut attr = zeroed();
    attr.__bindgen_anon_3.prog_type = bpf_prog_type::BPF_PROG_TYPE_SK_LOOKUP as u32;
    attr.__bindgen_anon_3.expected_attach_type = AttachType::SkLookup as u32;
    attr.__bindgen_anon_3.insn_cnt = instructions.len() as u32;
    attr.__bindgen_anon_3.insns = instructions.as_ptr() as u64;
    attr.__bindgen_anon_3.license = license.as_ptr() as u64;
    attr.__bindgen_anon_3.prog_name = short(name);
    attr
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::bpf::{map_info, program_info};

    fn instruction(code: u8, imm: i32) -> bpf_insn {
        let (_bitfield_align_1, _bitfield_1) = Default::default();
        bpf_insn { code, _bitfield_align_1, _bitfield_1, off: 0, imm }
    }

    #[test]
    fn a_program_is_loaded_under_its_name_or_refused() {
        // r0 = 1; exit
        let passes = [instruction(0xb7, 1), instruction(0x95, 0)];
        let program = load_sk_lookup("passes", c"GPL", &passes).unwrap();
        assert_eq!(program_info(program.as_fd()).unwrap().name, "passes");
        let error = load_sk_lookup("falls", c"GPL", &passes[..1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn constants_stay_as_they_are() {
        let map = constants(&7_u64.to_ne_bytes()).unwrap();
        let info = map_info(map.as_fd()).unwrap();
        assert_eq!((info.name.as_str(), info.value_size, info.room), (".rodata", 8, 1));
        let (key, value) = (0_u32, 8_u64);
        let mut attr = zeroed();
        attr.__bindgen_anon_2.map_fd = number(map.as_fd());
        attr.__bindgen_anon_2.key = std::ptr::from_ref(&key) as u64;
        attr.__bindgen_anon_2.__bindgen_anon_1.value = std::ptr::from_ref(&value) as u64;
        let error = call(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
