//! An agent that runs: until it is told to end, or hands over to a successor.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::error::StartError;
use super::following::FollowingTasks;
use super::lock::Lock;
use super::service_manager;
use super::told::Told;
use crate::admin::AgentInfo;
use crate::capture::{Listeners, SupervisorRequest};
use crate::control::ControlRequest;
use crate::discovery;
use crate::handover::{Broken, FlowsGiven, Successor};
use crate::pipeline::Pipeline;
use crate::sys::clock;

/// How long what has waited for this agent's listeners may take to get through its handshake of TCP when new connections go to a
/// successor already.
const LINGER: Duration = Duration::from_secs(3);
/// How long this agent waits for another successor when one has ended before it served. Nobody looks after the node meanwhile: what
/// is protected stays so and is served, and new workloads wait.
const ABANDONED: Duration = Duration::from_secs(60);

/// All that has to be ended, in an order in which nobody is left who waits for it.
pub struct Running {
    /// How long flows may take to end.
    pub drain: Duration,
    pub lock: Lock,
    pub pipeline: Arc<Pipeline>,
    pub info: Arc<AgentInfo>,
    pub supervisor: mpsc::WeakSender<SupervisorRequest>,
    pub supervising: JoinHandle<()>,
    /// Keeps the control plane running: live flows must be judged until they end.
    pub control: mpsc::Sender<ControlRequest>,
    pub controlling: JoinHandle<()>,
    /// The admin server. It has the only sender that keeps the supervisor running.
    pub serving: JoinHandle<()>,
    /// The hand-over socket, and those who have called there and are prepared.
    pub calling: JoinHandle<()>,
    pub successors: mpsc::Receiver<Successor>,
    /// What follows the controller, and changes what is in the kernel.
    pub following: Option<FollowingTasks>,
    /// What else may change it, and tells others.
    pub writing: Vec<JoinHandle<()>>,
    /// What only a running agent needs.
    pub upkeep: Vec<JoinHandle<()>>,
    pub proving: JoinHandle<()>,
}

/// What became of an attempt to hand over.
enum Attempt {
    HandedOver(FlowsGiven),
    /// The successor has ended, or does not get to the end.
    Failed(Broken),
    Told,
}

impl Running {
    /// Runs until the agent is told to end, then lets live flows finish within the drain timeout.
    ///
    /// # Errors
    /// If something ends that never should.
    pub async fn until_the_end(mut self, told: &mut Told) -> Result<(), StartError> {
        // What still accepts, once capture is left to a successor.
        let mut yielded: Option<Listeners> = None;
        let mut abandoned = None;
        loop {
            tokio::select! {
                () = told.wait() => break,
                // Without it, capture is not repaired: it is better to be started anew.
                _ = &mut self.supervising, if yielded.is_none() => {
                    return Err(StartError::Ended("the supervisor"));
                }
                _ = &mut self.controlling => return Err(StartError::Ended("the control plane")),
                () = clock::reach(abandoned) => return Err(StartError::Abandoned),
                Some(successor) = self.successors.recv() => {
                    let listeners = match yielded.take() {
                        Some(listeners) => listeners,
                        None => self.stop_writing().await?,
                    };
                    let (pid, version) = (successor.pid(), successor.version().to_owned());
                    match self.hand_over(successor, told).await {
                        Attempt::HandedOver(given) => {
                            tracing::info!(
                                pid,
                                version,
                                flows = self.pipeline.counters.flows(),
                                "handed over to a successor; live flows follow"
                            );
                            if !self.info.program.has_started(pid) {
                                return self.outlive(listeners, given, told).await;
                            }
                            self.proving.abort();
                            service_manager::is_replaced_by(pid.unsigned_abs()).await;
                            return self.make_room(listeners, given, told).await;
                        }
                        Attempt::Failed(error) => {
                            tracing::error!(
                                pid,
                                %error,
                                "the successor does not serve; this agent goes on accepting connections and waits for another"
                            );
                            listeners.put_back();
                            abandoned = Some(Instant::now() + ABANDONED);
                        }
                        Attempt::Told => {
                            yielded = Some(listeners);
                            break;
                        }
                    }
                    yielded = Some(listeners);
                }
            }
        }
        self.drain(yielded).await;
        tracing::info!("stopped; protected connections are refused until an agent runs again");
        Ok(())
    }

    /// Leaves what is in the kernel, the state files and the gate to a successor. What accepts and carries connections goes on.
    ///
    /// # Errors
    /// If the supervisor has ended before.
    async fn stop_writing(&mut self) -> Result<Listeners, StartError> {
        self.info.set_handed_over();
        self.end_writing().await;
        discovery::stop_keeping();
        if let Some(gate) = &self.info.gate {
            gate.close().await;
        }
        let yielding = SupervisorRequest::ask(&self.supervisor, SupervisorRequest::HandOver);
        let listeners = yielding.await.ok_or(StartError::Ended("the supervisor"))?;
        let _ = (&mut self.supervising).await;
        tracing::info!(
            "capture is left to a successor; connections are accepted and carried until it serves"
        );
        Ok(listeners)
    }

