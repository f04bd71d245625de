//! What capture starts for each connection it accepts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sheath_common::flow::ListenerKind;

use super::Pipeline;
use crate::capture::{AcceptedInbound, AcceptedOutbound, FlowStarter, Namespace};
use crate::flow::Direction;

/// One task for each connection, from here to the last byte. Whatever ends it early drops both legs, which resets
/// them.
#[derive(Debug)]
pub struct Starter(pub Arc<Pipeline>);

impl FlowStarter for Starter {
    fn outbound(&self, namespace: Arc<Namespace>, accepted: AcceptedOutbound) {
        let pipeline = self.0.clone();
        let AcceptedOutbound { workload, app, destination, .. } = accepted;
        let mut flow = pipeline.begin(Direction::Outbound, workload, app, destination);
        let admitted = match pipeline.shares.admit(workload) {
            Ok(admitted) => admitted,
            Err(limit) => return pipeline.conclude(flow, Err(limit.into())),
        };
        self.0.tasks.spawn(async move {
            let share = admitted.share();
            let result = pipeline.outbound(&namespace, accepted, share, &mut flow.record).await;
            pipeline.conclude(flow, result);
        });
    }

    fn inbound(&self, namespace: Arc<Namespace>, accepted: AcceptedInbound) {
        let pipeline = self.0.clone();
        let AcceptedInbound { workload, client, destination, .. } = accepted;
        let flow = pipeline.begin(Direction::Inbound, workload, client, destination);
        let admitted = match pipeline.shares.admit(workload) {
            Ok(admitted) => admitted,
            Err(limit) => return pipeline.conclude(flow, Err(limit.into())),
        };
        self.0.tasks.spawn(async move {
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
