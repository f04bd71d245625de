//! Detects what a connection to a permissive port begins with.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::client_hello::{FirstBytes, classify};

/// How long a client may stay silent before it is taken for one that waits for the server to speak first.
const SILENCE: Duration = Duration::from_secs(1);
/// Pause between two checks of a ClientHello that comes in pieces.
const RECHECK: Duration = Duration::from_millis(5);
/// More than any ClientHello needs; a longer one is not ours.
const LONGEST_HELLO: usize = 16 * 1024;

/// What a connection to a permissive port begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected {
    /// TLS for us.
    Ours,
    /// TLS that the application is meant to see.
    ForeignTls,
    /// Anything else, silence included.
    Plaintext,
}

/// Looks at the first bytes of a connection without taking them. TLS is ours if it offers a protocol of agents
/// or one of `protocols`, or any at all if `every_tls`.
///
/// # Errors
/// If the connection fails.
pub async fn detect(
    tcp: &TcpStream,
    protocols: &[Vec<u8>],
    every_tls: bool,
) -> io::Result<Detected> {
    let foreign = if every_tls { Detected::Ours } else { Detected::ForeignTls };
    let deadline = Instant::now() + SILENCE;
    let mut buffer = vec![0; LONGEST_HELLO];
    loop {
        let seen = match tokio::time::timeout_at(deadline, tcp.peek(&mut buffer)).await {
            Ok(seen) => seen?,
            Err(_) => 0,
        };
        match classify(&buffer[..seen], protocols) {
            FirstBytes::Ours => return Ok(Detected::Ours),
            FirstBytes::ForeignTls => return Ok(foreign),
            FirstBytes::Plaintext => return Ok(Detected::Plaintext),
            FirstBytes::Incomplete if seen == 0 => return Ok(Detected::Plaintext),
            FirstBytes::Incomplete if seen == buffer.len() || Instant::now() >= deadline => {
                return Ok(foreign);
            }
            FirstBytes::Incomplete => sleep(RECHECK).await,
        }
    }
}
