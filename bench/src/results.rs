//! Every figure that was measured, by contender, load, quantity and round.

use std::collections::BTreeMap;

use crate::statistics::{self, Summary};

/// Something that a load measures.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    /// As the JSON has it.
    pub name: &'static str,
    /// As a table's column has it.
    pub title: &'static str,
    pub unit: &'static str,
}

/// Values by round.
type Series = BTreeMap<u32, f64>;

/// The figures of a run.
#[derive(Default)]
pub struct Results {
    figures: BTreeMap<Key, Series>,
}

type Key = (String, String, &'static str);

impl Results {
    pub fn record(
        &mut self,
        contender: &str,
        load: &str,
        quantity: &'static str,
        round: u32,
        value: f64,
    ) {
        let key = (contender.to_owned(), load.to_owned(), quantity);
        self.figures.entry(key).or_default().insert(round, value);
    }

    /// The values in the order of their rounds; none where nothing was measured.
    pub fn values(&self, contender: &str, load: &str, quantity: &'static str) -> Vec<f64> {
        let series = self.series(contender, load, quantity);
        series.map(|series| series.values().copied().collect()).unwrap_or_default()
    }

    pub fn summary(&self, contender: &str, load: &str, quantity: &'static str) -> Option<Summary> {
        statistics::summary(&self.values(contender, load, quantity))
    }

    /// How a contender's figures compare with another's: one ratio for each round that has both.
    pub fn ratios(
        &self,
        contender: &str,
        other: &str,
        load: &str,
        quantity: &'static str,
    ) -> Vec<f64> {
        ratios(self.series(contender, load, quantity), self.series(other, load, quantity))
    }

    /// How two quantities of one load compare.
    pub fn ratios_within(
        &self,
        contender: &str,
        load: &str,
        quantity: &'static str,
        other: &'static str,
    ) -> Vec<f64> {
        ratios(self.series(contender, load, quantity), self.series(contender, load, other))
    }

    fn series(&self, contender: &str, load: &str, quantity: &'static str) -> Option<&Series> {
        self.figures.get(&(contender.to_owned(), load.to_owned(), quantity))
    }
}

fn ratios(one: Option<&Series>, other: Option<&Series>) -> Vec<f64> {
    let (Some(one), Some(other)) = (one, other) else { return Vec::new() };
    let both = one.iter().filter_map(|(round, value)| Some((value, other.get(round)?)));
    both.filter(|(_, other)| **other != 0.0).map(|(value, other)| value / other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_figures_of_the_same_round_are_compared() {
        let mut results = Results::default();
        for (contender, round, value) in
            [("a", 1, 10.0), ("a", 2, 30.0), ("a", 3, 7.0), ("b", 1, 20.0), ("b", 2, 15.0)]
        {
            results.record(contender, "load", "rate", round, value);
        }
        assert_eq!(results.ratios("a", "b", "load", "rate"), [0.5, 2.0]);
        assert_eq!(results.values("a", "load", "rate"), [10.0, 30.0, 7.0]);
        assert_eq!(results.summary("b", "load", "rate").map(|b| b.median), Some(17.5));
    }

    #[test]
    fn nothing_compares_with_what_was_not_measured_or_is_zero() {
        let mut results = Results::default();
        results.record("a", "load", "rate", 1, 10.0);
        results.record("b", "load", "rate", 1, 0.0);
        assert!(results.ratios("a", "b", "load", "rate").is_empty());
        assert!(results.ratios("a", "c", "load", "rate").is_empty());
        assert!(results.summary("c", "load", "rate").is_none());
    }
}
