//! Being told to end.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::StartError;

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub struct Told {
    terminate: Signal,
    interrupt: Signal,
    was_told: bool,
}

impl Told {
    /// # Errors
    /// If signals cannot be waited for.
    pub fn new() -> Result<Self, StartError> {
        let wait = |kind| signal(kind).map_err(StartError::io("cannot wait for signals"));
        let (terminate, interrupt) =
            (wait(SignalKind::terminate())?, wait(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, was_told: false })
    }

    /// Returns when the agent has been told to end.
    pub async fn wait(&mut self) {
        if self.was_told {
            return;
        }
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        self.was_told = true;
    }

    /// True if it has been told by now.
    pub async fn is_told(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.wait() => true,
            () = std::future::ready(()) => false,
        }
    }
}
