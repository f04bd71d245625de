//! A connection from the network until its client is known.

use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use sheath_common::flow::Asked;
use sheath_common::workload::{InboundMode, WorkloadId};
use tokio::net::TcpStream;

use super::{Call, FlowError, Pipeline, Proved, record_session, terms, unless_cut};
use crate::capture::{AcceptedInbound, Namespace};
use crate::flow::{FlowRecord, Protection};
use crate::policy::Policy;
use crate::sessions::{Basis, Revision, Side};
use crate::shares::{Admitted, Share};
use crate::sys::sockopt;
use crate::tls::{self, Contexts, Greeting, TlsError};

/// What a client's first bytes have come to.
enum Came {
    Proved(Proved),
    /// Nothing for us: it passes as it came.
    ForNobodyHere(TcpStream, Protection),
}

impl Pipeline {
    /// Shakes hands with a client. `None` if that was nothing for us, and has passed through.
    pub(super) async fn admit(
        &self,
        namespace: &Namespace,
        accepted: AcceptedInbound,
        revision: Revision,
        admitted: &mut Admitted,
        record: &mut FlowRecord,
    ) -> Result<Option<Proved>, FlowError> {
        let share = admitted.share().clone();
        let AcceptedInbound { workload, client, destination, .. } = accepted;
        let mut place = share.unproven(client.ip());
        let proving = self.prove(namespace, accepted, revision, &share, record);
        let came = share.prove(&mut place, proving).await??;
        drop(place);
        admitted.count()?;
        match came {
            Came::Proved(session) => Ok(Some(session)),
            Came::ForNobodyHere(wire, protection) => {
                record.protection = protection;
                let mut live = self.live(namespace, workload, Basis::Permissive, revision)?;
                let call = Call { workload, client, destination };
                let passing = self.pass_through(namespace, wire, &call, &share, record);
                unless_cut(&mut live, pin!(passing)).await?.map(|()| None)
            }
        }
    }

    /// Finds out who a client is, or that it does not speak to us.
    async fn prove(
        &self,
        namespace: &Namespace,
        accepted: AcceptedInbound,
        revision: Revision,
        share: &Share,
        record: &mut FlowRecord,
    ) -> Result<Came, FlowError> {
        let AcceptedInbound { stream: wire, destination, workload, .. } = accepted;
        let silent = self.timeouts.patience.dead_peer;
        sockopt::probe_peer(&wire, silent, &Asked::default()).map_err(TlsError::Io)?;
        let limit = self.timeouts.handshake;
        let credentials = self.published.identities.current(workload);
        let policy = self.published.policy.load_full();
        if policy.inbound_mode(workload)? == InboundMode::Permissive {
            let contexts = credentials.as_ref().ok().map(|credentials| &credentials.contexts);
            let greeting = greet(&policy, workload, destination.port(), &wire, contexts).await?;
            if let Some(protection) = self.passes_through(greeting) {
                return Ok(Came::ForNobodyHere(wire, protection));
            }
        }
        let credentials = credentials?;
        record.local_id = Some(credentials.svid.name());

        // The contexts were made with the callers that policy allows: the handshake fails for anybody else. One that says
        // nothing takes none of the handshakes that there may be.
        first_byte(&wire, limit).await?;
        share.begin_handshake(limit).await?;
        let session = tls::accept(wire, &credentials.contexts, limit, share).await?;
        record_session(record, &session.proof);
        let terms = terms(namespace, workload, &credentials, revision);
        Ok(Came::Proved(Proved::new(session, Side::Server, terms)))
    }

    /// How a connection to a permissive port passes, if it is not for us.
    fn passes_through(&self, greeting: Greeting) -> Option<Protection> {
        match greeting {
            Greeting::Ours => None,
            Greeting::ForeignTls => {
                self.counters.inbound_passthrough.fetch_add(1, Relaxed);
                Some(Protection::Passthrough)
            }
            Greeting::Plaintext => {
                self.counters.inbound_plaintext.fetch_add(1, Relaxed);
                Some(Protection::Plaintext)
            }
        }
    }
}

/// Waits for a client to begin its handshake.
async fn first_byte(wire: &TcpStream, limit: Duration) -> Result<(), TlsError> {
    match tokio::time::timeout(limit, wire.readable()).await {
        Ok(ready) => ready.map_err(TlsError::Io),
        Err(_) => Err(TlsError::Timeout(limit)),
    }
}

/// Looks at what a client of a permissive port begins with.
async fn greet(
    policy: &Policy,
    workload: WorkloadId,
    port: u16,
    wire: &TcpStream,
    contexts: Option<&Contexts>,
) -> Result<Greeting, FlowError> {
    let protocols = contexts.map(Contexts::protocols).unwrap_or_default();
    let every_tls = policy.claims_every_tls(workload, port);
    tls::greet(wire, protocols, every_tls).await.map_err(FlowError::Greeting)
}
