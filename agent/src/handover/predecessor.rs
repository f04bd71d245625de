//! The successor's side: it calls the agent that runs, has it yield, and takes its flows.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;

use super::connection::{Broken, Connection, Received};
use super::flow::{FlowResumer, GoOn, MovingFlow};
use super::message::{Introduction, Message, Welcome};
use super::sockets::check_legs;
use super::taken::TakeOver;

/// How long an agent may take to say that it is there.
const GREETING: Duration = Duration::from_secs(3);
/// How long it may take to stop what it does with the kernel: a look at the whole node may be under way.
const YIELDING: Duration = Duration::from_secs(15);
/// How long a message of a few bytes may be under way.
const ON_THE_WAY: Duration = Duration::from_secs(2);
/// How long it may take to give a flow up that it has offered.
const GIVING_UP: Duration = Duration::from_secs(5);

/// Why there is no agent to take over from.
#[derive(Debug, thiserror::Error)]
pub enum NotCalled {
    /// Perhaps it is ending, or knows nothing of hand-overs.
    #[error("nobody answers at its hand-over socket: {0}")]
    Nobody(io::Error),
    /// It has another one for a successor, for instance.
    #[error("{0}")]
    Refused(String),
    /// It is of another version, or hangs.
    #[error("{0}")]
    Broken(Broken),
}

/// An agent that expects this one to take over.
#[derive(Debug)]
pub struct Predecessor {
    connection: Connection,
    welcome: Welcome,
}

/// It writes nothing any more that this agent writes, and goes on accepting and carrying flows.
#[derive(Debug)]
pub struct Yielded {
    connection: Connection,
    introduction: Introduction,
}

impl Predecessor {
    /// Calls the agent at `socket`.
    ///
    /// # Errors
    /// If it is not there, or does not want to be replaced.
    pub async fn call(socket: &Path, own: Introduction) -> Result<Self, NotCalled> {
        let connecting = tokio::time::timeout(GREETING, UnixStream::connect(socket));
        let stream = match connecting.await {
            Ok(connected) => connected.map_err(NotCalled::Nobody)?,
            Err(_) => return Err(NotCalled::Broken(Broken::Silent(GREETING))),
        };
        let connection = Connection::new(stream).map_err(NotCalled::Nobody)?;
        let greet = async {
            connection.send(&Message::Hello(own), &[], ON_THE_WAY).await?;
            let received = connection.receive_within(GREETING).await?;
            match received.message {
                Message::Welcome(welcome) => Ok(welcome),
                _ => Err(received.unexpected()),
            }
        };
        match greet.await {
            Ok(welcome) => Ok(Self { connection, welcome }),
            Err(Broken::Refused(why)) => Err(NotCalled::Refused(why)),
            Err(broken) => Err(NotCalled::Broken(broken)),
        }
    }

    pub fn introduction(&self) -> &Introduction {
        &self.welcome.introduction
    }

    /// Keys of the workloads that it can serve.
    pub fn identified(&self) -> &BTreeSet<String> {
        &self.welcome.identified
    }

    /// Returns when it has ended, or makes no sense any more. It says nothing unless it is asked.
    pub async fn gone(&self) {
        let _ = self.connection.receive().await;
    }

    /// Its process id, as far as it has one here.
    pub fn pid(&self) -> i32 {
        self.connection.peer()
    }

    /// Has it leave to this agent what only one may do. Returns the lock of the instance as well: it was never free.
    ///
    /// # Errors
    /// If it does not.
    pub async fn ask_to_yield(self) -> Result<(OwnedFd, Yielded), Broken> {
        let Self { connection, welcome } = self;
        connection.send(&Message::Yield, &[], ON_THE_WAY).await?;
        let mut received = connection.receive_within(YIELDING).await?;
        match (&received.message, received.descriptors.pop()) {
            (Message::Yielded, Some(lock)) => {
                Ok((lock, Yielded { connection, introduction: welcome.introduction }))
            }
            _ => Err(received.unexpected()),
        }
    }
}

impl Yielded {
    /// What is known of the take-over from now on.
    #[must_use]
    pub fn begin(&self) -> TakeOver {
        TakeOver::new(self.connection.peer(), &self.introduction)
    }

    /// Tells the predecessor that new connections come to this agent.
    ///
    /// # Errors
    /// If it is gone.
    pub async fn serving(&self) -> Result<(), Broken> {
        self.connection.send(&Message::Serving, &[], ON_THE_WAY).await
    }

    /// Takes its flows until it ends. `resumer` restores them.
    pub async fn take_flows(self, resumer: Arc<dyn FlowResumer>, take_over: &TakeOver) {
        let ended = self.take_all(&*resumer, take_over).await;
        let (taken, refused) = (take_over.taken.get(), take_over.refused.get());
        match ended {
            Broken::Ended => {
                tracing::info!(taken, refused, "the agent that was taken over from has ended");
            }
            error => {
                tracing::warn!(%error, taken, refused, "no more flows are taken over from the agent before");
            }
        }
        take_over.end();
    }

    async fn take_all(&self, resumer: &dyn FlowResumer, take_over: &TakeOver) -> Broken {
        loop {
            match self.take_flow(resumer).await {
                Ok(true) => take_over.taken.increment(),
                Ok(false) => take_over.refused.increment(),
                Err(broken) => return broken,
            }
        }
    }

    /// Waits for a flow, and answers. Says whether it was taken.
    async fn take_flow(&self, resumer: &dyn FlowResumer) -> Result<bool, Broken> {
        let connection = &self.connection;
        let received = connection.receive().await?;
        let go_on = match restored(received, resumer)? {
            Ok(go_on) => go_on,
            Err(why) => {
                tracing::debug!(reason = why, "a flow is not taken over");
                connection.send(&Message::not_restored(&why), &[], ON_THE_WAY).await?;
                return Ok(false);
            }
        };
        connection.send(&Message::Restored, &[], ON_THE_WAY).await?;
        let given = connection.receive_within(GIVING_UP).await?;
        match given.message {
            Message::Yours => go_on(),
            _ => return Err(given.unexpected()),
        }
        Ok(true)
    }
}

/// The flow that has come, or why it cannot be carried here.
///
/// # Errors
/// If no flow has come.
fn restored(received: Received, resumer: &dyn FlowResumer) -> Result<Result<GoOn, String>, Broken> {
    let Received { message: Message::Flow(state), descriptors } = received else {
        return Err(received.unexpected());
    };
    let Ok([app, wire]) = <[OwnedFd; 2]>::try_from(descriptors) else {
        return Err(Broken::Unexpected("a flow without its legs".to_owned()));
    };
    Ok(check_legs(&app, &wire)
        .map_err(|error| error.to_string())
        .and_then(|()| resumer.restore(MovingFlow { state, app, wire })))
}
