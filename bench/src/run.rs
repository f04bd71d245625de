//! A run: every load with every contender, in turns, round after round.

use anyhow::{Context, Result, bail};
use sheath_tests::wait;

use crate::contender::{Contender, Entry};
use crate::load::Load;
use crate::progress::Progress;
use crate::results::Results;
use crate::scale::Scale;
use crate::wire;

/// What is played.
pub struct Plan {
    pub contenders: Vec<Entry>,
    pub loads: Vec<Box<dyn Load>>,
    pub rounds: u32,
    pub scale: Scale,
}

/// Sets all contenders up, checks that each is what it claims to be, and plays the plan.
///
/// # Errors
/// When a contender or a load fails: there are no results with holes.
pub fn play(plan: &Plan) -> Result<Results> {
    if plan.turns().next().is_none() {
        bail!("none of the loads is for any of the contenders");
    }
    let mut progress = Progress::new(2 * plan.contenders.len() + plan.turns().count() + 1);
    let mut contenders = Vec::new();
    for entry in &plan.contenders {
        let name = &entry.name;
        contenders
            .push(step(&mut progress, &format!("set up {name}"), || Contender::start(entry))?);
    }
    for contender in &contenders {
        let name = &contender.entry.name;
        let seen =
            step(&mut progress, &format!("look at the wire of {name}"), || wire::check(contender))?;
        progress.say(&format!("{name}: {seen}"));
    }
    let mut results = Results::default();
    for turn in plan.turns() {
        let (load, contender) = (&plan.loads[turn.load], &contenders[turn.contender]);
        let (what, who) = (load.name(), &contender.entry.name);
        let title = format!("round {} of {}  {what}  {who}", turn.round, plan.rounds);
        let figures = step(&mut progress, &title, || load.play(contender, &plan.scale))?;
        for (quantity, value) in figures {
            results.record(who, &what, quantity, turn.round, value);
        }
    }
    // Taking down takes a while, too.
    step(&mut progress, "clean up", || {
        drop(contenders);
        Ok(())
    })?;
    Ok(results)
}

/// One load with one contender in one round.
struct Turn {
    round: u32,
    load: usize,
    contender: usize,
}

impl Plan {
    fn turns(&self) -> impl Iterator<Item = Turn> {
        (1..=self.rounds).flat_map(move |round| {
            (0..self.loads.len()).flat_map(move |load| self.turns_of(round, load))
        })
    }

    /// Each round begins with another contender, so that none always follows the same one.
    fn turns_of(&self, round: u32, load: usize) -> impl Iterator<Item = Turn> {
        let plays = move |load: &dyn Load| round <= load.rounds(&self.scale).unwrap_or(u32::MAX);
        let count = self.contenders.len();
        (0..count)
            .map(move |position| (position + round as usize - 1) % count)
            .filter(move |&contender| {
                let load = self.loads[load].as_ref();
                plays(load) && load.is_for(&self.contenders[contender])
            })
            .map(move |contender| Turn { round, load, contender })
    }
}

fn step<T>(progress: &mut Progress, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    if wait::is_interrupted() {
        bail!("interrupted");
    }
    progress.step(name, work).with_context(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::roster;
    use crate::load;

    fn order(plan: &Plan, round: u32, load: usize) -> Vec<usize> {
        plan.turns_of(round, load).map(|turn| turn.contender).collect()
    }

    #[test]
    fn every_round_has_everybody_and_begins_with_another() {
        let contenders = roster(&[]).into_iter().take(3).collect();
        let loads = load::all();
        let first = loads.iter().position(|load| load.name() == "throughput_1").unwrap();
        let plan = Plan { contenders, loads, rounds: 3, scale: Scale::QUICK };
        assert_eq!(order(&plan, 1, first), [0, 1, 2]);
        assert_eq!(order(&plan, 2, first), [1, 2, 0]);
        assert_eq!(order(&plan, 4, first), [0, 1, 2]);
    }

    #[test]
    fn memory_is_looked_at_in_fewer_rounds() {
        let loads = load::all();
        let idle = loads.iter().position(|load| load.name() == "idle").unwrap();
        let plan = Plan { contenders: roster(&[]), loads, rounds: 5, scale: Scale::QUICK };
        assert!(!order(&plan, 1, idle).is_empty());
        assert!(order(&plan, 2, idle).is_empty());
    }
}
