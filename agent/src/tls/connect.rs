//! The client's side of a handshake.

use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;

use super::{Established, TlsConfigs, TlsError, handshake, handshake_context, library};
use crate::limits::Quota;
use crate::peer::Target;
use crate::wire;

/// Opens a session as the client of a flow.
///
/// # Errors
/// If the handshake fails, or if the server is refused.
pub async fn connect(
    tcp: TcpStream,
    configs: &TlsConfigs,
    target: &Target,
    limit: Duration,
    quota: &Quota,
) -> Result<Established, TlsError> {
    let address = tcp.peer_addr().map_err(TlsError::Io)?;
    let setup = configs.client(target)?;
    let name = setup.server_name.unwrap_or_else(|| ServerName::from(address.ip()));
    let handshake = async {
        if setup.needs_library {
            let (stream, facts) = library::connect(tcp, setup.config, name).await?;
            return Ok((wire::library::session(stream, quota.buffers.clone()), facts));
        }
        handshake::connect(tcp, setup.config, name, quota).await
    };
    // On the heap, and only for as long as it takes: a session that is idle must be small.
    let handshake = Box::pin(handshake_context::with_server(setup.judge, handshake));
    let (done, outcome) =
        tokio::time::timeout(limit, handshake).await.map_err(|_| TlsError::Timeout(limit))?;
    let (session, facts) = done?;
    if !outcome.is_mutual && target.is_agent() {
        return Err(TlsError::NotMutual);
    }
    Established::new(session, facts, outcome, configs.trust())
}
