//! The patterns that recognise cgroups, in their order of precedence, arranged so that few have to be compared with
//! a path (`common/src/selector.rs`). The kernel has them in the same arrangement.

use sheath_common::selector::{
    BeginningKey, Glob, NONE, PATTERN_LEN, Pattern, PatternKey, Selection, beginning_bits, depth,
};
use sheath_common::workload::Workload;

use crate::sys::bpf::Prefix;

/// An entry of the `BEGINNINGS` trie.
pub type BeginningEntry = (Prefix<BeginningKey>, u32);

/// Patterns by number, and by what they begin with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selectors {
    patterns: Vec<Pattern>,
    /// Sorted by text.
    beginnings: Vec<Beginning>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Beginning {
    text: Vec<u8>,
    /// Number of the first pattern of its chain.
    head: u32,
    /// The most components that a pattern of its chain has.
    deepest: usize,
    /// The longest other beginning that this one starts with.
    shorter: Option<usize>,
}

impl Selectors {
    /// Of several that match a path, the first counts. Whatever matches is refused until it is known what it
    /// [stands for](Self::stand_for).
    pub fn new(globs: impl IntoIterator<Item = Glob>) -> Self {
        let patterns = globs.into_iter().map(|glob| Pattern {
            workload: Workload::REFUSED,
            ending: glob.ending(),
            begins: glob.beginning().len() as u32,
            glob,
            next: NONE,
            least: NONE,
        });
        let mut selectors = Self { patterns: patterns.collect(), beginnings: Vec::new() };
        selectors.link();
        selectors
    }

    /// Links each beginning's patterns in a chain that goes on with those of the next shorter beginning.
    fn link(&mut self) {
        let begins: Vec<_> = self.patterns.iter().map(|p| p.glob.beginning().to_vec()).collect();
        let mut order: Vec<usize> = (0..self.patterns.len()).collect();
        order.sort_by(|a, b| begins[*a].cmp(&begins[*b]).then(a.cmp(b)));
        // Those that the beginning at hand begins with, the longest last.
        let mut above: Vec<usize> = Vec::new();
        for same in order.chunk_by(|a, b| begins[*a] == begins[*b]) {
            let text = &begins[same[0]];
            while above.last().is_some_and(|at| !text.starts_with(&self.beginnings[*at].text)) {
                above.pop();
            }
            let shorter = above.last().copied();
            let shorter_one = shorter.map(|at| &self.beginnings[at]);
            let mut next = shorter_one.map_or(NONE, |beginning| beginning.head);
            let mut deepest = shorter_one.map_or(0, |beginning| beginning.deepest);
            for number in same.iter().rev() {
                let least = self.patterns.get(next as usize).map_or(NONE, |pattern| pattern.least);
                let pattern = &mut self.patterns[*number];
                deepest = deepest.max(pattern.glob.depth());
                pattern.next = next;
                next = *number as u32;
                pattern.least = least.min(next);
            }
            above.push(self.beginnings.len());
            self.beginnings.push(Beginning { text: text.clone(), head: next, deepest, shorter });
        }
    }

    /// Says what a path that matches a pattern stands for.
    pub fn stand_for(&mut self, number: usize, workload: Workload) {
        if let Some(pattern) = self.patterns.get_mut(number) {
            pattern.workload = workload;
        }
    }

    /// The patterns that concern a path, by number, and what each says. The first one decides.
    #[must_use]
    pub fn about(&self, path: &[u8]) -> Vec<(usize, Selection)> {
        let mut found = Vec::new();
        let mut number = self.chain_of(path) as usize;
        while let Some(pattern) = self.patterns.get(number) {
            match pattern.glob.select(path) {
                Selection::Other => {}
                selection => found.push((number, selection)),
            }
            number = pattern.next as usize;
        }
        found.sort_unstable_by_key(|(number, _)| *number);
        found
    }

    /// False if no pattern matches anything below a path.
    #[must_use]
    pub fn lead_below(&self, path: &[u8]) -> bool {
        let below = [path, b"/"].concat();
        let from = self.beginnings.partition_point(|beginning| *beginning.text < *below);
        let leads = |beginning: &Beginning| beginning.deepest > depth(path);
        self.beginnings.get(from).is_some_and(|beginning| beginning.text.starts_with(&below))
            || self.longest(&below).is_some_and(leads)
    }

    /// Number of the first pattern to compare with a path.
    fn chain_of(&self, path: &[u8]) -> u32 {
        self.longest(path).map_or(NONE, |beginning| beginning.head)
    }

    /// The longest beginning that a path has.
    fn longest(&self, path: &[u8]) -> Option<&Beginning> {
        // Whatever the path begins with comes before it in the order, and what stands between the two begins with it too.
        let mut at = self.beginnings.partition_point(|b| *b.text <= *path).checked_sub(1);
        while let Some(beginning) = at.map(|at| &self.beginnings[at]) {
            if path.starts_with(&beginning.text) {
                return Some(beginning);
            }
            at = beginning.shorter;
        }
        None
    }

    /// The entries of the kernel's maps, under a generation.
    #[must_use]
    pub fn entries(&self, generation: u32) -> (Vec<(PatternKey, Pattern)>, Vec<BeginningEntry>) {
        let key = |number| PatternKey { generation, number };
        let patterns = (0..).map(key).zip(self.patterns.iter().copied());
        let beginnings = self.beginnings.iter().map(|beginning| {
            let len = beginning.text.len();
            let mut text = [0; PATTERN_LEN];
            text[..len].copy_from_slice(&beginning.text);
            let data = BeginningKey { generation, text };
            (Prefix { bits: beginning_bits(len as u32), data }, beginning.head)
        });
        (patterns.collect(), beginnings.collect())
    }
}

#[cfg(test)]
mod tests;
