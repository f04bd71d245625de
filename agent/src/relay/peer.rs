//! Whether the peer on the wire is still there. Probes (`SO_KEEPALIVE`) find out while nothing is under way; while something
//! is, the kernel would try for a quarter of an hour (tcp(7), `tcp_retries2`).
//!
//! `TCP_USER_TIMEOUT` would bound that, but also the time for which a peer may take nothing (tcp_timer.c,
//! `tcp_probe_timer`): one that answers and does not read is alive, be it for days.

use std::time::Duration;

use tokio::net::TcpStream;

use super::RelayError;
use super::timers::Watch;
use crate::sys::sockopt::{self, Answers};
use crate::wire::WireError;

/// How often the same data must have been sent again before the peer is taken for dead, and how often it must have been
/// asked whether there is room.
const TRIES: u32 = 3;
/// Until the next look at a peer that is suspected.
const SOON: Duration = Duration::from_secs(1);

/// What is known of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It owes nothing.
    Answered,
    /// It may be dead after so much more time.
    Unclear(Duration),
    Dead,
}

impl Watch {
    /// Nothing has moved for a moment: either the peer has taken everything, or it owes an answer.
    pub fn rest(&mut self, wire: &TcpStream) {
        if sockopt::unacknowledged(wire).is_ok_and(|bytes| bytes == 0) {
            self.is_answered();
        }
    }

    /// Checks whether the peer has answered nothing for too long. `owing` is how long ago it got the first thing that it may
    /// not have answered.
    pub fn look(
        &mut self,
        wire: &TcpStream,
        limit: Duration,
        owing: Duration,
    ) -> Result<(), RelayError> {
        match state(&sockopt::answers(wire).map_err(WireError::Io)?, limit, owing) {
            State::Answered => self.is_answered(),
            State::Unclear(rest) => self.look_again(rest),
            State::Dead => return Err(RelayError::Dead(limit)),
        }
        Ok(())
    }
}

fn state(answers: &Answers, limit: Duration, owing: Duration) -> State {
    if answers.unacknowledged == 0 {
        return State::Answered;
    }
    let silent = answers.silent.min(owing);
    if silent < limit {
        return State::Unclear((limit - silent).max(SOON.min(limit)));
    }
    // Data that is under way is sent again; if there is no room for it, the peer is asked.
    match answers.retransmissions.max(answers.probes) >= TRIES {
        true => State::Dead,
        false => State::Unclear(SOON.min(limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(120);
    const LONG: Duration = Duration::from_secs(3_600);

    fn answers(silent: Duration) -> Answers {
        Answers { unacknowledged: 100, silent, retransmissions: 9, probes: 0 }
    }

    #[test]
    fn who_answers_nothing_for_too_long_is_dead() {
        assert_eq!(state(&answers(LIMIT), LIMIT, LONG), State::Dead);
        assert_eq!(state(&answers(LONG), LIMIT, LIMIT), State::Dead);
        let asked = Answers { retransmissions: 0, probes: 3, ..answers(LONG) };
        assert_eq!(state(&asked, LIMIT, LONG), State::Dead);
    }

    #[test]
    fn who_owes_nothing_or_not_for_long_is_not() {
        let all_taken = Answers { unacknowledged: 0, ..answers(LONG) };
        assert_eq!(state(&all_taken, LIMIT, LONG), State::Answered);
        let half = LIMIT / 2;
        assert_eq!(state(&answers(half), LIMIT, LONG), State::Unclear(half));
        // It was silent for much longer, but had nothing to answer.
        assert_eq!(state(&answers(LONG), LIMIT, half), State::Unclear(half));
    }

    /// The kernel asks such a peer every two minutes at most (`TCP_RTO_MAX`), and it answers.
    #[test]
    fn who_answers_and_takes_nothing_is_alive() {
        for probes in 0..TRIES {
            let full = Answers { retransmissions: 0, probes, ..answers(LONG) };
            assert_eq!(state(&full, LIMIT, LONG), State::Unclear(SOON));
        }
    }
}
