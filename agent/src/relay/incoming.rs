//! From the wire to the application.

use std::io;
use std::net::Shutdown;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::net::TcpStream;

use super::outgoing::State;
use super::{RelayError, is_hung_up};
use crate::sys::readiness;
use crate::wire::{Collected, Ended, Filled, Wire};

/// The direction from the wire to the application.
#[derive(Debug, Default)]
pub struct Incoming {
    pub state: State,
    /// The error with which the application stopped reading, as in [`super::Outgoing`].
    pub refused: Option<io::Error>,
}

impl Incoming {
    /// Ready when nothing more comes from the wire. `is_last` says that the other direction has ended; `turn` is how much may
    /// still be moved before others get their turn.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (app, wire): (&TcpStream, &mut dyn Wire),
        is_last: bool,
        (received, turn): (&mut u64, &mut usize),
    ) -> Poll<Result<(), RelayError>> {
        loop {
            match ready!(deliver(cx, app, wire, (received, turn))) {
                Ok(()) => {}
                Err(error) if is_hung_up(&error) => self.hung_up(wire, error),
                Err(error) => return Poll::Ready(Err(RelayError::App(error))),
            }
            match self.state {
                State::Ended => {
                    wire.rest(Ended::Receiving);
                    return Poll::Ready(Ok(()));
                }
                State::Ending => {
                    self.state = State::Ended;
                    // If nothing is left in the other direction either, closing the leg says the same.
                    if !(is_last && wire.unsent() == 0)
                        && let Err(error) = SockRef::from(app).shutdown(Shutdown::Write)
                    {
                        self.hung_up(wire, error);
                    }
                    continue;
                }
                State::Copying => match wire.collect() {
                    Ok(Collected::More) => {}
                    Ok(Collected::End) => self.state = State::Ending,
                    Err(error) => {
                        // What came before was good, but nobody waits for it to be taken.
                        let _ = deliver(cx, app, wire, (received, turn));
                        return Poll::Ready(Err(error.into()));
                    }
                },
            }
            if self.state == State::Copying && wire.collected().is_empty() {
                if *turn == 0 {
                    return Poll::Pending;
                }
                if ready!(wire.poll_fill(cx))? == Filled::End {
                    self.state = State::Ending;
                }
            }
        }
    }

    /// The application has stopped reading.
    fn hung_up(&mut self, wire: &mut dyn Wire, error: io::Error) {
        wire.discard();
        self.state = State::Ended;
        self.refused = Some(error);
    }
}

/// Ready when the application has taken all that was collected for it.
fn deliver(
    cx: &mut Context<'_>,
    app: &TcpStream,
    wire: &mut dyn Wire,
    (received, turn): (&mut u64, &mut usize),
) -> Poll<io::Result<()>> {
    loop {
        let collected = wire.collected();
        if collected.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let written = ready!(readiness::poll_write(app, cx, collected.as_slice()))?;
        wire.taken(written);
        *received += written as u64;
        *turn = turn.saturating_sub(written);
    }
}
