//! What capture starts for each connection it accepts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sheath_common::flow::ListenerKind;
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::flow::{Inbound, Outbound};
use super::{FlowError, FlowLog, Pipeline};
use crate::capture::{AcceptedInbound, AcceptedOutbound, FlowStarter, Namespace};
use crate::flow::Direction;
use crate::shares::{Admitted, OverLimit};

/// One task for each connection, from here to the last byte. Whatever ends it early drops both legs, which resets
/// them.
#[derive(Debug)]
pub struct FlowHandler(pub Arc<Pipeline>);

impl FlowStarter for FlowHandler {
    fn runtime(&self) -> Handle {
        self.0.workers.next().clone()
    }

    fn outbound(&self, namespace: Arc<Namespace>, accepted: AcceptedOutbound) {
        let AcceptedOutbound { stream, app: source, destination, workload, inherited } = accepted;
        let log = self.0.begin(Direction::Outbound, workload, (source, destination));
        let admitted = self.0.shares.admit(workload);
        self.start(stream, admitted, log, move |started| async move {
            let Started { pipeline, stream: app, admitted, mut log } = started;
            let mut flow = Outbound {
                namespace,
                workload,
                app,
                source,
                destination,
                inherited,
                admitted,
                revision: pipeline.published.sessions.revision(),
                needs_new_session: false,
            };
            let result = pipeline.outbound_again(&mut flow, &mut log).await;
            pipeline.note_unreachable(&flow, &result);
            // The leg to the application ends before anything is told about the flow.
            drop(flow);
            pipeline.conclude(log, result);
        });
    }

    fn inbound(&self, namespace: Arc<Namespace>, accepted: AcceptedInbound) {
        let AcceptedInbound { stream, client, destination, workload } = accepted;
        let log = self.0.begin(Direction::Inbound, workload, (client, destination));
        let admitted = self.0.shares.receive(workload);
        self.start(stream, admitted, log, move |started| async move {
            let Started { pipeline, stream: wire, admitted, log } = started;
            let revision = pipeline.published.sessions.revision();
            let flow = Inbound { namespace, workload, client, destination, admitted, revision };
            pipeline.inbound(flow, wire, log).await;
        });
    }

    fn stranger(&self, namespace: &Namespace, kind: ListenerKind, remote: SocketAddr) {
        self.0.counters.strangers.fetch_add(1, Relaxed);
        tracing::debug!(namespace = namespace.inode(), ?kind, %remote, "connection of no workload reset");
    }

    fn shed(&self, namespace: &Namespace) {
        self.0.counters.connections_shed.fetch_add(1, Relaxed);
        tracing::debug!(namespace = namespace.inode(), "no descriptor for a connection; reset");
    }
}

/// A flow that is worked on.
struct Started {
    pipeline: Arc<Pipeline>,
    /// The leg that was accepted.
    stream: TcpStream,
    admitted: Admitted,
    log: FlowLog,
}

impl FlowHandler {
    /// Has a connection worked on by the thread that has least to do, if its workload may have one more.
    fn start<W>(
        &self,
        stream: TcpStream,
        admitted: Result<Admitted, OverLimit>,
        log: FlowLog,
        work: impl FnOnce(Started) -> W + Send + 'static,
    ) where
        W: Future<Output = ()> + Send + 'static,
    {
        let pipeline = self.0.clone();
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(limit) => return pipeline.conclude(log, Err(limit.into())),
        };
        let place = pipeline.workers.place();
        let runtime = place.runtime.clone();
        let working = async move {
            match place.settle(stream) {
                Ok(stream) => work(Started { pipeline, stream, admitted, log }).await,
                Err(error) => pipeline.conclude(log, Err(FlowError::Settle(error))),
            }
            drop(place);
        };
        self.0.tasks.spawn_on(working, &runtime);
    }
}
