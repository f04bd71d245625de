//! A connection from the network until its client is known.

use std::time::Duration;

use sheath_common::flow::Asked;
use sheath_common::workload::InboundMode;
use tokio::net::TcpStream;

use super::flow::{FlowLog, Inbound};
use super::{FlowError, Pipeline};
use crate::flow::Protection;
use crate::policy::Policy;
use crate::sessions::WireLeg;
use crate::sys::sockopt;
use crate::tls::{self, Detected, TlsConfigs, TlsError};
use crate::wire::{Session, plain};

/// What an inbound connection has turned out to be.
pub enum Admission {
    /// A client that has proved who it is, and may call.
    Proved(WireLeg),
    /// A connection that is not for the agent: it passes unchanged.
    Permissive(Box<dyn Session>),
}

impl Pipeline {
    /// Finds out who a client is, or that it does not speak to the agent. Until then strangers share a limited number of
    /// slots; afterwards the connection is one of the workload's flows.
    pub(super) async fn admit(
        &self,
        mut flow: Inbound,
        tcp: TcpStream,
        log: &mut FlowLog,
    ) -> Result<(Inbound, Admission), FlowError> {
        let quota = flow.permit.quota().clone();
        let mut slot = quota.unproven(flow.client.ip());
        let admission = quota.prove(&mut slot, self.prove(&flow, tcp, log)).await??;
        drop(slot);
        flow.permit.count_flow()?;
        Ok((flow, admission))
    }

    async fn prove(
        &self,
        flow: &Inbound,
        tcp: TcpStream,
        log: &mut FlowLog,
    ) -> Result<Admission, FlowError> {
        let silent = self.timeouts.idle.dead_peer;
        sockopt::probe_peer(&tcp, silent, &Asked::default()).map_err(TlsError::Io)?;
        let credentials = self.published.identities.current(flow.workload);
        let policy = self.published.policy.load_full();
        if policy.inbound_mode(flow.workload)? == InboundMode::Permissive {
            let configs = credentials.as_ref().ok().map(|credentials| &credentials.tls);
            let detected = detect(&policy, flow, &tcp, configs).await?;
            if let Some(protection) = self.passes_through(detected) {
                log.record.protection = protection;
                log.has_rule(policy.inbound_mode_rule(flow.workload).as_ref());
                let buffers = flow.permit.quota().buffers.clone();
                return Ok(Admission::Permissive(plain::session(tcp, buffers)));
            }
        }
        let credentials = credentials?;
        log.has_identity(&credentials);

        // The configs were made with the callers that policy allows: the handshake fails for anybody else. One that says
        // nothing takes none of the handshakes that there may be.
        let (quota, limit) = (flow.permit.quota(), self.timeouts.handshake);
        first_byte(&tcp, limit).await?;
        quota.begin_handshake(limit).await?;
        let handshake = tls::accept(tcp, &credentials.tls, limit, quota);
        let established = log.open.handshake(handshake).await?;
        let leg = WireLeg::new(established, flow.terms(&credentials));
        log.has_session(flow.client, &leg.standing.proof);
        Ok(Admission::Proved(leg))
    }

    /// How a connection to a permissive port passes, if it is not for the agent.
    fn passes_through(&self, detected: Detected) -> Option<Protection> {
        match detected {
            Detected::Ours => None,
            Detected::ForeignTls => {
                self.counters.inbound_passthrough.increment();
                Some(Protection::Passthrough)
            }
            Detected::Plaintext => {
                self.counters.inbound_plaintext.increment();
                Some(Protection::Plaintext)
            }
        }
    }
}

/// Waits for a client to begin its handshake.
async fn first_byte(tcp: &TcpStream, limit: Duration) -> Result<(), TlsError> {
    match tokio::time::timeout(limit, tcp.readable()).await {
        Ok(ready) => ready.map_err(TlsError::Io),
        Err(_) => Err(TlsError::Timeout(limit)),
    }
}

/// Looks at what a client of a permissive port begins with.
async fn detect(
    policy: &Policy,
    flow: &Inbound,
    tcp: &TcpStream,
    configs: Option<&TlsConfigs>,
) -> Result<Detected, FlowError> {
    let protocols = configs.map(TlsConfigs::protocols).unwrap_or_default();
    let every_tls = policy.claims_every_tls(flow.workload, flow.destination.port());
    tls::detect(tcp, protocols, every_tls).await.map_err(FlowError::FirstBytes)
}
