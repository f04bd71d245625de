//! What a CA needs next, as a function of what it is and of time.
//!
//! A root is told to agents first, and signs when they have had time to hear of it. It stays as long as anything lives that it has
//! signed. One change is made at a time, and each leaves the CA whole.

use std::time::SystemTime;

use super::make::Maker;
use super::state::{Issuer, MOST_ROOTS, Root, State};
use super::{AuthorityError, Terms};
use crate::identity::issuing::CLOCK_SKEW;

/// What is to sign.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'w> {
    /// Roots of the controller's own. `true` if somebody asks for another one: that is told once, as long as there is no root that
    /// waits to sign.
    Own(bool),
    /// A CA of somebody else's; what there is, if that cannot be used.
    Provided(Option<&'w Issuer>),
}

/// A change that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Another root of the controller's own, which is not signed with yet.
    Root,
    /// The CA that somebody else has provided, which is not signed with yet.
    Provided,
    /// Agents are told of this root from now on.
    Distributed(usize),
    /// Another intermediate, of this root.
    Intermediate(usize),
    /// Nothing lives any more that this root has signed, or others lead to the same.
    Retire(usize),
}

/// The next change.
#[must_use]
pub fn due(state: &State, terms: &Terms, wanted: Wanted<'_>, now: SystemTime) -> Option<Due> {
    let undistributed = state.roots.iter().position(|root| root.distributed.is_none());
    if let Some(place) = undistributed {
        return Some(Due::Distributed(place));
    }
    let may_sign = |place: &usize| {
        let root = &state.roots[*place];
        let known = root.distributed.is_some_and(|since| since + terms.distribute <= now);
        known && now < root.ends()
    };
    let newest = state.roots.len() - 1;
    let active = (0..state.roots.len()).rev().find(may_sign);
    if let Some(active) = active {
        let facts = &state.intermediate.facts;
        let age = now.duration_since(facts.not_before + CLOCK_SKEW).unwrap_or_default();
        let left = facts.not_after.duration_since(now).unwrap_or_default();
        let is_old = age >= terms.intermediate_ttl / 2 || left < 2 * terms.svid_ttl;
        // Of a root that ends soon no better one can be had.
        let is_better = state.roots[active].ends() > facts.not_after;
        if state.signer() != Some(active) || (is_old && is_better) {
            return Some(Due::Intermediate(active));
        }
        let is_over = |place: &usize| {
            let root = &state.roots[*place];
            let is_known = |anchor| state.roots[active].anchors().contains(anchor);
            // One that was renewed leads to the same roots.
            let is_doubled = root.above.is_some() && root.anchors().iter().all(is_known);
            is_doubled || root.signed_until + CLOCK_SKEW < now
        };
        // A newer one than the active has signed nothing yet, and is to.
        if let Some(place) = (0..active).find(is_over) {
            return Some(Due::Retire(place));
        }
    }
    let has_room = state.roots.len() < MOST_ROOTS;
    let last = &state.roots[newest];
    match wanted {
        Wanted::Own(is_asked) => {
            let left = last.ends().duration_since(now).unwrap_or_default();
            let is_ending = left < terms.root_renewal();
            // One that has ended waits for nothing any more.
            let is_waiting = active != Some(newest) && !left.is_zero();
            let is_due = is_ending || is_asked || last.above.is_some();
            (!is_waiting && has_room && is_due).then_some(Due::Root)
        }
        Wanted::Provided(Some(issuer)) if has_room && !last.is_of(issuer) => Some(Due::Provided),
        Wanted::Provided(_) => None,
    }
}

/// The CA with a change made.
///
/// # Errors
/// If a certificate cannot be made.
pub fn changed(
    state: &State,
    due: Due,
    wanted: Wanted<'_>,
    maker: &Maker,
    now: SystemTime,
) -> Result<State, AuthorityError> {
    let mut state = state.clone();
    match due {
        Due::Root => state.roots.push(maker.root(now)?),
        Due::Provided => {
            if let Wanted::Provided(Some(issuer)) = wanted {
                let root = provided(&state, issuer, now);
                state.roots.push(root);
            }
        }
        Due::Distributed(place) => state.roots[place].distributed = Some(now),
        Due::Intermediate(place) => {
            let root = &mut state.roots[place];
            state.intermediate = maker.intermediate(root, now)?;
            state.signed_by = Some(root.authority.facts.fingerprint);
        }
        Due::Retire(place) => {
            state.roots.remove(place);
        }
    }
    Ok(state)
}

/// It is told to agents before it signs, unless they know its roots already.
fn provided(state: &State, issuer: &Issuer, now: SystemTime) -> Root {
    let since = |anchor| {
        let leads = state.roots.iter().filter(|root| root.anchors().contains(anchor));
        leads.filter_map(|root| root.distributed).min()
    };
    let all: Option<Vec<_>> = issuer.above.anchors.iter().map(since).collect();
    Root {
        authority: issuer.authority.clone(),
        distributed: all.and_then(|all| all.into_iter().max()),
        signed_until: now,
        above: Some(issuer.above.clone()),
    }
}
