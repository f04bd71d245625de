//! Which workload a new cgroup's path stands for: follows the chain of patterns that may match it
//! (`common/src/selector.rs`), driven by `bpf_loop`.

use core::ffi::c_void;
use core::ptr::{null_mut, read_volatile};

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel_str};
use sheath_common::selector::{
    BeginningKey, MAX_PATTERNS, MAX_STEPS, Matcher, NONE, PATH_LEN, Search, Step, beginning_bits,
    last_characters,
};
use sheath_common::workload::Workload;

use crate::maps::{BEGINNINGS, GENERATION, SCRATCH, Scratch, pattern};

/// What a `bpf_loop` callback returns.
const NEXT: i64 = 0;
const STOP: i64 = 1;

/// What a path stands for.
pub enum Selected {
    Nothing,
    /// A path too long to tell, but that begins as one that matches may, is nobody's and refused.
    This(Workload),
    /// What it is recognised by was replaced again and again while it was looked at.
    CannotTell,
}

/// Reads the zero-terminated path at an address of the kernel's. False if there is none.
#[inline(always)]
pub fn read(path: *const c_void) -> bool {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the slot belongs to this CPU, and the tracepoint is not entered twice on it. The helper writes no more than
    // the buffer has room for, and refuses addresses that cannot be read.
    unsafe {
        let buffer = (&raw mut (*scratch).path).cast();
        let read = bpf_probe_read_kernel_str(buffer, PATH_LEN as u32, path);
        // The length counts the terminating zero. A path that fills the buffer may have been cut short.
        if read <= 1 || read as usize > PATH_LEN {
            return false;
        }
        (*scratch).is_cut = u32::from(read as usize == PATH_LEN);
        (*scratch).path_len = read as u32 - 1;
        (*scratch).last = last_characters(&(*scratch).path, (*scratch).path_len);
    }
    true
}

/// Looks for the first pattern that matches the path that has been [read].
#[inline(always)]
pub fn by_path() -> Selected {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return Selected::Nothing;
    };
    // SAFETY: as in `read`.
    unsafe {
        // Twice: replacing all patterns takes far longer than looking for one.
        if !search(scratch) && !search(scratch) {
            return Selected::CannotTell;
        }
        if (*scratch).search.best == NONE {
            Selected::Nothing
        } else if (*scratch).is_cut != 0 {
            Selected::This(Workload::REFUSED)
        } else {
            Selected::This((*scratch).workload)
        }
    }
}

/// False if the patterns were replaced meanwhile: those that are not in force any more go one by one.
///
/// # Safety
/// `scratch` must be this CPU's.
#[inline(always)]
unsafe fn search(scratch: *mut Scratch) -> bool {
    let Some(generation) = GENERATION.get_ptr(0) else {
        return false;
    };
    // SAFETY: as the caller says. The generation's entry lives as long as the map. Behind `key_bits` lie the generation and
    // at least as many bytes of path as the key has of text. The callback has the shape that the helper wants, and needs no
    // context.
    unsafe {
        (*scratch).generation = read_volatile(generation);
        (*scratch).is_torn = 0;
        (*scratch).key_bits = beginning_bits((*scratch).path_len);
        let key = (&raw const (*scratch).key_bits).cast::<Key<BeginningKey>>();
        let head = BEGINNINGS.get(&*key).copied();
        (*scratch).search = Search::from(head.unwrap_or(NONE));
        bpf_loop(MAX_PATTERNS, try_pattern as *mut c_void, null_mut(), 0);
        (*scratch).is_torn == 0 && (*scratch).generation == read_volatile(generation)
    }
}

/// Compares the path with one pattern and goes on to the next.
unsafe extern "C" fn try_pattern(_: u64, _: *mut c_void) -> i64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return STOP;
    };
    // SAFETY: the slot is this CPU's. The callback has the shape that the helper wants, and needs no context.
    unsafe {
        let number = (*scratch).search.next;
        if number == NONE {
            return STOP;
        }
        let Some(pattern) = pattern((*scratch).generation, number) else {
            (*scratch).is_torn = 1;
            return STOP;
        };
        let is_other = (*scratch).is_cut == 0 && !pattern.ending.may_be_of((*scratch).last);
        if !(*scratch).search.pass(pattern) || is_other {
            return NEXT;
        }
        (*scratch).glob = pattern.glob;
        (*scratch).matcher = Matcher::after(pattern.begins);
        (*scratch).is_match = 0;
        bpf_loop(MAX_STEPS + 1, try_position as *mut c_void, null_mut(), 0);
        if (*scratch).is_match != 0 {
            (*scratch).search.best = number;
            (*scratch).workload = pattern.workload;
        }
    }
    NEXT
}

/// Advances the match by one position.
unsafe extern "C" fn try_position(_: u64, _: *mut c_void) -> i64 {
    // SAFETY: the slot is this CPU's, and nobody else uses it until this returns.
    let Some(scratch) = SCRATCH.get_ptr_mut(0).map(|slot| unsafe { &mut *slot }) else {
        return STOP;
    };
    let Scratch { glob, matcher, path, path_len, is_cut, .. } = scratch;
    match matcher.step(glob, path, *path_len, *is_cut != 0) {
        Step::Continue => NEXT,
        Step::Mismatch => STOP,
        Step::Match => {
            scratch.is_match = 1;
            STOP
        }
    }
}
