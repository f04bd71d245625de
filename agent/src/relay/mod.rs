//! The relay stage: moves bytes between the two legs of a flow until both directions have ended.
//!
//! One future moves both directions, in as few and as large steps as possible: there is no task, no thread and no allocation
//! for each direction or record. The state of a relay is a plain value, [`Relay`]; the bytes on their way are
//! the wire's. So a relay can be paused between two polls, and go on later, here or in another process.

mod incoming;
mod outgoing;
mod peer;
mod prompt;
mod running;
mod saved;
mod timers;

use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::flow::Transferred;
use crate::wire::{Abort, Wire, WireError};

use incoming::Incoming;
use outgoing::Outgoing;
use prompt::Prompt;
use running::Running;
use timers::Watch;

pub use saved::SavedRelay;
pub use timers::IdleTimeouts;

/// Why a flow ended early.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("application: {0}")]
    App(io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("nothing has moved for {}", humantime::format_duration(*.0))]
    Idle(Duration),
    #[error(
        "wire: the peer has acknowledged nothing of what was sent to it for {}",
        humantime::format_duration(*.0)
    )]
    Dead(Duration),
}

/// How a relay has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done<P> {
    /// Both directions have ended in order.
    Ended,
    /// It was paused, and may go on. Has the output of what it was paused for.
    Paused(P),
}

/// The relay of one flow: how far each direction has come.
#[derive(Debug)]
pub struct Relay {
    /// From the application to the wire.
    outgoing: Outgoing,
    /// From the wire to the application.
    incoming: Incoming,
    /// Acknowledges the application's bytes at once, where its buffer is small.
    prompt: Prompt,
    /// The timers.
    watch: Watch,
    /// Bytes moved so far.
    transferred: Transferred,
}

impl Relay {
    #[must_use]
    pub fn new(timeouts: IdleTimeouts) -> Self {
        Self {
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            prompt: Prompt::default(),
            watch: Watch::new(timeouts),
            transferred: Transferred::default(),
        }
    }

    /// Bytes moved so far. Up to date whenever nothing is being polled, also when [`Self::run`] was dropped.
    #[must_use]
    pub fn transferred(&self) -> Transferred {
        self.transferred
    }

    /// Relays until both directions have ended with an orderly close, until one leg fails, or until `pause` is ready. The end
    /// of one direction is passed on at once and leaves the other open. Nothing is lost by a pause, nor by dropping the
    /// future: with the same legs, the relay goes on where it was.
    ///
    /// # Errors
    /// If a leg fails, or nothing has moved for too long. The peer has been told, as far as that was possible
    /// at once. The caller then drops both legs, which resets them.
    pub async fn run<P: Future>(
        &mut self,
        app: &TcpStream,
        wire: &mut dyn Wire,
        // Pinned by the caller: a future that is taken and pinned here would have two places in the flow's memory.
        pause: Pin<&mut P>,
    ) -> Result<Done<P::Output>, RelayError> {
        let done = tokio::select! {
            biased;
            reason = pause => return Ok(Done::Paused(reason)),
            done = Running::new(self, app, wire) => done,
        };
        match done {
            Ok(()) => Ok(Done::Ended),
            Err(error) => {
                match &error {
                    RelayError::App(_) => wire.abort(Abort::Application),
                    RelayError::Idle(_) => wire.abort(Abort::Timeout),
                    RelayError::Wire(error) => wire.abort(Abort::Wire(error)),
                    RelayError::Dead(_) => {}
                }
                Err(error)
            }
        }
    }
}

/// True if the error says that the connection is gone, so that reading from it ends as well.
fn is_hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests;
