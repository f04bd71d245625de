//! The `sk_lookup` program, read from the object once for all namespaces. Each is given a copy that has the namespace's cookie among
//! its constants. To read the object takes ten times as long as to load the copy, and on a node every pod has a namespace.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use aya_obj::generated::{BPF_PSEUDO_MAP_VALUE, bpf_insn};
use aya_obj::{EbpfSectionKind, Map, Object};

use super::held::HeldMaps;
use super::object::{OBJECT, missing};
use crate::capture::error::CaptureError;
use crate::sys::bpf;

/// Its name in the object, and in the kernel.
pub const STEER: &str = "steer";

/// The constant that is the namespace's cookie.
const NETNS: &str = "NETNS";

/// No descriptor has this number: it stands for that of the constants.
const CONSTANTS: RawFd = -1;

/// The program, with room for a cookie.
pub struct SteerProgram {
    license: CString,
    /// The maps in them are those of `held`.
    instructions: Vec<bpf_insn>,
    /// Indices of the instructions that refer to the constants.
    referring: Vec<usize>,
    constants: Vec<u8>,
    /// Where in them the cookie is.
    cookie: Range<usize>,
    /// Maps that only copies of this program use: room to work in, and further constants.
    _others: Vec<OwnedFd>,
    held: Arc<HeldMaps>,
}

impl fmt::Debug for SteerProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SteerProgram").field("held", &self.held).finish_non_exhaustive()
    }
}

impl SteerProgram {
    /// Reads it. It uses the maps that are held.
    ///
    /// # Errors
    /// If it is not in the object, or the kernel refuses a map.
    pub fn read(held: Arc<HeldMaps>) -> Result<Self, CaptureError> {
        let parsed = Object::parse(OBJECT).map_err(unusable)?;
        let mut object = with_cookie(&parsed, 0)?;
        let (section, cookie) = place(&object, &with_cookie(&parsed, u64::MAX)?)?;
        let program = object.programs.remove(STEER).ok_or_else(|| missing(STEER))?;
        // Of other programs nothing is needed.
        for other in std::mem::take(&mut object.programs).into_values() {
            object.functions.remove(&other.function_key());
        }
        let (key, license) = (program.function_key(), program.license.clone());
        object.programs.insert(STEER.to_owned(), program);
        let sections: HashSet<usize> =
            object.functions.keys().map(|(section, _)| *section).collect();
        let maps = std::mem::take(&mut object.maps);
        let mut others = Vec::new();
        let mut known = Vec::new();
        // None may be left out: another one would be taken for it.
        for (name, map) in &maps {
            let descriptor = if *name == section {
                CONSTANTS
            } else if let Some(held) = held.map(name) {
                held.as_raw_fd()
            } else {
                let other = unshared(name, map)?;
                let descriptor = other.as_raw_fd();
                others.push(other);
                descriptor
            };
            known.push((name.as_str(), descriptor, map));
        }
        object.relocate_maps(known.into_iter(), &sections).map_err(unusable)?;
        object.relocate_calls(&sections).map_err(unusable)?;
        let function = object.functions.remove(&key).ok_or_else(|| missing(STEER))?;
        let instructions = function.instructions;
        let refers = |instruction: &bpf_insn| {
            u32::from(instruction.src_reg()) == BPF_PSEUDO_MAP_VALUE && instruction.imm == CONSTANTS
        };
        let referring =
            (0..instructions.len()).filter(|index| refers(&instructions[*index])).collect();
        let constants = maps[&section].data().to_vec();
        Ok(Self { license, instructions, referring, constants, cookie, _others: others, held })
    }

    /// The maps that it uses.
    pub fn held(&self) -> &HeldMaps {
        &self.held
    }

    /// Loads a copy for the namespace of this cookie.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn load(&self, cookie: u64) -> io::Result<OwnedFd> {
        let mut constants = self.constants.clone();
        constants[self.cookie.clone()].copy_from_slice(&cookie.to_ne_bytes());
        let constants = bpf::constants(&constants)?;
        let mut instructions = self.instructions.clone();
        for index in &self.referring {
            instructions[*index].imm = constants.as_raw_fd();
        }
        bpf::load_sk_lookup(STEER, &self.license, &instructions)
    }
}

fn with_cookie(parsed: &Object, cookie: u64) -> Result<Object, CaptureError> {
    let mut object = parsed.clone();
    let bytes = cookie.to_ne_bytes();
    object.patch_map_data(HashMap::from([(NETNS, (&bytes[..], true))])).map_err(unusable)?;
    Ok(object)
}

/// A map that the programs for cgroups have another one of.
fn unshared(name: &str, map: &Map) -> Result<OwnedFd, CaptureError> {
    let made = match map.section_kind() {
        EbpfSectionKind::Rodata => bpf::constants(map.data()),
        _ => bpf::create_map(name, map),
    };
    made.map_err(unusable)
}

/// The section of constants that has a cookie, and where in it that is, given the object with a zero and with ones in its place.
fn place(zeros: &Object, ones: &Object) -> Result<(String, Range<usize>), CaptureError> {
    let in_section = |(name, map): (&String, &Map)| {
        let begin =
            map.data().iter().zip(ones.maps[name].data()).position(|(zero, one)| zero != one)?;
        Some((name.clone(), begin..begin + size_of::<u64>()))
    };
    zeros.maps.iter().find_map(in_section).ok_or_else(|| missing(NETNS))
}

fn unusable(error: impl fmt::Display) -> CaptureError {
    CaptureError::Load(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_has_its_place_among_the_constants() {
        let parsed = Object::parse(OBJECT).unwrap();
        let [zeros, ones] = [0, u64::MAX].map(|cookie| with_cookie(&parsed, cookie).unwrap());
        let (section, cookie) = place(&zeros, &ones).unwrap();
        assert_eq!(ones.maps[&section].data()[cookie.clone()], [0xff; 8]);
        let other = with_cookie(&parsed, 7).unwrap();
        assert_eq!(other.maps[&section].data()[cookie], 7_u64.to_ne_bytes());
        assert!(place(&zeros, &zeros).is_err());
    }
}
