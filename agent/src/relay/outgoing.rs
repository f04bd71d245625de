//! From the application to the wire.

use std::io;
use std::task::{Context, Poll, ready};

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::prompt::Prompt;
use super::{RelayError, is_hung_up};
use crate::wire::{Ended, SendError, Wire, WireError};

/// How far a direction has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    #[default]
    Copying,
    /// The source has ended; what was read is written, and now the end itself is passed on.
    Ending,
    Ended,
}

/// The direction from the application to the wire.
#[derive(Debug, Default)]
pub struct Outgoing {
    pub state: State,
    /// The end has left, too.
    pub is_sent: bool,
    /// Bytes of the application that wait to be written.
    pub waiting: usize,
    /// The error with which the wire stopped taking bytes. What the peer has sent before still moves in the other direction, and
    /// that direction ends by itself.
    pub refused: Option<io::Error>,
}

impl Outgoing {
    /// Ready when nothing more goes to the wire. `turn` is how much may still be moved before other flows get their turn.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (app, wire): (&TcpStream, &mut dyn Wire),
        prompt: &mut Prompt,
        (sent, turn): (&mut u64, &mut usize),
    ) -> Poll<Result<(), RelayError>> {
        loop {
            if self.refused.is_some() {
                return Poll::Ready(Ok(()));
            }
            match ready!(wire.poll_flush(cx)) {
                Ok(()) => *sent += std::mem::take(&mut self.waiting) as u64,
                Err(WireError::Io(error)) if is_hung_up(&error) => {
                    self.refused = Some(error);
                    continue;
                }
                Err(error) => return Poll::Ready(Err(error.into())),
            }
            match self.state {
                State::Ended => {
                    if !std::mem::replace(&mut self.is_sent, true) {
                        wire.has_sent_end();
                    }
                    wire.rest(Ended::Sending);
                    return Poll::Ready(Ok(()));
                }
                State::Ending => {
                    self.state = State::Ended;
                    wire.end_sending()?;
                }
                State::Copying => {
                    if *turn == 0 {
                        return Poll::Pending;
                    }
                    let Poll::Ready(read) = wire.poll_send_from(cx, app) else {
                        prompt.emptied(app, *sent);
                        return Poll::Pending;
                    };
                    match read {
                        Ok(0) => self.state = State::Ending,
                        Ok(read) => {
                            self.waiting = read;
                            *turn = turn.saturating_sub(read);
                        }
                        Err(SendError::App(error)) => {
                            return Poll::Ready(Err(RelayError::App(error)));
                        }
                        Err(SendError::Wire(error)) => return Poll::Ready(Err(error.into())),
                    }
                }
            }
        }
    }
}
