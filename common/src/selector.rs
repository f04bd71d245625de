//! Recognising a workload's cgroup by its path, in the kernel at the moment the cgroup is made and on the
//! host for those that exist already.
//!
//! A pattern is a path from the cgroup v2 root, beginning with `/`. `*` stands for any run of characters and
//! `?` for one, both within a path component.

use crate::workload::Workload;

/// Longest pattern, in bytes. A power of two: indices are masked with it for the verifier.
pub const PATTERN_LEN: usize = 128;
/// Room for a path. The kernel's side reads the terminating zero too, and cannot tell a full buffer from a path that was
/// cut short.
pub const PATH_LEN: usize = 512;
/// Longest path that is matched whole, in bytes.
pub const MAX_PATH: usize = PATH_LEN - 2;
/// Patterns of workloads.
pub const MAX_PATTERNS: u32 = 256;
/// Entries of the `SELECTORS` map: patterns, and the paths below which they lie.
pub const MAX_SELECTORS: u32 = 2 * MAX_PATTERNS;
/// No match takes more steps than this: each position of the pattern is tried at each of the path at most once.
pub const MAX_STEPS: u32 = (PATTERN_LEN * PATH_LEN) as u32;

/// Value of the `SELECTORS` array.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Selector {
    /// An `id` of zero ends the list.
    pub workload: Workload,
    pub len: u32,
    pub _reserved: u32,
    pub pattern: [u8; PATTERN_LEN],
}

impl Selector {
    pub const NONE: Self = Self {
        workload: Workload::new(
            0,
            crate::workload::OutboundMode::Disabled,
            crate::workload::InboundMode::Disabled,
            false,
        ),
        len: 0,
        _reserved: 0,
        pattern: [0; PATTERN_LEN],
    };

