//! The leg that the agent dials: to the peer for an outbound flow, to the application for an inbound one.

use std::time::Duration;

use tokio::net::TcpStream;

use super::flow::{Inbound, Outbound, on_heap};
use super::{FlowError, Pipeline};
use crate::capture::LocalLeg;
use crate::relay::RelayError;
use crate::sessions::Live;
use crate::sys::sockopt;
use crate::wire::Session;

/// How long a client waits for its answer while the application is dialled: half as long as it has patience on a session that
/// was open already.
const ANSWER: Duration = Duration::from_millis(100);

impl Pipeline {
    pub(super) async fn dial_wire(
        &self,
        flow: &Outbound,
        limit: Option<Duration>,
    ) -> Result<TcpStream, FlowError> {
        let limit = limit.unwrap_or(self.timeouts.connect);
        let dialling =
            flow.namespace.dial_wire(flow.source, flow.far_end(), &flow.inherited, limit);
        let tcp = dialling.await.map_err(FlowError::DialWire)?;
        sockopt::probe_peer(&tcp, self.timeouts.idle.dead_peer, &flow.inherited.asked)
            .map_err(FlowError::DialWire)?;
        Ok(tcp)
    }

    pub(super) async fn dial_app(&self, flow: &Inbound) -> Result<LocalLeg, FlowError> {
        let Inbound { namespace, workload, client, destination, .. } = flow;
        let dialling = namespace.dial_app(*workload, *client, *destination, self.timeouts.connect);
        dialling
            .await
            .inspect_err(|error| {
                if error.is_refused() {
                    namespace.note_refused(destination.port());
                }
            })
            .map_err(FlowError::DialApp)
    }

    /// Dials the application, and tells the client whether it may have the flow. Whoever is refused in place of accepted can go
    /// elsewhere. An application that takes its time is not waited for: who gets no answer gives the session up.
    pub(super) async fn answer(
        &self,
        flow: &Inbound,
        mut session: Box<dyn Session>,
        live: &mut Live,
    ) -> Result<(LocalLeg, Box<dyn Session>), FlowError> {
        let mut dialling = on_heap(self.dial_app(flow));
        let soon = tokio::select! {
            biased;
            revoked = live.revoked() => return Err(revoked.into()),
            dialled = &mut dialling => Some(dialled),
            () = on_heap(tokio::time::sleep(ANSWER)) => None,
        };
        if !matches!(soon, Some(Err(_))) {
            session.accept().map_err(RelayError::from)?;
        }
        let dialled = match soon {
            Some(dialled) => dialled,
            None => tokio::select! {
                biased;
                revoked = live.revoked() => return Err(revoked.into()),
                dialled = dialling => dialled,
            },
        };
        match dialled {
            Ok(app) => Ok((app, session)),
            Err(error) => {
                session.refuse(error.refusal());
                Err(error)
            }
        }
    }

    /// Has the kernel refuse the next connections to a destination that could not be reached.
    pub(super) fn note_unreachable(&self, flow: &Outbound, result: &Result<(), FlowError>) {
        // Another source may be told otherwise, and behind a Service another endpoint may be reached.
        if let Err(error) = result
            && flow.source.ip().is_loopback()
            && flow.tried.or(flow.reached).is_none()
            && let Some(errno) = error.unreachable()
        {
            let Outbound { namespace, workload, destination, inherited, .. } = flow;
            let limit = self.timeouts.connect;
            namespace.note_unreachable(*workload, *destination, *inherited, errno, limit);
        }
    }
}
