//! What a CA needs next, as a function of what it is and of time.
//!
//! A root is told to agents first, and signs when they have had time to hear of it. It stays as long as anything lives that it has
//! signed. One change is made at a time, and each leaves the CA whole.

use std::time::SystemTime;

use super::make::Maker;
use super::state::{MOST_ROOTS, State};
use super::{AuthorityError, Terms};
use crate::identity::issuing::CLOCK_SKEW;

/// A change that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Another root, which is not signed with yet.
    Root,
    /// Agents are told of this root from now on.
    Distributed(usize),
    /// Another intermediate, of this root.
    Intermediate(usize),
    /// Nothing lives any more that this root has signed.
    Retire(usize),
}

/// The next change. `is_asked` if somebody wants another root; it is told once, as long as there is no root that waits to sign.
#[must_use]
pub fn due(state: &State, terms: &Terms, is_asked: bool, now: SystemTime) -> Option<Due> {
    let undistributed = state.roots.iter().position(|root| root.distributed.is_none());
    if let Some(place) = undistributed {
        return Some(Due::Distributed(place));
    }
    let may_sign = |place: &usize| {
        let root = &state.roots[*place];
        let known = root.distributed.is_some_and(|since| since + terms.distribute <= now);
        known && now < root.authority.facts.not_after
    };
    let newest = state.roots.len() - 1;
    let active = (0..state.roots.len()).rev().find(may_sign);
    if let Some(active) = active {
        let facts = &state.intermediate.facts;
        let age = now.duration_since(facts.not_before + CLOCK_SKEW).unwrap_or_default();
        let left = facts.not_after.duration_since(now).unwrap_or_default();
        let is_old = age >= terms.intermediate_ttl / 2 || left < 2 * terms.svid_ttl;
        // Of a root that ends soon no better one can be had.
        let is_better = state.roots[active].authority.facts.not_after > facts.not_after;
        if state.signer() != Some(active) || (is_old && is_better) {
            return Some(Due::Intermediate(active));
        }
        let is_over =
            |place: &usize| *place != active && state.roots[*place].signed_until + CLOCK_SKEW < now;
        // A newer one than the active has signed nothing yet, and is to.
        if let Some(place) = (0..active).find(is_over) {
            return Some(Due::Retire(place));
        }
    }
    let end = state.roots[newest].authority.facts.not_after;
    let left = end.duration_since(now).unwrap_or_default();
    let is_ending = left < terms.root_renewal();
    // One that has ended waits for nothing any more.
    let is_waiting = active != Some(newest) && !left.is_zero();
    let has_room = state.roots.len() < MOST_ROOTS;
    (!is_waiting && has_room && (is_ending || is_asked)).then_some(Due::Root)
}

/// The CA with a change made.
///
/// # Errors
/// If a certificate cannot be made.
pub fn changed(
    state: &State,
    due: Due,
    maker: &Maker,
    now: SystemTime,
) -> Result<State, AuthorityError> {
    let mut state = state.clone();
    match due {
        Due::Root => state.roots.push(maker.root(now)?),
        Due::Distributed(place) => state.roots[place].distributed = Some(now),
        Due::Intermediate(place) => {
            state.intermediate = maker.intermediate(&mut state.roots[place], now)?;
        }
        Due::Retire(place) => {
            state.roots.remove(place);
        }
    }
    Ok(state)
}
