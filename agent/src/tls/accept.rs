//! The server's side of a flow: what a connection begins with, and the handshake.

use std::io;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_rustls::LazyConfigAcceptor;

use super::client_hello::{FirstBytes, classify, offers};
use super::{Contexts, Session, TlsError};
use crate::trust::Role;

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
    wire: TcpStream,
    contexts: &Contexts,
    limit: Duration,
) -> Result<Session, TlsError> {
    let handshake = async {
        let start = LazyConfigAcceptor::new(Acceptor::default(), wire)
            .await
            .map_err(TlsError::handshake)?;
        let acceptance = contexts.server(offers(&start.client_hello(), &[]))?;
        let stream =
            start.into_stream(acceptance.config.clone()).await.map_err(TlsError::handshake)?;
        // Without a client certificate there is no handshake.
        Session::new(stream.into(), &acceptance.judge, Role::Client, true)
    };
    tokio::time::timeout(limit, handshake).await.map_err(|_| TlsError::Timeout(limit))?
}
