//! What capture starts for each connection it accepts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sheath_common::flow::ListenerKind;
use sheath_common::workload::WorkloadId;
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::{Flow, FlowError, Pipeline};
use crate::capture::{AcceptedInbound, AcceptedOutbound, FlowStarter, Namespace};
use crate::flow::Direction;
use crate::shares::Admitted;
use crate::workers::Place;

/// One task for each connection, from here to the last byte. Whatever ends it early drops both legs, which resets
/// them.
#[derive(Debug)]
pub struct Starter(pub Arc<Pipeline>);

impl FlowStarter for Starter {
    fn runtime(&self) -> Handle {
        self.0.workers.next().clone()
    }

    fn outbound(&self, namespace: Arc<Namespace>, accepted: AcceptedOutbound) {
        let AcceptedOutbound { stream, workload, app, destination } = accepted;
        let flow = self.0.begin(Direction::Outbound, workload, app, destination);
        self.start(
            workload,
            stream,
            flow,
            move |pipeline, stream, admitted, mut flow| async move {
                let accepted = AcceptedOutbound { stream, workload, app, destination };
                let share = admitted.share();
                let result = pipeline.outbound(&namespace, accepted, share, &mut flow.record).await;
                pipeline.conclude(flow, result);
            },
        );
    }

    fn inbound(&self, namespace: Arc<Namespace>, accepted: AcceptedInbound) {
        let AcceptedInbound { stream, workload, client, destination } = accepted;
        let flow = self.0.begin(Direction::Inbound, workload, client, destination);
        self.start(workload, stream, flow, move |pipeline, stream, admitted, flow| async move {
            let accepted = AcceptedInbound { stream, workload, client, destination };
            pipeline.inbound(&namespace, accepted, admitted.share(), flow).await;
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

impl Starter {
    /// Has a connection worked on, if its workload may have one more.
    fn start<W>(
        &self,
        workload: WorkloadId,
        stream: TcpStream,
        flow: Flow,
        work: impl FnOnce(Arc<Pipeline>, TcpStream, Admitted, Flow) -> W + Send + 'static,
    ) where
        W: Future<Output = ()> + Send,
    {
        let pipeline = self.0.clone();
        let admitted = match pipeline.shares.admit(workload) {
            Ok(admitted) => admitted,
            Err(limit) => return pipeline.conclude(flow, Err(limit.into())),
        };
        let place = pipeline.workers.place();
        let runtime = place.runtime.clone();
        self.0.tasks.spawn_on(
            async move {
                match settle(stream, &place) {
                    Ok(stream) => work(pipeline, stream, admitted, flow).await,
                    Err(error) => pipeline.conclude(flow, Err(error)),
                }
            },
            &runtime,
        );
    }
}

/// Has a connection waited on where it is worked on.
fn settle(stream: TcpStream, place: &Place) -> Result<TcpStream, FlowError> {
    if !place.is_elsewhere {
        return Ok(stream);
    }
    stream.into_std().and_then(TcpStream::from_std).map_err(FlowError::Settle)
}
