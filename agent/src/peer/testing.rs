//! Expectations and judges for unit tests.

use crate::origin::Origin;
use crate::spiffe::{IdPattern, SpiffeId};
use crate::trust::testing::authenticator;
use crate::trust::{Pin, Trust};

use super::{Expectation, Judge, Listed, Nobody};

pub fn judge(trust: Trust, expectation: Expectation) -> Judge {
    Judge { authenticator: authenticator(trust), expectation }
}

/// One of these SPIFFE IDs.
pub fn ids(texts: &[&str]) -> Expectation {
    ids_or_pins(texts, &[])
}

/// One of these SPIFFE IDs, or one of these pins.
pub fn ids_or_pins(ids: &[&str], pins: &[Pin]) -> Expectation {
    let rule = Origin::BuiltIn;
    let exactly = |text: &&str| IdPattern::from(text.parse::<SpiffeId>().unwrap());
    let ids: Vec<_> = ids.iter().map(exactly).collect();
    let (ids, pins) = (Listed::all(ids, &rule), Listed::all(pins.iter().copied(), &rule));
    Expectation::any_of(rule, ids, pins, Nobody::Unnamed)
}
