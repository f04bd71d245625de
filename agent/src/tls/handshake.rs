//! The handshake of sessions whose records are ours: rustls makes and reads the messages, this module sends and receives them.
//!
//! rustls is given one record at a time and no more than it needs, so that what comes behind the handshake is left
//! for our own record layer.

use std::io;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{Acceptor, ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, ExtractedSecrets, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::TlsError;
use super::client_hello::offers;
use super::established::Facts;
use super::key_log::{self, Secrets};
use crate::flow::Role;
use crate::limits::Quota;
use crate::sys::tcp::Tcp;
use crate::wire::record::{
    Cipher, HEADER, Keys, LONGEST_RECORD, Opener, Sealer, TrafficSecret, UnsupportedKeys,
};
use crate::wire::records::{Leftover, RecordKeys, RecordStream};
use crate::wire::{self, Session};

/// Much more than the longest handshake message and the records it comes in.
const LONGEST_FLIGHT: usize = 128 * 1024;
/// Bytes read at once. No more than this of what comes behind a handshake is read along with it.
const READ: usize = 4 * 1024;
/// The longest end of a handshake that waits for the data it may travel with.
const LONGEST_UNSENT: usize = 8 * 1024;

/// `ContentType` of anything that was ever TLS (RFC 8446, B.1, and RFC 6520, 3).
const CONTENT_TYPES: std::ops::RangeInclusive<u8> = 20..=24;

/// What rustls' connections of clients and of servers have in common.
trait UnbufferedConnection: Sized {
    type Data;
    /// Whether this end sends what clients send.
    const IS_CLIENT: bool;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8])
    -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn state(&self) -> &CommonState;
    /// The keys alone: the rest of the connection would take more memory than everything else of an idle session, and
    /// cannot be taken over by another process.
    fn into_secrets(self) -> Result<ExtractedSecrets, rustls::Error>;
}

impl UnbufferedConnection for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    const IS_CLIENT: bool = true;

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn state(&self) -> &CommonState {
        self
    }

    fn into_secrets(self) -> Result<ExtractedSecrets, rustls::Error> {
        self.dangerous_into_kernel_connection().map(|(keys, _)| keys)
    }
}

impl UnbufferedConnection for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    const IS_CLIENT: bool = false;

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn state(&self) -> &CommonState {
        self
    }

    fn into_secrets(self) -> Result<ExtractedSecrets, rustls::Error> {
        self.dangerous_into_kernel_connection().map(|(keys, _)| keys)
    }
}

/// Completes a handshake as the client.
pub(super) async fn connect(
    wire: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    quota: &Quota,
) -> Result<(Box<dyn Session>, Facts), TlsError> {
    let cpu = quota.cpu().await;
    let connection = UnbufferedClientConnection::new(config, name).map_err(TlsError::handshake)?;
    drop(cpu);
    Handshake::new(connection, wire, Vec::new()).complete(quota).await
}

/// Completes a handshake as the server. `read` has been read of the client.
pub(super) async fn accept(
    wire: TcpStream,
    config: Arc<ServerConfig>,
    read: Vec<u8>,
    quota: &Quota,
) -> Result<(Box<dyn Session>, Facts), TlsError> {
    let connection = UnbufferedServerConnection::new(config).map_err(TlsError::handshake)?;
    Handshake::new(connection, wire, read).complete(quota).await
}

/// Reads a ClientHello, and no more. Returns what was read, and whether it offers a protocol of agents.
pub(super) async fn read_hello(wire: &mut TcpStream) -> Result<(Vec<u8>, bool), TlsError> {
    let mut acceptor = Acceptor::default();
    let mut read = Vec::new();
    loop {
        let seen = read.len();
        read_more(wire, &mut read).await?;
        let mut fresh = &read[seen..];
        while !fresh.is_empty() {
            acceptor.read_tls(&mut fresh).map_err(TlsError::Io)?;
            match acceptor.accept() {
                Ok(Some(accepted)) => {
                    let ours = offers(&accepted.client_hello(), &[]);
                    return Ok((read, ours));
                }
                Ok(None) => {}
                Err((error, mut alert)) => {
                    let mut out = Vec::new();
                    if alert.write_all(&mut out).is_ok() {
                        let _ = wire.try_write(&out);
                    }
                    return Err(TlsError::handshake(error));
                }
            }
        }
    }
}

struct Handshake<C> {
    connection: C,
    wire: TcpStream,
    /// Received, and not yet processed.
    read: Vec<u8>,
    /// How much of that rustls is given.
    shown: usize,
    /// For the peer, and not yet written.
    out: Vec<u8>,
    secrets: Secrets,
}

/// What to do next.
enum Step {
    Again,
    /// The peer must send more.
    Read,
    Done,
}

impl<C: UnbufferedConnection> Handshake<C> {
    fn new(connection: C, wire: TcpStream, read: Vec<u8>) -> Self {
        Self { connection, wire, read, shown: 0, out: Vec::new(), secrets: Secrets::default() }
    }

