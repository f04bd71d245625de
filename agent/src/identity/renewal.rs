//! When to renew an SVID.

use std::time::SystemTime;

use super::Svid;

/// Somewhere in the sixth tenth of its life, for a jitter between 0 and 1: that spreads the work of many
/// workloads that started together.
#[must_use]
pub fn renewal_of(svid: &Svid, jitter: f64) -> SystemTime {
    let life = svid.facts.not_after.duration_since(svid.issued).unwrap_or_default();
    svid.issued + life.mul_f64(0.5 + jitter / 10.0)
}
