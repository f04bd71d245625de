//! The predecessor's side of the rest: it has yielded, waits until the successor serves, and gives it its flows.

use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::connection::{Broken, Connection};
use super::flow::{FlowTaker, MovingFlow, Offer};
use super::message::{Introduction, Message};

/// How long a message may be under way: that of a flow may be long.
const ON_THE_WAY: Duration = Duration::from_secs(5);
/// How long a successor may take from the lock to its first connection: it attaches to each namespace of the node.
const SERVING: Duration = Duration::from_secs(120);
/// How long it may take to restore a flow.
const RESTORING: Duration = Duration::from_secs(5);
/// Flows that wait for their turn: each is paused meanwhile.
const QUEUE: usize = 1;

/// An agent that is prepared to take over from this one.
#[derive(Debug)]
pub struct Successor {
    connection: Connection,
    introduction: Introduction,
    /// Nobody else is served while it lives.
    turn: OwnedSemaphorePermit,
}

/// A successor that has the lock, and does not serve yet.
#[derive(Debug)]
pub struct Starting(Successor);

impl Successor {
    pub(super) fn new(
        connection: Connection,
        introduction: Introduction,
        turn: OwnedSemaphorePermit,
    ) -> Self {
        Self { connection, introduction, turn }
    }

    /// Its process id, as far as it has one here.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.connection.peer()
    }

    /// Its version of Sheath.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.introduction.agent
    }

    /// Tells it that this agent has stopped writing, and passes the lock of the instance on. This agent keeps its own
    /// descriptor of it until the successor serves.
    ///
    /// # Errors
    /// If the successor is gone.
    pub async fn yielded(self, lock: BorrowedFd<'_>) -> Result<Starting, Broken> {
        self.connection.send(&Message::Yielded, &[lock], ON_THE_WAY).await?;
        Ok(Starting(self))
    }
}

impl Starting {
    /// Waits until new connections come to the successor. Needs a tokio runtime, on which flows are then handed over.
    ///
    /// # Errors
    /// If it is gone, or does not get so far.
    pub async fn serving(self) -> Result<FlowsGiven, Broken> {
        let received = self.0.connection.receive_within(SERVING).await?;
        if received.message != Message::Serving {
            return Err(received.unexpected());
        }
        let (offers, queue) = mpsc::channel(QUEUE);
        tokio::spawn(give(self.0, queue));
        Ok(FlowsGiven(offers))
    }
}

/// Gives flows to the successor, one after the other. When the last of these is dropped, the successor takes this agent to have
/// ended.
#[derive(Clone, Debug)]
pub struct FlowsGiven(mpsc::Sender<Offered>);

impl FlowsGiven {
    /// Waits until the successor takes no more flows, though this agent has not ended.
    pub async fn refused(&self) {
        self.0.closed().await;
    }
}

type Offered = (MovingFlow, oneshot::Sender<Offer>);

impl FlowTaker for FlowsGiven {
    fn offer(&self, flow: MovingFlow) -> Pin<Box<dyn Future<Output = Offer> + Send + '_>> {
        Box::pin(async move {
            let gone = || Offer::Refused("the successor takes no more flows".to_owned());
            let (answer, answered) = oneshot::channel();
            if self.0.send((flow, answer)).await.is_err() {
                return gone();
            }
            // Whoever has the other end always answers. If it has broken down, nobody knows who has the flow.
            answered.await.unwrap_or(Offer::Taken)
        })
    }
}

/// A task of its own, so that nothing that becomes of a flow's task leaves half an exchange behind.
async fn give(successor: Successor, mut queue: mpsc::Receiver<Offered>) {
    let Successor { connection, turn, .. } = successor;
    let broken = loop {
        tokio::select! {
            offered = queue.recv() => {
                // This agent ends.
                let Some((flow, answer)) = offered else { return };
                let (offer, broken) = match exchange(&connection, &flow).await {
                    Ok(offer) => (offer, None),
                    Err(broken) => (Offer::Refused(broken.to_string()), Some(broken)),
                };
                // Whoever has offered it may be gone.
                let _ = answer.send(offer);
                if let Some(broken) = broken {
                    break broken;
                }
            }
            // It says nothing unless it is asked.
            broken = hung_up(&connection) => break broken,
        }
    };
    // Offers that are in the queue, or come yet, are refused.
    queue.close();
    while let Some((_, answer)) = queue.recv().await {
        let _ = answer.send(Offer::Refused("the successor takes no more flows".to_owned()));
    }
    tracing::warn!(error = %broken, "the successor takes no more flows; this agent carries what it has to its end");
    drop(turn);
}

/// One flow. Only the last message gives it up: whatever fails before, it is still this agent's.
async fn exchange(connection: &Connection, flow: &MovingFlow) -> Result<Offer, Broken> {
    let message = Message::Flow(flow.state.clone());
    connection.send(&message, &[flow.app.as_fd(), flow.wire.as_fd()], ON_THE_WAY).await?;
    let received = connection.receive_within(RESTORING).await?;
    match received.message {
        Message::Restored => {}
        Message::NotRestored(why) => return Ok(Offer::Refused(why)),
        _ => return Err(received.unexpected()),
    }
    // It is short, and goes as a whole or not at all.
    connection.send(&Message::Yours, &[], ON_THE_WAY).await?;
    Ok(Offer::Taken)
}

/// Ends when the other side has closed its end, or says something unasked.
async fn hung_up(connection: &Connection) -> Broken {
    match connection.receive().await {
        Ok(received) => received.unexpected(),
        Err(broken) => broken,
    }
}
