//! The server's side of a handshake.

use std::time::Duration;

use tokio::net::TcpStream;

use super::configs::ServerSetup;
use super::{Established, TlsConfigs, TlsError, handshake, handshake_context, library};
use crate::limits::Quota;
use crate::wire;

/// Opens a session as the server of a flow.
///
/// # Errors
/// If the handshake fails, or if the client is refused.
pub async fn accept(
    mut tcp: TcpStream,
    configs: &TlsConfigs,
    limit: Duration,
    quota: &Quota,
) -> Result<Established, TlsError> {
    let handshake = async {
        let (read, is_agent) = handshake::read_hello(&mut tcp).await?;
        let ServerSetup { config, needs_library } = configs.server(is_agent)?;
        let config = config.clone();
        if *needs_library {
            let (stream, facts) = library::accept(tcp, config, &read).await?;
            return Ok((wire::library::session(stream, quota.buffers.clone()), facts));
        }
        handshake::accept(tcp, config, read, quota).await
    };
    // On the heap, and only for as long as it takes: a session that is idle must be small.
    let handshake = Box::pin(handshake_context::with_client(handshake));
    let (done, outcome) =
        tokio::time::timeout(limit, handshake).await.map_err(|_| TlsError::Timeout(limit))?;
    let (session, facts) = done?;
    Established::new(session, facts, outcome, configs.trust())
}
