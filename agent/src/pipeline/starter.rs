//! What capture starts for each connection it accepts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sheath_common::flow::ListenerKind;
use tokio::runtime::Handle;

use super::{Flow, FlowError, Pipeline};
use crate::capture::{AcceptedInbound, AcceptedOutbound, FlowStarter, Namespace};
use crate::flow::Direction;
use crate::shares::{Admitted, OverLimit};
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
        let AcceptedOutbound { workload, app, destination, inherited, .. } = accepted;
        let flow = self.0.begin(Direction::Outbound, workload, app, destination);
        let admitted = self.0.shares.admit(workload);
        self.start(admitted, flow, move |mut started| async move {
            let result = match started.place.settle(accepted.stream) {
                Ok(stream) => {
                    let accepted = AcceptedOutbound { stream, ..accepted };
                    let (share, record) = (started.admitted.share(), &mut started.flow.record);
                    started.pipeline.outbound(&namespace, accepted, share, record).await
                }
                Err(error) => Err(FlowError::Settle(error)),
            };
            // Another source may be told otherwise.
            if let Err(error) = &result
                && app.ip().is_loopback()
                && let Some(errno) = error.unreachable()
            {
                let limit = started.pipeline.timeouts.connect;
                namespace.note_unreachable(workload, destination, inherited, errno, limit);
            }
            started.pipeline.conclude(started.flow, result);
        });
    }

    fn inbound(&self, namespace: Arc<Namespace>, accepted: AcceptedInbound) {
        let AcceptedInbound { workload, client, destination, .. } = accepted;
        let flow = self.0.begin(Direction::Inbound, workload, client, destination);
        let admitted = self.0.shares.receive(workload);
        self.start(admitted, flow, move |mut started| async move {
            match started.place.settle(accepted.stream) {
                Ok(stream) => {
                    let accepted = AcceptedInbound { stream, ..accepted };
                    let admitted = &mut started.admitted;
                    started.pipeline.inbound(&namespace, accepted, admitted, started.flow).await;
                }
                Err(error) => {
                    started.pipeline.conclude(started.flow, Err(FlowError::Settle(error)));
                }
            }
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
    admitted: Admitted,
    place: Place,
    flow: Flow,
}

impl Starter {
    /// Has a connection worked on, if its workload may have one more.
    fn start<W>(
        &self,
        admitted: Result<Admitted, OverLimit>,
        flow: Flow,
        work: impl FnOnce(Started) -> W + Send + 'static,
    ) where
        W: Future<Output = ()> + Send + 'static,
    {
        let pipeline = self.0.clone();
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(limit) => return pipeline.conclude(flow, Err(limit.into())),
        };
        let place = pipeline.workers.place();
        let runtime = place.runtime.clone();
        self.0.tasks.spawn_on(work(Started { pipeline, admitted, place, flow }), &runtime);
    }
}
