//! Recognising a workload's cgroup by its path, in the kernel at the moment the cgroup is made and on the
//! host for those that exist already.
//!
//! There may be many thousand patterns, and making a cgroup must stay fast. So patterns are found by their beginnings, the
//! characters up to their first wildcard: the `BEGINNINGS` trie returns the longest beginning that a
//! path has. From there a chain leads through all patterns with that beginning, and on to those with shorter beginnings that the
//! path has as well. The chain has every pattern that may match, and few others: for a path without wildcards it is no more than
//! a lookup. Of patterns that begin alike, most end in another way than the path, which one comparison tells.
//!
//! Patterns are numbered. Of several that match, the lowest number has the cgroup.

mod glob;

pub use glob::{Ending, Glob, MAX_STEPS, Matcher, Selection, Step, base, depth, last_characters};

use crate::workload::Workload;

/// Longest pattern, in bytes. A power of two: indices are masked with it for the verifier.
pub const PATTERN_LEN: usize = 128;
/// Room for a path. The kernel's side reads the terminating zero too, and cannot tell a full buffer from a path that was
/// cut short.
pub const PATH_LEN: usize = 512;
/// Longest path that is matched whole, in bytes.
pub const MAX_PATH: usize = PATH_LEN - 2;

/// Workloads that a host may have.
pub const MAX_SELECTED: u32 = 16_000;
/// Patterns: those of workloads, and the paths below which they lie.
pub const MAX_PATTERNS: u32 = 2 * MAX_SELECTED;

/// Stands for no pattern.
pub const NONE: u32 = u32::MAX;

/// Key of the `PATTERNS` map.
///
/// All patterns are replaced at once: the new ones are written under another generation, which then becomes that in force.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PatternKey {
    pub generation: u32,
    pub number: u32,
}

/// Value of the `PATTERNS` map: a pattern, what matches it, and where the chain goes on.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    pub workload: Workload,
    pub ending: Ending,
    pub glob: Glob,
    /// Length of its beginning.
    pub begins: u32,
    /// Number of the next in the chain, or [`NONE`].
    pub next: u32,
    /// The lowest number from here on.
    pub least: u32,
}

/// Key of the `BEGINNINGS` longest-prefix trie, without its prefix length.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BeginningKey {
    pub generation: u32,
    pub text: [u8; PATTERN_LEN],
}

/// Bits of a `BEGINNINGS` key before the text.
pub const BEGINNING_PREFIX_BITS: u32 = 32;

/// How many bits of a `BEGINNINGS` key count, with so many bytes of text.
#[inline(always)]
#[must_use]
pub const fn beginning_bits(len: u32) -> u32 {
    let most = PATTERN_LEN as u32;
    BEGINNING_PREFIX_BITS + if len < most { len } else { most } * 8
}

/// Follows a chain, for the first in order that matches.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// Number of the pattern to look at, or [`NONE`].
    pub next: u32,
    /// Number of the best that has matched, or [`NONE`].
    pub best: u32,
}

impl Search {
    /// From the number that the trie has for the path.
    #[inline(always)]
    #[must_use]
    pub const fn from(head: u32) -> Self {
        Self { next: head, best: NONE }
    }

    /// Goes on to the pattern behind `pattern`, which is the next one's. True if the path must be compared with it; false
    /// if another has the cgroup already.
    #[inline(always)]
    pub fn pass(&mut self, pattern: &Pattern) -> bool {
        let number = self.next;
        // Behind here there may be none that comes before the best.
        self.next = if self.best < pattern.least { NONE } else { pattern.next };
        number < self.best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_ends_where_nothing_better_can_come() {
        let pattern = |next, least| Pattern {
            workload: Workload::NOBODY,
            ending: Ending::default(),
            glob: Glob::new(b"/a").unwrap(),
            begins: 2,
            next,
            least,
        };
        let mut search = Search::from(4);
        assert!(search.pass(&pattern(6, 3)));
        search.best = 4;
        assert_eq!(search.next, 6);
        // It does not come first, but one behind it may.
        assert!(!search.pass(&pattern(3, 3)));
        assert!(search.pass(&pattern(9, 3)));
        search.best = 3;
        assert!(!search.pass(&pattern(10, 9)));
        assert_eq!((search.next, search.best), (NONE, 3));
    }

    #[test]
    fn no_more_of_a_path_is_asked_for_than_a_pattern_may_have() {
        assert_eq!(beginning_bits(0), 32);
        assert_eq!(beginning_bits(3), 56);
        assert_eq!(beginning_bits(510), 32 + 128 * 8);
    }
}
