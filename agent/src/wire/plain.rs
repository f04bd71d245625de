//! One flow that passes unchanged: plaintext, or the applications' own TLS, on a permissive port.

use std::net::TcpStream as StdTcpStream;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::Session;
use super::buffers::Account;
use super::mode::Mode;
use super::saved::{Encoded, NotRestored, NotSaved, SavedWire};
use super::stream::{Carrier, SavedStream, Stream};
use crate::sys::tcp::Tcp;

/// No handshake leads here.
pub static MODE: Mode = Mode { name: "plain", alpn: None, start: None, restore: Some(restore) };

/// Version of the saved state.
const VERSION: u16 = 1;

/// A flow that passes unchanged.
#[must_use]
pub fn session(tcp: TcpStream, account: Arc<Account>) -> Box<dyn Session> {
    Box::new(Stream::new(Tcp(Arc::new(tcp)), account))
}

fn restore(
    state: &Encoded,
    tcp: StdTcpStream,
    account: Arc<Account>,
) -> Result<Box<dyn Session>, NotRestored> {
    let saved: SavedStream = state.decode(VERSION)?;
    let tcp = Tcp(Arc::new(TcpStream::from_std(tcp)?));
    Ok(Box::new(Stream::restore(&saved, tcp, account)?))
}

impl Carrier for Tcp<Arc<TcpStream>> {
    const MODE: &'static Mode = &MODE;

    fn tcp(&self) -> &Arc<TcpStream> {
        &self.0
    }

    fn save(&self, stream: SavedStream) -> Result<SavedWire, NotSaved> {
        let state = Encoded::new(VERSION, &stream)?;
        Ok(SavedWire { mode: MODE.name.to_owned(), state })
    }
}
