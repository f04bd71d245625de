//! Flow after flow in one session between agents: taken up by the client, served by the server.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::{Call, Flow, FlowError, Pipeline, Proved, record_session};
use crate::capture::{AcceptedOutbound, Namespace};
use crate::flow::{Direction, FlowRecord};
use crate::framing::{GoAway, Open, Refused};
use crate::relay::RelayError;
use crate::sessions::{FlowSession, NotAccepted, Route, Terms};
use crate::sys::clock;

/// How a server's wait for the next flow ends.
enum Next {
    Flow(Open),
    /// The client has closed the session.
    Closed,
    Failed(RelayError),
    /// The session is not good for another.
    Over(GoAway),
}

impl Pipeline {
    /// Client: begins a flow on a session that is open already, if there is one.
    pub(super) async fn reopen(
        &self,
        namespace: &Namespace,
        accepted: &AcceptedOutbound,
        record: &mut FlowRecord,
    ) -> Result<Option<Box<FlowSession>>, FlowError> {
        let destination = accepted.destination;
        let route = route(namespace, accepted);
        while let Some(mut session) = self.idle.take(&route) {
            let Ok(local) = session.stream.tcp().local_addr() else {
                continue;
            };
            let source = SocketAddr::new(local.ip(), accepted.app.port());
            match session.reopen(Open { source, destination }).await {
                Ok(()) => {
                    self.counters.sessions_reused.fetch_add(1, Relaxed);
                    record.source = source;
                    record.is_reused = true;
                    record_session(record, &session.proof);
                    return Ok(Some(session));
                }
                Err(NotAccepted::Refused(code)) => return Err(FlowError::NotAccepted(code)),
                // Nothing of the application's was on it: another session will do as well.
                Err(NotAccepted::Over(reason)) => {
                    self.idle.ended(&route, reason);
                    self.counters.sessions_found_dead.fetch_add(1, Relaxed);
                }
                Err(NotAccepted::Dead) => {
                    self.counters.sessions_found_dead.fetch_add(1, Relaxed);
                }
                // A flow waits in vain once, not for each session that is kept.
                Err(NotAccepted::Silent) => {
                    self.counters.sessions_found_dead.fetch_add(1, Relaxed);
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    /// Client: keeps a session for the next flow.
    pub(super) fn keep(
        &self,
        namespace: &Namespace,
        accepted: &AcceptedOutbound,
        session: Box<FlowSession>,
    ) {
        if self.ending.is_cancelled() {
            session.close();
        } else {
            self.idle.keep(route(namespace, accepted), session);
        }
    }

    /// Server: serves flow after flow. What is told about the first began with the connection.
    pub(super) async fn serve(
        &self,
        namespace: &Namespace,
        mut call: Call,
        mut session: Box<FlowSession>,
        first: Flow,
    ) {
        let local_id = first.record.local_id.clone();
        let mut first = Some(first);
        loop {
            // On the heap while it lasts: a session in use must be small.
            let open = match Box::pin(self.next_flow(&mut session)).await {
                Next::Flow(open) => open,
                end => {
                    let error = match end {
                        Next::Failed(error) => {
                            session.fail(&error);
                            error.into()
                        }
                        Next::Over(reason) => {
                            session.go_away(reason);
                            FlowError::NoFlow
                        }
                        _ => {
                            session.close();
                            FlowError::NoFlow
                        }
                    };
                    match first {
                        Some(first) => self.conclude(first, Err(error)),
                        None => tracing::debug!(client = %call.client, %error, "session over"),
                    }
                    return;
                }
            };
            // The port is what the client says, for the application to see; the address is what was observed.
            call.client.set_port(open.source.port());
            let (dialled, arrived) = (open.destination, call.destination);
            // Whatever leads one address to another may lead it elsewhere the next time.
            let is_virtual = dialled.ip().to_canonical() != arrived.ip().to_canonical()
                || dialled.port() != arrived.port();
            let client = call.client;
            let mut flow = first.take().unwrap_or_else(|| {
                let mut flow =
                    self.begin(Direction::Inbound, call.workload, client, call.destination);
                flow.record.local_id.clone_from(&local_id);
                flow.record.is_reused = true;
                record_session(&mut flow.record, &session.proof);
                flow
            });
            flow.record.source = client;
            let may_arrive = self.published.policy.load().check_port(
                call.workload,
                dialled.port(),
                arrived.port(),
            );
            if let Err(error) = may_arrive {
                session.refuse(Refused::NOT_ALLOWED);
                return self.conclude(flow, Err(error.into()));
            }
            let (revision, proved) = (session.terms.revision, Proved::Flows(session));
            let record = &mut flow.record;
            let served = self.serve_one(namespace, &call, proved, revision, record).await;
            match served {
                Ok(Some(clean)) => {
                    self.conclude(flow, Ok(()));
                    if is_virtual {
                        return clean.go_away(GoAway::VIRTUAL);
                    }
                    session = clean;
                }
                result => return self.conclude(flow, result.map(|_| ())),
            }
        }
    }

    /// Waits for the client to open a flow, for as long as the session may be used.
    async fn next_flow(&self, session: &mut FlowSession) -> Next {
        // Longer than a client: it should be the one to end it, as it knows best.
        let idle = Instant::now() + 2 * self.idle.max_idle();
        let Terms { revision, good_until, .. } = session.terms;
        let place = session.terms.place.clone();
        tokio::select! {
            biased;
            () = self.published.sessions.changed_since(revision) => Next::Over(GoAway::CHANGED),
            () = self.ending.cancelled() => Next::Over(GoAway::SHUTDOWN),
            () = place.cancelled() => Next::Over(GoAway::SHUTDOWN),
            next = session.next_flow() => match next {
                Ok(Some(open)) => Next::Flow(open),
                Ok(None) => Next::Closed,
                Err(error) => Next::Failed(error),
            },
            () = tokio::time::sleep_until(idle) => Next::Over(GoAway::IDLE),
            () = clock::sleep_until(good_until) => Next::Over(GoAway::AGE),
        }
    }
}

/// What the sessions are good for that a connection may use.
fn route(namespace: &Namespace, accepted: &AcceptedOutbound) -> Route {
    Route {
        workload: accepted.workload,
        namespace: namespace.cookie(),
        source: Some(accepted.app.ip()).filter(|ip| !ip.is_loopback()),
        destination: accepted.destination,
        inherited: accepted.inherited,
    }
}
