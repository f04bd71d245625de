//! The server's side of a flow: what a connection begins with, and the handshake.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::client_hello::{FirstBytes, classify};
use super::contexts::Acceptance;
use super::{Contexts, Established, TlsError, encounter, handshake, library};
use crate::limits::Quota;
use crate::trust::Role;
use crate::wire;

/// How long a client may stay silent before it is taken for one that waits for the server to speak first.
const SILENCE: Duration = Duration::from_secs(1);
/// Pause between two looks at a ClientHello that comes in pieces.
const RECHECK: Duration = Duration::from_millis(5);
/// More than any ClientHello needs; a longer one is not ours.
const LONGEST_HELLO: usize = 16 * 1024;

/// What a connection to a permissive port begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// TLS for us.
    Ours,
    /// TLS that the application is meant to see.
    ForeignTls,
    /// Anything else, silence included.
    Plaintext,
}

/// Looks at the first bytes of a connection without taking them. TLS is ours if it offers a protocol of agents
/// or one of `protocols`, or any at all if `every_tls`.
pub async fn greet(
    wire: &TcpStream,
    protocols: &[Vec<u8>],
    every_tls: bool,
) -> io::Result<Greeting> {
    let foreign = if every_tls { Greeting::Ours } else { Greeting::ForeignTls };
    let deadline = Instant::now() + SILENCE;
    let mut buffer = vec![0; LONGEST_HELLO];
    loop {
        let seen = match tokio::time::timeout_at(deadline, wire.peek(&mut buffer)).await {
            Ok(seen) => seen?,
            Err(_) => 0,
        };
        match classify(&buffer[..seen], protocols) {
            FirstBytes::Ours => return Ok(Greeting::Ours),
            FirstBytes::ForeignTls => return Ok(foreign),
            FirstBytes::Plaintext => return Ok(Greeting::Plaintext),
            FirstBytes::Incomplete if seen == 0 => return Ok(Greeting::Plaintext),
            FirstBytes::Incomplete if seen == buffer.len() || Instant::now() >= deadline => {
                return Ok(foreign);
            }
            FirstBytes::Incomplete => sleep(RECHECK).await,
        }
    }
}

/// Opens a session as the server of a flow.
pub async fn accept(
    mut tcp: TcpStream,
    contexts: &Contexts,
    limit: Duration,
    quota: &Quota,
) -> Result<Established, TlsError> {
    let handshake = async {
        let (read, is_agent) = handshake::read_hello(&mut tcp).await?;
        let Acceptance { config, needs_library } = contexts.server(is_agent)?;
        let config = config.clone();
        if *needs_library {
            let (stream, facts) = library::accept(tcp, config, &read).await?;
            return Ok((wire::library::session(stream, quota.buffers.clone()), facts));
        }
        handshake::accept(tcp, config, read, quota).await
    };
    // On the heap, and only for as long as it takes: a session that is idle must be small.
    let shaking = Box::pin(encounter::with_client(handshake));
    let (shaken, learnt) =
        tokio::time::timeout(limit, shaking).await.map_err(|_| TlsError::Timeout(limit))?;
    let (session, facts) = shaken?;
    // Without a client certificate there is no handshake.
    Established::new(session, facts, learnt.peer, Role::Client, true)
}
