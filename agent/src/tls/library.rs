//! Sessions in which TLS 1.2 may be agreed on: their records are left to rustls.

use std::io;
use std::sync::Arc;

use rustls::{ClientConfig, ServerConfig, ServerConnection};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::TlsError;
use super::established::Facts;
use crate::sys::tcp::Tcp;
use crate::wire::library::LibraryStream;

pub(super) async fn connect(
    wire: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<(LibraryStream, Facts), TlsError> {
    let wire = Tcp(Arc::new(wire));
    let stream =
        TlsConnector::from(config).connect(name, wire).await.map_err(TlsError::of_stream)?;
    Ok(session(stream.into()))
}

/// Accepts a client of which `read` has been read.
pub(super) async fn accept(
    wire: TcpStream,
    config: Arc<ServerConfig>,
    read: &[u8],
) -> Result<(LibraryStream, Facts), TlsError> {
    let mut refused = None;
    let accepted = TlsAcceptor::from(config)
        .accept_with(Tcp(Arc::new(wire)), |connection| refused = show(connection, read).err())
        .await;
    match refused {
        Some(error) => Err(TlsError::of_stream(error)),
        None => Ok(session(accepted.map_err(TlsError::of_stream)?.into())),
    }
}

fn show(connection: &mut ServerConnection, mut read: &[u8]) -> io::Result<()> {
    // Zero bytes would be read as the end of the stream.
    while !read.is_empty() {
        connection.read_tls(&mut read)?;
        connection.process_new_packets().map_err(io::Error::other)?;
    }
    Ok(())
}

fn session(stream: LibraryStream) -> (LibraryStream, Facts) {
    let facts = Facts::of(stream.get_ref().1);
    (stream, facts)
}
