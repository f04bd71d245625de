//! What capture starts for each connection it accepts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sheath_common::flow::ListenerKind;
use sheath_common::workload::WorkloadId;
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::{FlowError, Pipeline};
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

    fn outbound(&self, namespace: Arc<Namespace>, mut accepted: AcceptedOutbound) {
        let pipeline = self.0.clone();
        let AcceptedOutbound { workload, app, destination, .. } = accepted;
        let mut flow = pipeline.begin(Direction::Outbound, workload, app, destination);
        let (admitted, place) = match self.admit(workload) {
            Ok(admitted) => admitted,
            Err(limit) => return pipeline.conclude(flow, Err(limit)),
        };
        let runtime = place.runtime.clone();
        self.0.tasks.spawn_on(
            async move {
                let result = match settle(accepted.stream, &place) {
                    Ok(stream) => {
                        accepted.stream = stream;
                        let share = admitted.share();
                        pipeline.outbound(&namespace, accepted, share, &mut flow.record).await
                    }
                    Err(error) => Err(error),
                };
                pipeline.conclude(flow, result);
            },
            &runtime,
        );
    }

    fn inbound(&self, namespace: Arc<Namespace>, mut accepted: AcceptedInbound) {
        let pipeline = self.0.clone();
        let AcceptedInbound { workload, client, destination, .. } = accepted;
        let flow = pipeline.begin(Direction::Inbound, workload, client, destination);
        let (admitted, place) = match self.admit(workload) {
            Ok(admitted) => admitted,
            Err(limit) => return pipeline.conclude(flow, Err(limit)),
        };
        let runtime = place.runtime.clone();
        self.0.tasks.spawn_on(
            async move {
                match settle(accepted.stream, &place) {
                    Ok(stream) => {
                        accepted.stream = stream;
                        pipeline.inbound(&namespace, accepted, admitted.share(), flow).await;
                    }
                    Err(error) => pipeline.conclude(flow, Err(error)),
                }
            },
            &runtime,
        );
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
    fn admit(&self, workload: WorkloadId) -> Result<(Admitted, Place), FlowError> {
        Ok((self.0.shares.admit(workload)?, self.0.workers.place()))
    }
}

/// Has a connection waited on where it is worked on.
fn settle(stream: TcpStream, place: &Place) -> Result<TcpStream, FlowError> {
    if !place.is_elsewhere {
        return Ok(stream);
    }
    stream.into_std().and_then(TcpStream::from_std).map_err(FlowError::Settle)
}