    async fn end_writing(&mut self) {
        if let Some(following) = self.following.take() {
            following.end().await;
        }
        for task in self.writing.drain(..) {
            task.abort();
            // It may be at work until it has nothing more to do at once.
            let _ = task.await;
        }
    }

    async fn hand_over(&self, successor: Successor, told: &mut Told) -> Attempt {
        let handing_over = async { successor.yielded(self.lock.as_fd()).await?.serving().await };
        let mut handing_over = std::pin::pin!(handing_over);
        let given = tokio::select! {
            given = &mut handing_over => given,
            // It is so close that whoever waits for the end of this agent is better off with it.
            () = told.wait() => match tokio::time::timeout(self.drain, handing_over).await {
                Ok(given) => given,
                Err(_) => return Attempt::Told,
            },
        };
        given.map_or_else(Attempt::Failed, Attempt::HandedOver)
    }

    /// Ends when the successor has taken what it takes: this agent has started it, and the service manager looks after it, and
    /// not after this one any more.
    ///
    /// # Errors
    /// If the successor ends: a service manager that does not see that of a process which it has not started sees this agent's end.
    async fn make_room(
        self,
        listeners: Listeners,
        given: FlowsGiven,
        told: &mut Told,
    ) -> Result<(), StartError> {
        let info = self.info.clone();
        tokio::select! {
            biased;
            ended = self.give_away(listeners, given, told, true) => ended,
            () = info.program.ended() => Err(StartError::Ended("the successor")),
        }
    }

    /// Carries what the successor does not take, until it is told to end. Not by itself: who has started it would start it again.
    async fn outlive(
        self,
        listeners: Listeners,
        given: FlowsGiven,
        told: &mut Told,
    ) -> Result<(), StartError> {
        self.give_away(listeners, given, told, false).await
    }

    /// Offers its flows to the successor, and carries the others to their ends. `by_itself`: as soon as all were offered.
    async fn give_away(
        mut self,
        listeners: Listeners,
        given: FlowsGiven,
        told: &mut Told,
        by_itself: bool,
    ) -> Result<(), StartError> {
        self.serving.abort();
        self.calling.abort();
        drop(self.lock);
        self.pipeline.ending.cancel();
        let giver = self.pipeline.clone();
        let (taker, refused) = (Arc::new(given.clone()), given.clone());
        // Waits for nobody who is told to end: what has not gone until then stays, and ends as it would have.
        let (offered, all_offered) = oneshot::channel();
        let giving = self.pipeline.workers.next().spawn(async move {
            giver.move_flows(taker).await;
            let _ = offered.send(());
            tracing::info!(
                flows = giver.counters.flows(),
                "live flows were offered to the successor; these stay"
            );
            refused.refused().await;
            giver.keep_flows();
        });
        // An agent that ends waits for this as well, but not longer than for flows.
        let linger = LINGER.min(self.drain / 2);
        self.pipeline.tasks.spawn(async move {
            tokio::time::sleep(linger).await;
            listeners.stop();
        });
        self.upkeep.push(giving);
        let all_given = async {
            let _ = all_offered.await;
            // Those that are on their way are offered as they come.
            tokio::time::sleep(linger).await;
        };
        tokio::select! {
            () = told.wait() => {}
            () = all_given, if by_itself => {}
            _ = &mut self.controlling => return Err(StartError::Ended("the control plane")),
        }
        tracing::info!(flows = self.pipeline.counters.flows(), "draining");
        if !by_itself {
            service_manager::stopping();
        }
        end_flows(&self.pipeline, self.drain, self.upkeep).await;
        drop((self.control, given));
        self.proving.abort();
        tracing::info!("stopped; its successor runs");
        Ok(())
    }

    /// Lets live flows finish. `yielded` is what accepts, if capture has been left to a successor that never served.
    async fn drain(mut self, yielded: Option<Listeners>) {
        tracing::info!(flows = self.pipeline.counters.flows(), "draining");
        service_manager::stopping();
        // Without the admin server the supervisor ends, and stops accepting. The control plane stays.
        self.serving.abort();
        self.calling.abort();
        self.end_writing().await;
        match yielded {
            Some(listeners) => listeners.stop(),
            None => drop(self.supervising.await),
        }
        end_flows(&self.pipeline, self.drain, self.upkeep).await;
        drop(self.control);
        self.proving.abort();
    }
}

async fn end_flows(pipeline: &Pipeline, limit: Duration, upkeep: Vec<JoinHandle<()>>) {
    pipeline.ending.cancel();
    upkeep.iter().for_each(JoinHandle::abort);
    pipeline.idle.clear();
    pipeline.tasks.close();
    if tokio::time::timeout(limit, pipeline.tasks.wait()).await.is_err() {
        tracing::warn!(flows = pipeline.counters.flows(), "drain timeout; live flows are reset");
    }
}
