use std::collections::HashMap;

use proptest::prelude::*;
use sheath_common::selector::{
    MAX_PATH, MAX_STEPS, Matcher, PATH_LEN, Search, Step, last_characters,
};

use super::*;

fn selectors(patterns: &[impl AsRef<str>]) -> Selectors {
    let glob = |pattern: &str| Glob::new(pattern.as_bytes()).unwrap();
    Selectors::new(patterns.iter().map(|text| glob(text.as_ref())))
}

/// The obvious way.
fn one_by_one(patterns: &[impl AsRef<str>], path: &[u8]) -> Vec<(usize, Selection)> {
    let select = |pattern: &str| Glob::new(pattern.as_bytes()).unwrap().select(path);
    let all = patterns.iter().map(|pattern| select(pattern.as_ref())).enumerate();
    all.filter(|(_, selection)| *selection != Selection::Other).collect()
}

/// The kernel's side (`ebpf/src/select.rs`), with its maps: which pattern has a path, and with how many it was compared.
struct Kernel {
    patterns: HashMap<PatternKey, Pattern>,
    beginnings: Vec<BeginningEntry>,
}

const GENERATION: u32 = 7;

impl Kernel {
    fn new(selectors: &Selectors) -> Self {
        let (patterns, beginnings) = selectors.entries(GENERATION);
        Self { patterns: patterns.into_iter().collect(), beginnings }
    }

    /// The longest prefix of a trie.
    fn head(&self, path: &[u8; PATH_LEN], bits: u32) -> u32 {
        let matches = |(prefix, _): &&BeginningEntry| {
            let len = (prefix.bits as usize - 32) / 8;
            prefix.bits <= bits && { prefix.data }.text[..len] == path[..len]
        };
        let longest = self.beginnings.iter().filter(matches).max_by_key(|(prefix, _)| prefix.bits);
        longest.map_or(NONE, |(_, head)| *head)
    }

    fn first(&self, path: &[u8]) -> (Option<usize>, usize) {
        let is_cut = path.len() > MAX_PATH;
        let read = &path[..path.len().min(PATH_LEN - 1)];
        // What is behind the path is left from another.
        let mut buffer = [b'a'; PATH_LEN];
        buffer[..read.len()].copy_from_slice(read);
        let len = read.len() as u32;
        let mut search = Search::from(self.head(&buffer, beginning_bits(len)));
        let mut compared = 0;
        while search.next != NONE {
            let number = search.next;
            let pattern = &self.patterns[&PatternKey { generation: GENERATION, number }];
            let is_other = !is_cut && !pattern.ending.may_be_of(last_characters(&buffer, len));
            if !search.pass(pattern) || is_other {
                continue;
            }
            compared += 1;
            let mut matcher = Matcher::after(pattern.begins);
            let step = (0..=MAX_STEPS).map(|_| matcher.step(&pattern.glob, &buffer, len, is_cut));
            let last = step.into_iter().find(|step| *step != Step::Continue);
            if last == Some(Step::Match) {
                search.best = number;
            }
        }
        ((search.best != NONE).then_some(search.best as usize), compared)
    }
}

#[test]
fn the_first_of_several_patterns_has_a_cgroup() {
    for (patterns, path, expected) in [
        (["/a*", "/ab", "/*b"], "/ab", [0, 1, 2].as_slice()),
        (["/ab", "/a*", "/*b"], "/ab", &[0, 1, 2]),
        (["/*b", "/abc*", "/a*"], "/ab", &[0, 2]),
        (["/ab", "/abc", "/abcd"], "/abc", &[1]),
        (["/ab", "/abc", "/abcd"], "/b", &[]),
        (["/ab", "/ab", "/ab"], "/ab", &[0, 1, 2]),
    ] {
        let selectors = selectors(&patterns);
        let found = selectors.about(path.as_bytes());
        let numbers: Vec<_> = found.into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, expected, "{patterns:?} {path}");
        let first = Kernel::new(&selectors).first(path.as_bytes()).0;
        assert_eq!(first, expected.first().copied(), "{patterns:?} {path}");
    }
}

#[test]
fn without_patterns_nothing_is_recognised() {
    let none = selectors(&[""; 0]);
    assert_eq!(none, Selectors::default());
    assert_eq!(none.about(b"/a"), []);
    assert_eq!(Kernel::new(&none).first(b"/a"), (None, 0));
}

/// What many workloads cost when a cgroup is made.
#[test]
fn few_of_many_patterns_are_compared_with_a_path() {
    let mut patterns: Vec<_> = (0..8_000).map(|n| format!("/pods/pod{n}")).collect();
    patterns.extend((0..4_000).map(|n| format!("/pods/group{n}/*")));
    patterns.extend((0..4_000).map(|n| format!("/sets/*/part{n}.slice")));
    let kernel = Kernel::new(&selectors(&patterns));
    for (path, expected, most) in [
        ("/pods/pod7999", Some(7_999), 4),
        ("/pods/group1234/container", Some(9_234), 4),
        ("/sets/any/part1234.slice", Some(13_234), 60),
        ("/pods/pod8000", None, 4),
        ("/system/pod1", None, 0),
        ("/pods/pod", None, 0),
    ] {
        let (found, compared) = kernel.first(path.as_bytes());
        assert_eq!(found, expected, "{path}");
        assert!(compared <= most, "{path} was compared with {compared} patterns");
    }
}

#[test]
fn only_what_patterns_lead_to_is_walked() {
    let selectors = selectors(&["/pods/*/app", "/system.slice/web.service", "/user*"]);
    for (path, expected) in [
        ("", true),
        ("/pods", true),
        ("/pods/a", true),
        ("/pods/a/app", false),
        ("/system.slice", true),
        ("/system.slice/web.service", false),
        ("/user.slice", false),
        ("/pod", false),
        ("/podsx", false),
    ] {
        assert_eq!(selectors.lead_below(path.as_bytes()), expected, "{path}");
    }
}

fn pattern() -> impl Strategy<Value = String> {
    prop_oneof!["/[ab]{0,4}", "/[ab*?]{0,4}(/[ab*]{0,3})?", "/[ab]{1,3}/[ab]{0,3}[*?]?"]
}

proptest! {
    #[test]
    fn the_chain_leads_to_every_pattern_that_matches(
        patterns in prop::collection::vec(pattern(), 0..24), path in "/[ab]{0,5}(/[ab]{0,4})?",
    ) {
        let selectors = selectors(&patterns);
        let expected = one_by_one(&patterns, path.as_bytes());
        let (first, _) = Kernel::new(&selectors).first(path.as_bytes());
        prop_assert_eq!(first, expected.first().map(|(number, _)| *number));
        // Nor is anything passed over on the way there.
        for (at, _) in path.match_indices('/').skip(1).filter(|_| !expected.is_empty()) {
            prop_assert!(selectors.lead_below(&path.as_bytes()[..at]));
        }
        prop_assert_eq!(selectors.about(path.as_bytes()), expected);
    }

    #[test]
    fn so_it_is_with_long_paths(
        patterns in prop::collection::vec("/(a{120,127}|[a*]{1,5})(/[ab*]{1,3})?".prop_map(|mut p| { p.truncate(PATTERN_LEN); p }), 0..12),
        path in "/a{100,255}(/[ab]{100,255}){0,2}",
    ) {
        let selectors = selectors(&patterns);
        let expected = one_by_one(&patterns, path.as_bytes());
        let (first, _) = Kernel::new(&selectors).first(path.as_bytes());
        prop_assert_eq!(first, expected.first().map(|(number, _)| *number));
        prop_assert_eq!(selectors.about(path.as_bytes()), expected);
    }
}
