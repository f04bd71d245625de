//! An outbound flow's way to the other node: to a peer that proves who it is, or to an endpoint that nobody protects.

use super::flow::{FlowLog, Outbound, on_heap};
use super::{FlowError, Pipeline};
use crate::credentials::Credentials;
use crate::flow::Protection;
use crate::peer::{Target, UidHash};
use crate::relay::{Relay, RelayError};
use crate::sessions::{Basis, WireLeg};
use crate::tls;
use crate::wire::{Endpoints, plain};

impl Pipeline {
    /// Dials the wire leg, has both ends prove who they are, and begins the flow there.
    pub(super) async fn connect(
        &self,
        flow: &Outbound,
        target: &Target,
        credentials: &Credentials,
        log: &mut FlowLog,
    ) -> Result<WireLeg, FlowError> {
        let (quota, limit) = (flow.permit.quota(), self.timeouts.handshake);
        quota.begin_handshake(limit).await?;
        let tcp = self.dial_wire(flow, target.connect_timeout()).await?;
        let source = tcp.local_addr().map_err(FlowError::DialWire)?;
        log.record.source = Some(source);
        let handshake = tls::connect(tcp, &credentials.tls, target, limit, quota);
        let established = log.open.handshake(handshake).await?;
        let mut leg = WireLeg::new(established, flow.terms(credentials));
        log.has_session(source, &leg.standing.proof);
        // Another session may have refused it before.
        log.record.is_reused = false;
        let endpoints = Endpoints { source, destination: flow.far_end() };
        leg.session.begin(endpoints).map_err(RelayError::from)?;
        if flow.reached.is_some() {
            // As long as nothing was read from the application, another endpoint may carry the flow.
            let limit = self.timeouts.connect;
            on_heap(leg.taken(limit)).await.map_err(FlowError::not_taken)?;
        }
        Ok(leg)
    }

    /// Carries the flow to an endpoint that nobody protects, as it is.
    pub(super) async fn pass(
        &self,
        flow: &Outbound,
        pod: Option<UidHash>,
        log: &mut FlowLog,
    ) -> Result<(), FlowError> {
        let tcp = on_heap(self.dial_wire(flow, None)).await?;
        log.record.source = Some(tcp.local_addr().map_err(FlowError::DialWire)?);
        log.record.protection = Protection::Plaintext;
        self.counters.outbound_plaintext.increment();
        let session = plain::session(tcp, flow.permit.quota().buffers.clone());
        let basis = Basis::Plain { destination: flow.far_end(), pod };
        let mut live = self.published.sessions.open(flow.facts(basis), flow.revision)?;
        let mut relay = Relay::new(self.timeouts.idle);
        self.relay((&flow.app, session), &mut relay, &mut live, log).await.map(|_| ())
    }
}
