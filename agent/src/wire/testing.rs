//! Sessions without a handshake, and with keys that come to their limit soon.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::net::{TcpSocket, TcpStream};

use super::WireError;
use super::buffers::Account;
use super::record::testing::record;
use super::record::{Cipher, ContentType, Keys, Opened, Opener, RESERVE, Sealer, TrafficSecret};
use super::records::{Leftover, RecordKeys, RecordStream};
use crate::sys::sockopt;

/// The two ends of a connection over loopback, set up as legs are.
pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    connected(None).await
}

/// The same, of which the kernel holds but little.
pub(crate) async fn narrow_tcp_pair() -> (TcpStream, TcpStream) {
    connected(Some(16 * 1024)).await
}

async fn connected(buffers: Option<u32>) -> (TcpStream, TcpStream) {
    let socket = || {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(size) = buffers {
            socket.set_send_buffer_size(size).unwrap();
            socket.set_recv_buffer_size(size).unwrap();
        }
        socket
    };
    let listening = socket();
    listening.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = listening.listen(1).unwrap();
    let dialled = socket().connect(listener.local_addr().unwrap()).await.unwrap();
    let accepted = listener.accept().await.unwrap().0;
    sockopt::prepare_leg(&dialled).unwrap();
    sockopt::prepare_leg(&accepted).unwrap();
    (dialled, accepted)
}

/// A secret that both ends make alike.
fn secret(direction: u8) -> TrafficSecret {
    TrafficSecret::new(Cipher::Aes128Gcm, &[direction; 32]).unwrap()
}

/// Our end of a session with [`Raw`], or one end of two.
fn session(
    tcp: TcpStream,
    account: &Arc<Account>,
    sending: u8,
    receiving: u8,
    leftover: &Leftover,
) -> RecordStream {
    let (sending, receiving) = (secret(sending), secret(receiving));
    let sealer = Sealer::new(sending.keys().unwrap());
    let opener = Opener::of_server(receiving.keys().unwrap());
    let keys = RecordKeys { sealer, opener, sending, receiving };
    RecordStream::new(tcp, keys, account.clone(), leftover).unwrap()
}

/// Both ends of a session over a TCP connection.
pub(crate) fn sessions(
    (one, other): (TcpStream, TcpStream),
    accounts: [&Arc<Account>; 2],
) -> (RecordStream, RecordStream) {
    let leftover = Leftover::default();
    (session(one, accounts[0], 1, 2, &leftover), session(other, accounts[1], 2, 1, &leftover))
}

/// A session whose peer sends what it is told to.
pub(crate) fn with_raw(
    (one, other): (TcpStream, TcpStream),
    account: &Arc<Account>,
) -> (RecordStream, Raw) {
    let (sending, receiving) = (secret(2), secret(1));
    let sealing = sending.keys().unwrap();
    let opener = Opener::of_server(receiving.keys().unwrap());
    let raw = Raw { tcp: other, sealing, opener, sending, receiving, received: Vec::new() };
    (session(one, account, 1, 2, &Leftover::default()), raw)
}

/// A peer that sends any record whatever, and looks at each it gets.
pub(crate) struct Raw {
    pub tcp: TcpStream,
    pub sealing: Keys,
    opener: Opener,
    sending: TrafficSecret,
    receiving: TrafficSecret,
    received: Vec<u8>,
}

impl Raw {
    pub fn seal(&mut self, kind: ContentType, content: &[u8]) -> Vec<u8> {
        record(&mut self.sealing, content, kind as u8, 0)
    }

    /// Changes over to its next keys, as it should after a KeyUpdate.
    pub fn rekey(&mut self) {
        self.sealing = self.sending.update().unwrap();
    }

    /// Follows the other end to its next keys.
    pub fn follow(&mut self) {
        self.opener.rekey(self.receiving.update().unwrap());
    }

    /// Writes all of it.
    pub async fn write(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.tcp.writable().await.unwrap();
            match self.tcp.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
            }
        }
    }

    pub async fn send(&mut self, kind: ContentType, content: &[u8]) {
        let record = self.seal(kind, content);
        self.write(&record).await;
    }

    /// The next record, with its content if that is data. `None` at the end of the TCP connection.
    pub async fn receive(&mut self) -> Result<Option<(Opened, Vec<u8>)>, WireError> {
        loop {
            if let Some((length, opened)) = self.opener.open(&mut self.received)? {
                let record: Vec<u8> = self.received.drain(..length).collect();
                let content = match &opened {
                    Opened::Data(place) => record[place.clone()].to_vec(),
                    _ => Vec::new(),
                };
                return Ok(Some((opened, content)));
            }
            self.tcp.readable().await?;
            let mut room = [0; 4096];
            match self.tcp.try_read(&mut room) {
                Ok(0) => return Ok(None),
                Ok(read) => self.received.extend_from_slice(&room[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Has a session change its keys before its next data, and from then on after this many records.
pub(crate) fn limit_keys(stream: RecordStream, records: u64) -> RecordStream {
    stream.with_limited_keys(records + RESERVE)
}
