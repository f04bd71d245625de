//! Starts a task for each connection that capture accepts.

use std::net::SocketAddr;
use std::sync::Arc;

use sheath_common::flow::ListenerKind;
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::flow::{Inbound, Outbound};
use super::{FlowError, FlowLog, Pipeline};
use crate::capture::{AcceptedInbound, AcceptedOutbound, FlowStarter, Namespace, Place};
use crate::flow::Direction;
use crate::limits::{Permit, QuotaExceeded};
use crate::telemetry::Refusals;

/// Starts one task for each connection, which lives until the last byte. If it ends early, both legs are dropped, which resets
/// them.
#[derive(Debug)]
pub struct FlowHandler(pub Arc<Pipeline>);

impl FlowStarter for FlowHandler {
    fn runtime(&self) -> Handle {
        self.0.workers.next().clone()
    }

    fn serves(&self, namespace: &Arc<Namespace>) {
        let place: Arc<dyn Place> = namespace.clone();
        self.0.places.add(namespace.cookie(), &place);
    }

    fn outbound(&self, namespace: Arc<Namespace>, accepted: AcceptedOutbound) {
        let AcceptedOutbound { stream, app: source, destination, workload, inherited } = accepted;
        let log = self.0.begin(Direction::Outbound, workload, (source, destination));
        let permit = self.0.quotas.admit(workload);
        self.start(stream, permit, log, move |started| async move {
            let Started { pipeline, stream: app, permit, mut log } = started;
            let mut flow = Outbound {
                namespace,
                workload,
                app,
                source,
                destination,
                reached: None,
                tried: None,
                inherited,
                permit,
                revision: pipeline.published.sessions.revision(),
                needs_new_session: false,
            };
            let result = pipeline.outbound_anywhere(&mut flow, &mut log).await;
            pipeline.note_unreachable(&flow, &result);
            // The leg to the application ends before anything is told about the flow.
            drop(flow);
            log.conclude(result);
        });
    }

    fn inbound(&self, namespace: Arc<Namespace>, accepted: AcceptedInbound) {
        let AcceptedInbound { stream, client, destination, workload } = accepted;
        let log = self.0.begin(Direction::Inbound, workload, (client, destination));
        let permit = self.0.quotas.admit_unproven(workload);
        self.start(stream, permit, log, move |started| {
            let Started { pipeline, stream: wire, permit, log } = started;
            let revision = pipeline.published.sessions.revision();
            let flow = Inbound { namespace, workload, client, destination, permit, revision };
            pipeline.inbound(flow, wire, log)
        });
    }

    fn stranger(&self, namespace: &Namespace, kind: ListenerKind, remote: SocketAddr) {
        self.0.counters.strangers.increment();
        tracing::debug!(namespace = namespace.inode(), ?kind, %remote, "connection of no workload reset");
    }

    fn shed(&self, namespace: &Namespace) {
        self.0.counters.connections_shed.increment();
        tracing::debug!(namespace = namespace.inode(), "no descriptor for a connection; reset");
    }

    fn refusals(&self) -> Arc<Refusals> {
        self.0.counters.refusals.clone()
    }
}

/// A flow that has been admitted.
struct Started {
    pipeline: Arc<Pipeline>,
    /// The leg that was accepted.
    stream: TcpStream,
    permit: Permit,
    log: FlowLog,
}

impl FlowHandler {
    /// Starts a flow on the thread that has the fewest, if its workload may have one more.
    fn start<W>(
        &self,
        stream: TcpStream,
        permit: Result<Permit, QuotaExceeded>,
        log: FlowLog,
        work: impl FnOnce(Started) -> W + Send + 'static,
    ) where
        W: Future<Output = ()> + Send + 'static,
    {
        let pipeline = self.0.clone();
        let permit = match permit {
            Ok(permit) => permit,
            Err(limit) => return log.conclude(Err(limit.into())),
        };
        let slot = pipeline.workers.slot();
        let runtime = slot.runtime.clone();
        let working = async move {
            match slot.adopt(stream) {
                Ok(stream) => work(Started { pipeline, stream, permit, log }).await,
                Err(error) => log.conclude(Err(FlowError::Settle(error))),
            }
            drop(slot);
        };
        self.0.tasks.spawn_on(working, &runtime);
    }
}
