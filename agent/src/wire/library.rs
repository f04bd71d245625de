//! One flow in the records of the TLS library: sessions in which TLS 1.2 may have been agreed on.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::Session;
use super::buffers::Account;
use super::mode::Mode;
use super::saved::{NotSaved, SavedWire};
use super::stream::{Carrier, SavedStream, Stream};
use crate::sys::tcp::Tcp;

/// With a peer that is no agent. The state of such a session cannot be taken out of the library.
pub static MODE: Mode = Mode { name: "tls-library", alpn: None, start: None, restore: None };

/// What the library reads and writes.
pub type LibraryStream = TlsStream<Tcp<Arc<TcpStream>>>;

/// A session whose handshake the library has completed.
#[must_use]
pub fn session(stream: LibraryStream, account: Arc<Account>) -> Box<dyn Session> {
    Box::new(Stream::new(stream, account))
}

impl Carrier for LibraryStream {
    const MODE: &'static Mode = &MODE;

    fn tcp(&self) -> &Arc<TcpStream> {
        &self.get_ref().0.0
    }

    fn save(&self, _: SavedStream) -> Result<SavedWire, NotSaved> {
        Err(NotSaved::Library)
    }
}
