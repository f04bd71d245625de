//! Flow after flow in one session between agents. The client reopens the session, the server serves it. For each flow the
//! session is judged again.

use std::future::poll_fn;
use std::net::SocketAddr;

use tokio::time::Instant;

use super::flow::{FlowLog, Inbound, Outbound, on_heap};
use super::{FlowError, Pipeline};
use crate::flow::Direction;
use crate::peer::Target;
use crate::relay::RelayError;
use crate::sessions::{NotReopened, Route, Terms, WireLeg};
use crate::sys::clock;
use crate::wire::{Abort, Endpoints, GoAwayCode, NotAccepted, RefusalCode, Session, WireError};

/// How a server's wait for the next flow ends.
enum Next {
    Flow(Endpoints),
    /// The client has closed the session.
    Closed,
    Failed(WireError),
    /// The session must not carry another flow.
    Over(GoAwayCode),
}

impl Pipeline {
    /// Client: [`Self::outbound`], and once more if its session had ended before anything was read from the application: another
    /// session may last longer.
    pub(super) async fn outbound_again(
        &self,
        flow: &mut Outbound,
        log: &mut FlowLog,
    ) -> Result<(), FlowError> {
        loop {
            match self.outbound(flow, log).await {
                Err(FlowError::Relay(RelayError::Wire(WireError::NotTaken(_))))
                    if !flow.needs_new_session =>
                {
                    flow.needs_new_session = true;
                    flow.revision = self.published.sessions.revision();
                }
                done => return done,
            }
        }
    }

    /// Client: begins a flow on a session that is open already, if there is one.
    pub(super) async fn reopen(
        &self,
        flow: &Outbound,
        target: &Target,
        log: &mut FlowLog,
    ) -> Result<Option<WireLeg>, FlowError> {
        if flow.needs_new_session {
            return Ok(None);
        }
        let (destination, route) = (flow.far_end(), route(flow, target));
        while let Some(mut leg) = self.idle.take(&route) {
            let Ok(local) = leg.session.tcp().local_addr() else {
                continue;
            };
            let source = SocketAddr::new(local.ip(), flow.source.port());
            let answer = leg.reopen(Endpoints { source, destination }).await;
            // An answer, be it a refusal, is what has become of the flow on this session.
            if matches!(answer, Ok(()) | Err(NotReopened::NotAccepted(NotAccepted::Refused(_)))) {
                self.counters.sessions_reused.increment();
                log.record.is_reused = true;
                log.has_session(source, &leg.standing.proof);
            }
            match answer {
                Ok(()) => return Ok(Some(leg)),
                Err(NotReopened::NotAccepted(NotAccepted::Refused(code))) => {
                    return Err(FlowError::NotAccepted(code));
                }
                // Nothing was read from the application: another session can carry the flow.
                Err(NotReopened::NotAccepted(NotAccepted::Over(reason))) => {
                    self.idle.ended(&route, reason);
                    self.counters.sessions_found_dead.increment();
                }
                Err(NotReopened::NotAccepted(NotAccepted::Dead)) => {
                    self.counters.sessions_found_dead.increment();
                }
                // Wait only once: other idle sessions may be as dead.
                Err(NotReopened::Silent) => {
                    self.counters.sessions_found_dead.increment();
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    /// Client: keeps a session for the next flow.
    pub(super) fn keep(&self, route: Route, leg: WireLeg) {
        if self.ending.is_cancelled() || self.moves.are_under_way() {
            leg.close(None);
        } else {
            self.idle.keep(route, leg);
        }
    }

    /// Server: serves flow after flow. What is told about the first began with the connection.
    pub(super) async fn serve_each(&self, mut flow: Inbound, leg: WireLeg, first: FlowLog) {
        let local_id = first.record.local_id.clone();
        let WireLeg { mut session, standing } = leg;
        let mut first = Some(first);
        loop {
            let next = self.next_flow(&mut *session, &standing.terms, first.is_some());
            let open = match on_heap(next).await {
                Next::Flow(open) => open,
                end => {
                    let error = end_of(session, end);
                    match first {
                        Some(log) => log.conclude(Err(error)),
                        None => tracing::debug!(client = %flow.client, %error, "session over"),
                    }
                    return;
                }
            };
            // The port is what the client says, for the application to see; the address is what was observed.
            flow.client.set_port(open.source.port());
            let (dialled, arrived) = (open.destination, flow.destination);
            let mut log = first.take().unwrap_or_else(|| {
                let ends = (flow.client, arrived);
                let mut log = self.begin(Direction::Inbound, flow.workload, ends);
                log.record.local_id.clone_from(&local_id);
                log.record.is_reused = true;
                log
            });
            log.has_session(flow.client, &standing.proof);
            let policy = self.published.policy.load_full();
            if let Err(error) = policy.check_port(flow.workload, dialled.port(), arrived.port()) {
                session.refuse(RefusalCode::NOT_ALLOWED);
                return log.conclude(Err(error.into()));
            }
            drop(policy);
            let served = self.serve(&flow, session, standing.inbound(), &mut log).await;
            session = match served {
                Ok(Some(session)) => session,
                result => return log.conclude(result.map(|_| ())),
            };
            log.conclude(Ok(()));
            // What translates the address may lead to another server the next time.
            if dialled.ip().to_canonical() != arrived.ip().to_canonical()
                || dialled.port() != arrived.port()
            {
                session.close(Some(GoAwayCode::VIRTUAL));
                return;
            }
        }
    }

    /// Waits for the client to open a flow, for as long as the session may be used. The first may be on its way already, with bytes
    /// that could not be sent again: it is judged when it is there.
    async fn next_flow(&self, session: &mut dyn Session, terms: &Terms, is_first: bool) -> Next {
        session.rest_keys();
        // Longer than a client: it should be the one to end it, as it knows best.
        let idle = Instant::now() + 2 * self.idle.max_idle();
        tokio::select! {
            biased;
            () = self.published.sessions.changed_since(terms.revision), if !is_first => {
                let is_moving = self.moves.are_under_way();
                Next::Over(if is_moving { GoAwayCode::SHUTDOWN } else { GoAwayCode::CHANGED })
            }
            () = self.ending.cancelled(), if !is_first => Next::Over(GoAwayCode::SHUTDOWN),
            () = terms.place.cancelled() => Next::Over(GoAwayCode::SHUTDOWN),
            next = poll_fn(|cx| session.poll_next_flow(cx)) => match next {
                Ok(Some(open)) => Next::Flow(open),
                Ok(None) => Next::Closed,
                Err(error) => Next::Failed(error),
            },
            () = tokio::time::sleep_until(idle) => Next::Over(GoAwayCode::IDLE),
            () = clock::sleep_until(terms.good_until) => Next::Over(GoAwayCode::AGE),
        }
    }
}

/// Ends a session that has no next flow. Returns the error for a flow that was waited for.
fn end_of(mut session: Box<dyn Session>, end: Next) -> FlowError {
    match end {
        Next::Failed(error) => {
            session.abort(Abort::Wire(&error));
            return RelayError::Wire(error).into();
        }
        Next::Over(reason) => session.close(Some(reason)),
        Next::Closed | Next::Flow(_) => session.close(None),
    };
    FlowError::NoFlow
}

/// The route of sessions that a flow may use.
pub(super) fn route(flow: &Outbound, target: &Target) -> Route {
    Route {
        workload: flow.workload,
        namespace: flow.namespace.cookie(),
        source: Some(flow.source.ip()).filter(|ip| !ip.is_loopback()),
        destination: flow.far_end(),
        pod: target.pod(),
        inherited: flow.inherited,
    }
}
