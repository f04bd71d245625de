//! What comes out of a run.

pub mod json;
pub mod markdown;
pub mod svg;
pub mod text;

use crate::contender::Entry;
use crate::load::Load;
use crate::results::{Quantity, Results};
use crate::run::Plan;

/// A number with as many digits as it deserves: three or so.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        100.0.. => grouped(value),
        10.0.. => format!("{value:.1}"),
        0.1.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A whole number, with a space between thousands.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && digit.is_ascii_digit() && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// The contenders of a plan that have figures of a load.
fn played<'p>(plan: &'p Plan, results: &Results, load: &dyn Load) -> Vec<&'p Entry> {
    let has = |entry: &&Entry| {
        let mut quantities = load.quantities().iter();
        quantities.any(|of| !results.values(&entry.name, &load.name(), of.name).is_empty())
    };
    plan.contenders.iter().filter(has).collect()
}

/// The quantities of a load of which there are figures.
fn measured(plan: &Plan, results: &Results, load: &dyn Load) -> Vec<&'static Quantity> {
    let has = |quantity: &&Quantity| {
        let mut entries = plan.contenders.iter();
        entries.any(|entry| !results.values(&entry.name, &load.name(), quantity.name).is_empty())
    };
    load.quantities().iter().filter(has).collect()
}

#[cfg(test)]
pub mod example {
    //! Made-up results of a whole run.

    use super::*;
    use crate::contender::roster;
    use crate::load;
    use crate::scale::Scale;

    pub fn plan() -> Plan {
        Plan { contenders: roster(&[]), loads: load::all(), rounds: 3, scale: Scale::FULL }
    }

    pub fn results(plan: &Plan) -> Results {
        let mut results = Results::default();
        for (index, entry) in plan.contenders.iter().enumerate() {
            for load in plan.loads.iter().filter(|load| load.is_for(entry)) {
                for quantity in load.quantities() {
                    for round in 1..=plan.rounds {
                        let value = (index + 1) as f64 * f64::from(round);
                        results.record(&entry.name, &load.name(), quantity.name, round, value);
                    }
                }
            }
        }
        results
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_about_three_digits() {
        let texts: Vec<String> =
            [0.0, 0.0123, 0.456, 7.891, 12.34, 987.6, 1234.5, 1_234_567.0, -1234.0]
                .into_iter()
                .map(number)
                .collect();
        let expected =
            ["0", "0.012", "0.46", "7.89", "12.3", "988", "1 234", "1 234 567", "-1 234"];
        assert_eq!(texts, expected);
    }
}
