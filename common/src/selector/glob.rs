//! Paths with wildcards.

use super::{MAX_PATH, PATH_LEN, PATTERN_LEN};

/// No match takes more steps than this: each position of the pattern is tried at each of the path at most once.
pub const MAX_STEPS: u32 = (PATTERN_LEN * PATH_LEN) as u32;

/// A path from the cgroup v2 root, beginning with `/`. `*` stands for any run of characters and `?` for one, both within
/// a path component.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glob {
    len: u32,
    text: [u8; PATTERN_LEN],
}

impl Glob {
    /// `None` if the pattern is longer than [`PATTERN_LEN`].
    #[must_use]
    pub fn new(pattern: &[u8]) -> Option<Self> {
        let mut text = [0; PATTERN_LEN];
        text.get_mut(..pattern.len())?.copy_from_slice(pattern);
        Some(Self { len: pattern.len() as u32, text })
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..(self.len as usize).min(PATTERN_LEN)]
    }

    /// What every path that matches begins with: the characters up to the first wildcard.
    #[must_use]
    pub fn beginning(&self) -> &[u8] {
        let pattern = self.as_bytes();
        let end = pattern.iter().position(|c| matches!(c, b'*' | b'?')).unwrap_or(pattern.len());
        &pattern[..end]
    }

    /// What every path that matches ends with: the characters behind the last wildcard.
    #[must_use]
    pub fn ending(&self) -> Ending {
        let pattern = self.as_bytes();
        let wildcard = pattern.iter().rposition(|c| matches!(c, b'*' | b'?'));
        Ending::of(&pattern[wildcard.map_or(0, |at| at + 1)..])
    }

    /// The number of components, which is that of every path that matches.
    #[must_use]
    pub fn depth(&self) -> usize {
        depth(self.as_bytes())
    }

    /// Compares a path on the host, as the kernel's side does.
    #[must_use]
    pub fn select(&self, path: &[u8]) -> Selection {
        let is_cut = path.len() > MAX_PATH;
        let read = &path[..path.len().min(PATH_LEN - 1)];
        let mut buffer = [0; PATH_LEN];
        buffer[..read.len()].copy_from_slice(read);
        let mut matcher = Matcher::default();
        for _ in 0..=MAX_STEPS {
            match matcher.step(self, &buffer, read.len() as u32, is_cut) {
                Step::Continue => {}
                Step::Match if is_cut => return Selection::TooLong,
                Step::Match => return Selection::Selected,
                Step::Mismatch => return Selection::Other,
            }
        }
        Selection::Other
    }

    /// True if this matches a whole path.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        self.select(path) == Selection::Selected
    }
}

/// The number of components of a path from the root.
#[must_use]
pub fn depth(path: &[u8]) -> usize {
    path.iter().filter(|c| **c == b'/').count()
}

/// The last characters of a text, up to eight, in one number, the last one lowest. One comparison shows that a path ends in
/// another way.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    characters: u64,
    /// Which bits of the number count.
    mask: u64,
}

/// Bytes of a path that are compared with an [`Ending`].
pub const ENDING_LEN: u32 = 8;

impl Ending {
    fn of(text: &[u8]) -> Self {
        let last = text.iter().rev().take(ENDING_LEN as usize);
        last.zip(0..).fold(Self::default(), |ending, (character, at)| Self {
            characters: ending.characters | u64::from(*character) << (8 * at),
            mask: ending.mask | 0xff << (8 * at),
        })
    }

    /// True if a path may end so whose last characters are these, in the same form.
    #[inline(always)]
    #[must_use]
    pub const fn may_be_of(&self, last: u64) -> bool {
        (last ^ self.characters) & self.mask == 0
    }
}

/// The last characters of a path, as [`Ending`] has them; zeros stand for what a shorter one has not.
#[inline(always)]
#[must_use]
pub fn last_characters(path: &[u8; PATH_LEN], path_len: u32) -> u64 {
    let mut last = 0;
    for at in 0..ENDING_LEN {
        if at < path_len {
            let index = (path_len - 1 - at) as usize & (PATH_LEN - 1);
            last |= (path[index] as u64) << (8 * at);
        }
    }
    last
}

/// What a pattern says about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    Selected,
    /// Begins as a path that is selected may, and is longer than [`MAX_PATH`], so the kernel's side cannot tell.
    TooLong,
    Other,
}

/// How far a match has come. One [`Matcher::step`] looks at one position, so that the kernel can drive it
/// with `bpf_loop`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Matcher {
    pattern_at: u32,
    path_at: u32,
    /// Where to resume after the last `*`: one past it in the pattern (zero: none seen), and in the path.
    retry_pattern: u32,
    retry_path: u32,
}

/// What a step found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Continue,
    Match,
    Mismatch,
}

impl Matcher {
    /// Of a path that is known to begin as the pattern does, for so many characters.
    #[inline(always)]
    #[must_use]
    pub const fn after(beginning: u32) -> Self {
        Self { pattern_at: beginning, path_at: beginning, retry_pattern: 0, retry_path: 0 }
    }

    /// Advances by one position. `path_len` are the bytes in use. Of a path that `is_cut` the rest is not known: it matches
    /// if one that begins so could.
    #[inline(always)]
    pub fn step(
        &mut self,
        pattern: &Glob,
        path: &[u8; PATH_LEN],
        path_len: u32,
        is_cut: bool,
    ) -> Step {
        let in_pattern = self.pattern_at < pattern.len;
        let wanted = pattern.text[self.pattern_at as usize & (PATTERN_LEN - 1)];
        if self.path_at >= path_len {
            if is_cut {
                return Step::Match;
            }
            if in_pattern && wanted == b'*' {
                self.pattern_at += 1;
                return Step::Continue;
            }
            return if in_pattern { Step::Mismatch } else { Step::Match };
        }
        let found = path[self.path_at as usize & (PATH_LEN - 1)];
        if in_pattern && wanted == b'*' {
            self.pattern_at += 1;
            self.retry_pattern = self.pattern_at;
            self.retry_path = self.path_at;
            return Step::Continue;
        }
        if in_pattern && (wanted == found || (wanted == b'?' && found != b'/')) {
            self.pattern_at += 1;
            self.path_at += 1;
            return Step::Continue;
        }
        // Let the last `*` swallow one more character, unless that is a separator.
        if self.retry_pattern == 0 || path[self.retry_path as usize & (PATH_LEN - 1)] == b'/' {
            return Step::Mismatch;
        }
        self.retry_path += 1;
        self.path_at = self.retry_path;
        self.pattern_at = self.retry_pattern;
        Step::Continue
    }
}

/// The path below which everything lies that a pattern matches: its components up to the first with a wildcard, without
/// the last. Empty for the root.
#[must_use]
pub fn base(pattern: &str) -> &str {
    let literal = pattern.find(['*', '?']).map_or(pattern, |at| &pattern[..at]);
    literal.rfind('/').map_or("", |at| &pattern[..at])
}

#[cfg(test)]
mod tests;