    /// `None` if the pattern is longer than [`PATTERN_LEN`].
    #[must_use]
    pub fn new(pattern: &[u8], workload: Workload) -> Option<Self> {
        let mut selector = Self::NONE;
        selector.pattern.get_mut(..pattern.len())?.copy_from_slice(pattern);
        selector.workload = workload;
        selector.len = pattern.len() as u32;
        Some(selector)
    }
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
    /// Advances by one position. `pattern_len` and `path_len` are the bytes in use. Of a path that `is_cut` the rest is not
    /// known: it matches if one that begins so could.
    #[inline(always)]
    pub fn step(
        &mut self,
        pattern: &[u8; PATTERN_LEN],
        pattern_len: u32,
        path: &[u8; PATH_LEN],
        path_len: u32,
        is_cut: bool,
    ) -> Step {
        let in_pattern = self.pattern_at < pattern_len;
        let wanted = pattern[self.pattern_at as usize & (PATTERN_LEN - 1)];
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

/// What a selector says about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    Selected,
    /// Begins as a path that is selected may, and is longer than [`MAX_PATH`], so the kernel's side cannot tell.
    TooLong,
    Other,
}

/// Looks at a path on the host, as the kernel's side does.
#[must_use]
pub fn select(selector: &Selector, path: &[u8]) -> Selection {
    let is_cut = path.len() > MAX_PATH;
    let read = &path[..path.len().min(PATH_LEN - 1)];
    let mut buffer = [0; PATH_LEN];
    buffer[..read.len()].copy_from_slice(read);
    let mut matcher = Matcher::default();
    for _ in 0..=MAX_STEPS {
        match matcher.step(&selector.pattern, selector.len, &buffer, read.len() as u32, is_cut) {
            Step::Continue => {}
            Step::Match if is_cut => return Selection::TooLong,
            Step::Match => return Selection::Selected,
            Step::Mismatch => return Selection::Other,
        }
    }
    Selection::Other
}

/// True if a selector matches a whole path.
#[must_use]
pub fn matches(selector: &Selector, path: &[u8]) -> bool {
    select(selector, path) == Selection::Selected
}

/// The path below which everything lies that a pattern matches: its components up to the first with a wildcard, without
/// the last. Empty for the root.
#[must_use]
pub fn base(pattern: &str) -> &str {
    let literal = pattern.find(['*', '?']).map_or(pattern, |at| &pattern[..at]);
    literal.rfind('/').map_or("", |at| &pattern[..at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn glob(pattern: &str, path: &str) -> bool {
        matches(&Selector::new(pattern.as_bytes(), Workload::default()).unwrap(), path.as_bytes())
    }

    /// The obvious recursive definition, to compare with.
    fn reference(pattern: &[u8], path: &[u8]) -> bool {
        match (pattern.split_first(), path.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                reference(rest, path)
                    || matches!(path.split_first(), Some((c, tail)) if *c != b'/' && reference(pattern, tail))
            }
            (Some((b'?', rest)), Some((c, tail))) if *c != b'/' => reference(rest, tail),
            (Some((p, rest)), Some((c, tail))) => p == c && reference(rest, tail),
            _ => false,
        }
    }

    #[test]
    fn plain_paths_match_themselves_only() {
        assert!(glob("/system.slice/nginx.service", "/system.slice/nginx.service"));
        assert!(!glob("/system.slice/nginx.service", "/system.slice/nginx.service/sub"));
        assert!(!glob("/system.slice/nginx.service", "/system.slice"));
    }

    #[test]
    fn stars_stay_within_a_component() {
        assert!(glob("/demo.slice/web*", "/demo.slice/web"));
        assert!(glob("/demo.slice/web*", "/demo.slice/web-1.scope"));
        assert!(!glob("/demo.slice/web*", "/demo.slice/web/inner"));
        assert!(glob("/kube*/pod?", "/kubepods/pod7"));
        assert!(!glob("/kube*/pod?", "/kubepods/pod77"));
        assert!(!glob("/a?b", "/a/b"));
    }

    #[test]
    fn the_longest_path_and_pattern_are_handled() {
        let pattern = format!("/{}*", "a".repeat(PATTERN_LEN - 2));
        let path = format!("/{}", "a".repeat(PATH_LEN - 3));
        assert!(glob(&pattern, &path));
        assert_eq!(path.len(), MAX_PATH);
        assert!(!glob(&pattern, &format!("{path}a")));
        assert!(Selector::new(&[b'a'; PATTERN_LEN + 1], Workload::default()).is_none());
    }

    fn selection(pattern: &str, path: &str) -> Selection {
        let selector = Selector::new(pattern.as_bytes(), Workload::default()).unwrap();
        select(&selector, path.as_bytes())
    }

    #[test]
    fn a_path_that_is_too_long_to_tell_is_not_taken_for_another() {
        let component = "a".repeat(255);
        let deep = format!("/s/{component}/{component}");
        assert_eq!(deep.len(), MAX_PATH + 4);
        for pattern in ["/s/*/*", "/s/*/a*z", "/s/a*/a?*"] {
            assert_eq!(selection(pattern, &deep), Selection::TooLong, "{pattern}");
            // Nor is what is below it.
            assert_eq!(selection(pattern, &format!("{deep}/b")), Selection::TooLong, "{pattern}");
        }
        for pattern in ["/s/*", "/s/b*/*", "/t/*/*", "/s/*/b*", "/s/a"] {
            assert_eq!(selection(pattern, &deep), Selection::Other, "{pattern}");
        }
    }

    #[test]
    fn the_base_of_a_pattern_is_above_everything_it_matches() {
        for (pattern, expected) in [
            ("/demo.slice/web*", "/demo.slice"),
            ("/demo.slice/web", "/demo.slice"),
            ("/a/b?/c", "/a"),
            ("/a/*/c", "/a"),
            ("/*", ""),
            ("/web", ""),
        ] {
            assert_eq!(base(pattern), expected, "{pattern}");
        }
    }

    proptest! {
        /// Whoever sees only the beginning of a path never says that it does not match when it does.
        #[test]
        fn a_path_that_matches_is_never_dismissed_for_its_beginning(
            parts in prop::collection::vec((0_u8..5, "[ab]{0,3}"), 0..10), cut in 0_usize..30,
        ) {
            let (mut pattern, mut path) = ("/".to_owned(), "/".to_owned());
            for (kind, text) in parts {
                let (spelt, found) = match kind {
                    0 => ("*".to_owned(), text),
                    1 => ("?".to_owned(), "b".to_owned()),
                    2 => ("/".to_owned(), "/".to_owned()),
                    _ => (text.clone(), text),
                };
                pattern += &spelt;
                path += &found;
            }
            prop_assert!(glob(&pattern, &path));
            let selector = Selector::new(pattern.as_bytes(), Workload::default()).unwrap();
            let beginning = &path.as_bytes()[..cut.min(path.len())];
            let mut buffer = [0; PATH_LEN];
            buffer[..beginning.len()].copy_from_slice(beginning);
            let mut matcher = Matcher::default();
            let last = (0..=MAX_STEPS)
                .map(|_| matcher.step(&selector.pattern, selector.len, &buffer, beginning.len() as u32, true))
                .find(|step| *step != Step::Continue);
            prop_assert_eq!(last, Some(Step::Match));
        }

        #[test]
        fn agrees_with_the_recursive_definition(pattern in "/[ab*?/]{0,12}", path in "/[ab/]{0,14}") {
            prop_assert_eq!(glob(&pattern, &path), reference(pattern.as_bytes(), path.as_bytes()));
        }

        #[test]
        fn never_needs_more_than_the_step_limit(pattern in "/[a*]{100,127}", path in "/[ab]{200,510}") {
            let selector = Selector::new(pattern.as_bytes(), Workload::default()).unwrap();
            let mut buffer = [0; PATH_LEN];
            buffer[..path.len()].copy_from_slice(path.as_bytes());
            let mut matcher = Matcher::default();
            let ended = (0..=MAX_STEPS).any(|_| {
                matcher.step(&selector.pattern, selector.len, &buffer, path.len() as u32, false) != Step::Continue
            });
            prop_assert!(ended);
        }
    }
}
