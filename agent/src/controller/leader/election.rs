//! Who leads, as a function of what a Lease says and of time: without I/O, and without the clocks of others.
//!
//! The rules are those of client-go (`tools/leaderelection/leaderelection.go`). A Lease that another holds is taken when its object has
//! not changed for as long as it is good for, by our own clock from when we first saw it so. Whoever holds it renews it, and gives
//! itself up when it could not for [`HOLD`], which is shorter: it has ended before anybody else begins.

use std::time::{Duration, Instant};

/// How long a Lease is good for after it was written.
pub const LEASE: Duration = Duration::from_secs(15);
/// How long its holder leads after it began to write it.
pub const HOLD: Duration = Duration::from_secs(10);
/// How often it is looked at, and renewed.
pub const RETRY: Duration = Duration::from_secs(2);
/// The longest that a Lease of somebody else's is believed to be good for.
const LONGEST_LEASE: Duration = Duration::from_secs(60);

/// What a Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Empty if it was given back.
    pub holder: String,
    /// `None` if it does not say.
    pub lease: Option<Duration>,
    /// Of the object.
    pub version: String,
}

/// What is to be done about a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is none.
    Make,
    /// It is free.
    Take,
    /// It is ours.
    Renew,
    /// It is another's.
    Wait,
}

/// One candidate.
#[derive(Debug)]
pub struct Election {
    own: String,
    /// The version of a Lease that another holds, and when we first saw it.
    seen: Option<(String, Instant)>,
    held_until: Option<Instant>,
}

impl Election {
    #[must_use]
    pub fn new(own: String) -> Self {
        Self { own, seen: None, held_until: None }
    }

    /// Decides by a Lease that was read at `now`.
    pub fn look(&mut self, now: Instant, found: Option<&Record>) -> Step {
        let Some(record) = found else {
            return Step::Make;
        };
        // Nobody else can hold it by our name: the name has an address that only we listen at.
        if record.holder == self.own {
            return Step::Renew;
        }
        self.held_until = None;
        if record.holder.is_empty() {
            return Step::Take;
        }
        let lease = record.lease.unwrap_or(LEASE).min(LONGEST_LEASE);
        match &self.seen {
            Some((version, since)) if *version == record.version => {
                if now.saturating_duration_since(*since) >= lease {
                    return Step::Take;
                }
            }
            _ => self.seen = Some((record.version.clone(), now)),
        }
        Step::Wait
    }

    /// The Lease was written with our name; `began` is a time before that.
    pub fn wrote(&mut self, began: Instant) {
        self.seen = None;
        self.held_until = Some(began + HOLD);
    }

    /// Until when we lead, if we do.
    #[must_use]
    pub fn held_until(&self) -> Option<Instant> {
        self.held_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(holder: &str, version: u64) -> Record {
        Record { holder: holder.to_owned(), lease: Some(LEASE), version: version.to_string() }
    }

    #[test]
    fn a_lease_of_nobody_is_taken_and_one_of_our_own_renewed() {
        let mut election = Election::new("a".to_owned());
        let now = Instant::now();
        assert_eq!(election.look(now, None), Step::Make);
        assert_eq!(election.look(now, Some(&of("", 1))), Step::Take);
        assert_eq!(election.look(now, Some(&of("a", 2))), Step::Renew);
        assert_eq!(election.held_until(), None, "before it is written nobody leads");
        election.wrote(now);
        assert_eq!(election.held_until(), Some(now + HOLD));
    }

    #[test]
    fn a_lease_of_another_is_taken_once_it_has_not_changed_for_as_long_as_it_is_good() {
        let mut election = Election::new("a".to_owned());
        let start = Instant::now();
        assert_eq!(election.look(start, Some(&of("b", 1))), Step::Wait);
        let late = start + LEASE;
        assert_eq!(election.look(late - RETRY, Some(&of("b", 1))), Step::Wait);
        // It was renewed.
        assert_eq!(election.look(late, Some(&of("b", 2))), Step::Wait);
        assert_eq!(election.look(late + LEASE - RETRY, Some(&of("b", 2))), Step::Wait);
        assert_eq!(election.look(late + LEASE, Some(&of("b", 2))), Step::Take);
        // A holder that says it may be silent for years is not believed.
        let mut greedy = of("b", 3);
        greedy.lease = Some(Duration::from_secs(1 << 40));
        assert_eq!(election.look(late, Some(&greedy)), Step::Wait);
        assert_eq!(election.look(late + LONGEST_LEASE, Some(&greedy)), Step::Take);
    }

    #[test]
    fn whoever_sees_another_in_the_lease_leads_no_more() {
        let mut election = Election::new("a".to_owned());
        let now = Instant::now();
        election.wrote(now);
        assert_eq!(election.look(now, Some(&of("b", 7))), Step::Wait);
        assert_eq!(election.held_until(), None);
    }

    /// What a candidate does at a time: it reads, waits, and writes what it decided if nobody has written meanwhile.
    #[derive(Clone, Debug)]
    struct Turn {
        who: usize,
        /// Milliseconds since the turn before.
        after: u64,
        /// Milliseconds between reading and the write's effect.
        slow: u64,
        /// The write takes effect, and its answer is lost.
        is_lost: bool,
        /// The candidate begins anew, without memory.
        is_new: bool,
    }

    fn turn() -> impl Strategy<Value = Turn> {
        let slow = prop_oneof![5 => 0..50_u64, 1 => 0..30_000_u64];
        (0..3_usize, 0..6_000_u64, slow, prop::bool::weighted(0.1), prop::bool::weighted(0.05))
            .prop_map(|(who, after, slow, is_lost, is_new)| Turn {
                who,
                after,
                slow,
                is_lost,
                is_new,
            })
    }

    proptest! {
        #[test]
        fn two_never_lead_at_once(turns in prop::collection::vec(turn(), 1..200)) {
            let names = ["a", "b", "c"];
            let start = Instant::now();
            let mut candidates = names.map(|name| Election::new(name.to_owned()));
            let mut lease: Option<Record> = None;
            let mut version = 0_u64;
            let mut now = start;
            for turn in turns {
                now += Duration::from_millis(turn.after);
                let (read, own) = (lease.clone(), names[turn.who]);
                if turn.is_new {
                    candidates[turn.who] = Election::new(own.to_owned());
                }
                let began = now;
                let step = candidates[turn.who].look(began, read.as_ref());
                if step == Step::Wait {
                    continue;
                }
                // Turns are one after the other, so a slow one lets time pass for all of them.
                now += Duration::from_millis(turn.slow);
                if lease != read {
                    continue;
                }
                version += 1;
                lease = Some(of(own, version));
                if !turn.is_lost {
                    candidates[turn.who].wrote(began);
                }
                let leads = |one: &Election| one.held_until().is_some_and(|until| now < until);
                prop_assert!(candidates.iter().filter(|one| leads(one)).count() <= 1);
            }
        }
    }
}
