//! A relay for another process.

use std::io;

use serde::{Deserialize, Serialize};

use super::outgoing::State;
use super::timers::SavedWatch;
use super::{IdleTimeouts, Incoming, Outgoing, Prompt, Relay, Watch};
use crate::flow::Transferred;
use crate::wire::saved::{Encoded, NotRestored, NotSaved};

/// Version of what [`Relay::save`] makes.
const VERSION: u16 = 1;

/// The state of a [`Relay`].
#[derive(Serialize, Deserialize)]
pub struct SavedRelay {
    outgoing: State,
    is_end_sent: bool,
    waiting: u64,
    wire_refused: Option<i32>,
    incoming: State,
    app_refused: Option<i32>,
    acknowledged: u64,
    watch: SavedWatch,
    transferred: Transferred,
}

impl Relay {
    /// The state of the relay, for another process to go on with: between two calls of [`Self::run`].
    ///
    /// # Errors
    /// If it cannot be encoded.
    pub fn save(&self) -> Result<Encoded, NotSaved> {
        let saved = SavedRelay {
            outgoing: self.outgoing.state,
            is_end_sent: self.outgoing.is_sent,
            waiting: self.outgoing.waiting as u64,
            wire_refused: self.outgoing.refused.as_ref().map(errno),
            incoming: self.incoming.state,
            app_refused: self.incoming.refused.as_ref().map(errno),
            acknowledged: self.prompt.acknowledged(),
            watch: self.watch.save(),
            transferred: self.transferred,
        };
        Encoded::new(VERSION, &saved)
    }

    /// Goes on by the time limits of this process.
    ///
    /// # Errors
    /// If the state is of another version, or contradicts itself.
    pub fn restore(state: &Encoded, timeouts: IdleTimeouts) -> Result<Self, NotRestored> {
        let saved: SavedRelay = state.decode(VERSION)?;
        let waiting = usize::try_from(saved.waiting);
        let waiting =
            waiting.map_err(|_| NotRestored::Contradiction("more bytes than there is memory"))?;
        if saved.is_end_sent && saved.outgoing != State::Ended {
            return Err(NotRestored::Contradiction("an end that has left before it was passed on"));
        }
        if saved.acknowledged > saved.transferred.sent {
            return Err(NotRestored::Contradiction("more bytes acknowledged than sent"));
        }
        Ok(Self {
            outgoing: Outgoing {
                state: saved.outgoing,
                is_sent: saved.is_end_sent,
                waiting,
                refused: saved.wire_refused.map(io::Error::from_raw_os_error),
            },
            incoming: Incoming {
                state: saved.incoming,
                refused: saved.app_refused.map(io::Error::from_raw_os_error),
            },
            prompt: Prompt::after(saved.acknowledged),
            watch: Watch::restore(&saved.watch, timeouts),
            transferred: saved.transferred,
        })
    }
}

/// The errno of a connection that has hung up. An error that does not come from the system is saved as `EPIPE`.
fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EPIPE)
}