    async fn complete(mut self, quota: &Quota) -> Result<(Box<dyn Session>, Facts), TlsError> {
        loop {
            let cpu = quota.cpu().await;
            let advanced = self.advance();
            drop(cpu);
            match advanced {
                Ok(true) => break,
                Ok(false) => {
                    self.flush().await?;
                    read_more(&mut self.wire, &mut self.read).await?;
                }
                Err(error) => {
                    self.alert().await;
                    return Err(TlsError::handshake(error));
                }
            }
        }
        if self.out.len() > LONGEST_UNSENT {
            self.flush().await?;
        }
        let facts = Facts::of(self.connection.state());
        let protocol = self.connection.state().alpn_protocol().map(<[u8]>::to_vec);
        let keys = self.connection.into_secrets().map_err(TlsError::handshake)?;
        let unusable = |error| TlsError::Io(io::Error::other(error));
        let sealing = Keys::new(keys.tx.0, &keys.tx.1).map_err(unusable)?;
        let opening = Keys::new(keys.rx.0, &keys.rx.1).map_err(unusable)?;
        let (sending, receiving) =
            in_order::<C>(self.secrets, sealing.cipher()).map_err(unusable)?;
        let sealer = Sealer::new(sealing);
        let opener =
            if C::IS_CLIENT { Opener::of_server(opening) } else { Opener::of_client(opening) };
        let keys = RecordKeys { sealer, opener, sending, receiving };
        let leftover = Leftover { unread: self.read, unsent: self.out };
        let records = RecordStream::new(self.wire, keys, quota.buffers.clone(), &leftover)
            .map_err(TlsError::Io)?;
        let role = if C::IS_CLIENT { Role::Client } else { Role::Server };
        Ok((wire::modes::start(protocol.as_deref(), records, role), facts))
    }

    /// Advances as far as the bytes read so far allow. True when the handshake is done.
    fn advance(&mut self) -> Result<bool, rustls::Error> {
        loop {
            match self.step()? {
                Step::Again => {}
                Step::Done => return Ok(true),
                Step::Read => match record_length(&self.read[self.shown..]) {
                    Some(length) => self.shown += length,
                    None => return Ok(false),
                },
            }
        }
    }

    fn step(&mut self) -> Result<Step, rustls::Error> {
        let (connection, records) = (&mut self.connection, &mut self.read[..self.shown]);
        let (status, secrets) = key_log::collect(move || connection.process(records));
        let UnbufferedStatus { discard, state } = status;
        self.secrets.client = self.secrets.client.take().or(secrets.client);
        self.secrets.server = self.secrets.server.take().or(secrets.server);
        let step = match state {
            Ok(ConnectionState::EncodeTlsData(data)) => {
                encode(data, &mut self.out).map(|()| Step::Again)
            }
            Ok(ConnectionState::TransmitTlsData(transmit)) => {
                // It stays in `out` until the peer has to answer.
                transmit.done();
                Ok(Step::Again)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Step::Read),
            Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Done),
            Ok(_) => Err(rustls::Error::HandshakeNotComplete),
            Err(error) => Err(error),
        };
        self.read.drain(..discard);
        self.shown -= discard;
        step
    }

    /// Sends the alert that rustls makes of an error.
    async fn alert(&mut self) {
        // Only while it has something to send: otherwise it would process once more what it has refused.
        while self.connection.state().wants_write() && matches!(self.step(), Ok(Step::Again)) {}
        let _ = self.flush().await;
    }

    async fn flush(&mut self) -> Result<(), TlsError> {
        self.wire.write_all(&self.out).await.map_err(TlsError::Io)?;
        self.out.clear();
        Ok(())
    }
}

/// The secrets of both directions. The one that this end sends with comes first.
fn in_order<C: UnbufferedConnection>(
    secrets: Secrets,
    cipher: Cipher,
) -> Result<(TrafficSecret, TrafficSecret), UnsupportedKeys> {
    let of = |secret: Option<Zeroizing<Vec<u8>>>| {
        TrafficSecret::new(cipher, &secret.ok_or(UnsupportedKeys)?)
    };
    let (client, server) = (of(secrets.client)?, of(secrets.server)?);
    Ok(if C::IS_CLIENT { (client, server) } else { (server, client) })
}

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, out: &mut Vec<u8>) -> Result<(), rustls::Error> {
    let start = out.len();
    let failed = || rustls::Error::General("a handshake message could not be encoded".to_owned());
    // Without room it says how much it needs.
    let needed = match data.encode(&mut []) {
        Ok(_) => return Ok(()),
        Err(EncodeError::InsufficientSize(needed)) => needed.required_size,
        Err(EncodeError::AlreadyEncoded) => return Err(failed()),
    };
    out.resize(start + needed, 0);
    let length = data.encode(&mut out[start..]).map_err(|_| failed())?;
    out.truncate(start + length);
    Ok(())
}

/// The length of the record at the start of `bytes`, if it is there as a whole. A length that is wrong is for rustls
/// to refuse, and so is what is no TLS: a server that greets in another protocol, and then waits, says no more.
fn record_length(bytes: &[u8]) -> Option<usize> {
    let [kind, _, _, high, low] = *bytes.first_chunk::<HEADER>()?;
    let length = HEADER + usize::from(u16::from_be_bytes([high, low]));
    let is_wrong = length > LONGEST_RECORD || !CONTENT_TYPES.contains(&kind);
    (length <= bytes.len() || is_wrong).then(|| length.min(bytes.len()))
}

async fn read_more(wire: &mut TcpStream, read: &mut Vec<u8>) -> Result<(), TlsError> {
    if read.len() > LONGEST_FLIGHT {
        return Err(TlsError::Io(io::Error::other("more of a handshake than anybody needs")));
    }
    read.reserve(READ);
    match Tcp(&*wire).take(READ as u64).read_buf(read).await.map_err(TlsError::Io)? {
        0 => Err(TlsError::Io(io::ErrorKind::UnexpectedEof.into())),
        _ => Ok(()),
    }
}
