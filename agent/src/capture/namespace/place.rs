//! A namespace as flows see it that another process has begun in it.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use sheath_common::net::Endpoint;
use sheath_common::workload::WorkloadId;
use tokio_util::sync::CancellationToken;

use super::local_leg::ClientName;
use super::state::Namespace;

/// A namespace that is served.
pub trait Place: fmt::Debug + Send + Sync {
    /// Cancelled when the workload has left the namespace. `None` if the namespace is no longer served.
    fn stay(&self, workload: WorkloadId) -> Option<CancellationToken>;

    /// Has a local application see `client` as its peer, for as long as the result lives. `leg` is the agent's end of the
    /// connection to it.
    ///
    /// # Errors
    /// If the kernel cannot be told.
    fn name_client(&self, leg: SocketAddr, client: SocketAddr) -> io::Result<ClientName>;
}

impl Place for Namespace {
    fn stay(&self, workload: WorkloadId) -> Option<CancellationToken> {
        (!self.closed.is_cancelled()).then(|| self.presence(workload))
    }

    fn name_client(&self, leg: SocketAddr, client: SocketAddr) -> io::Result<ClientName> {
        let key = self.leg_key(leg);
        // It is there already, unless somebody has removed it.
        self.maps.clients.insert(&key, &Endpoint::from(client))?;
        Ok(ClientName::new(self.maps.clone(), key))
    }
}
