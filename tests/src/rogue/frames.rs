//! Peers that speak the protocol of agents (docs/wire.md) to the letter, or not at all: whoever owns a certificate can.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

use super::{describe, set_patience, trust};
use crate::ca::Leaf;
use crate::netns::NetNs;

/// The name of the protocol in ALPN.
const PROTOCOL: &[u8] = b"sheath/1";

pub const OPEN: u8 = 1;
pub const ACCEPTED: u8 = 2;
pub const REFUSED: u8 = 3;
pub const DATA: u8 = 4;
pub const FIN: u8 = 5;
pub const RESET: u8 = 6;
pub const GO_AWAY: u8 = 7;

/// A frame of any type, with a length that fits.
pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&[kind, length[1], length[2], length[3]], payload].concat()
}

/// OPEN with any addresses.
pub fn open(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let endpoint = |endpoint: SocketAddr| {
        let address = match endpoint.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        [&address.octets()[..], &endpoint.port().to_be_bytes()].concat()
    };
    frame(OPEN, &[endpoint(source), endpoint(destination)].concat())
}

pub fn data(text: &str) -> Vec<u8> {
    frame(DATA, text.as_bytes())
}

/// A client of an agent.
pub struct Caller(StreamOwned<ClientConnection, TcpStream>);

impl Caller {
    /// Connects and shakes hands; the server's certificate is not looked at.
    pub fn dial(netns: &NetNs, to: SocketAddr, leaf: &Leaf) -> Self {
        let mut config = ClientConfig::builder_with_provider(trust::provider())
            .with_safe_default_protocol_versions()
            .expect("TLS versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(trust::Everybody))
            .with_client_auth_cert(leaf.chain.clone(), leaf.key.clone_key())
            .expect("the client's certificate");
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        let tcp = netns.run(|| TcpStream::connect(to)).expect("a connection to the agent");
        set_patience(&tcp);
        let name = ServerName::from(to.ip());
        let connection = ClientConnection::new(Arc::new(config), name).expect("a TLS client");
        let mut tls = StreamOwned::new(connection, tcp);
        tls.conn.complete_io(&mut tls.sock).expect("a handshake with the agent");
        assert_eq!(tls.conn.alpn_protocol(), Some(PROTOCOL));
        Self(tls)
    }

    /// The connection's own address on the wire.
    pub fn local(&self) -> SocketAddr {
        self.0.sock.local_addr().expect("a local address")
    }

    /// Sends whatever it is; that the other side does not want it shows in what comes back.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).and_then(|()| self.0.flush());
    }

    /// Reads until as much has come.
    pub fn receive(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).expect("bytes from the agent");
        bytes
    }

    /// Reads to the end: what came, and what ended it if not `close_notify`.
    pub fn end(&mut self) -> (Vec<u8>, Option<String>) {
        let mut bytes = Vec::new();
        let error = self.0.read_to_end(&mut bytes).err();
        (bytes, error.map(|error| describe(&error)))
    }
}

/// The server's end of a session with an agent.
pub struct Called(StreamOwned<ServerConnection, TcpStream>);

impl Called {
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).and_then(|()| self.0.flush());
    }

    /// Reads one frame: its type and payload. `None` at the end of the session.
    pub fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 4];
        self.0.read_exact(&mut header).ok()?;
        let length = u32::from_be_bytes([0, header[1], header[2], header[3]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some((header[0], payload))
    }

    /// Reads an OPEN.
    pub fn opened(&mut self) -> bool {
        self.receive().is_some_and(|(kind, _)| kind == OPEN)
    }

    /// Reads up to the client's FIN, and returns the data before it.
    pub fn to_fin(&mut self) -> Option<String> {
        let mut text = Vec::new();
        loop {
            match self.receive()? {
                (DATA, payload) => text.extend(payload),
                (FIN, _) => return Some(String::from_utf8_lossy(&text).into_owned()),
                _ => return None,
            }
        }
    }

    /// Serves one flow as an honest agent of an echo does. False at the end of the session.
    pub fn echo(&mut self) -> bool {
        if !self.opened() {
            return false;
        }
        self.send(&frame(ACCEPTED, &[]));
        self.answer()
    }

    /// What an echo has to say in a flow that has been accepted.
    pub fn answer(&mut self) -> bool {
        let Some(text) = self.to_fin() else {
            return false;
        };
        self.send(&[data(&text), frame(FIN, &[])].concat());
        true
    }

    /// Waits for the end of the session.
    pub fn wait_end(&mut self) {
        while self.receive().is_some() {}
    }

    /// Waits for the end of the session, and says what it was if not `close_notify`.
    pub fn end(&mut self) -> Option<String> {
        let error = io::copy(&mut self.0, &mut io::sink()).err();
        error.map(|error| describe(&error))
    }
}

/// A server at an address where an agent's workload is expected. Dropping it stops it.
pub struct FlowServer {
    sessions: Arc<AtomicUsize>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl FlowServer {
    /// Plays `serve` on each session, with its number: 0 is the first.
    pub fn start(
        netns: &NetNs,
        listen: SocketAddr,
        leaf: &Leaf,
        serve: impl Fn(usize, &mut Called) + Send + Sync + 'static,
    ) -> Self {
        let mut config = ServerConfig::builder_with_provider(trust::provider())
            .with_safe_default_protocol_versions()
            .expect("TLS versions")
            .with_client_cert_verifier(Arc::new(trust::Everybody))
            .with_single_cert(leaf.chain.clone(), leaf.key.clone_key())
            .expect("the server's certificate");
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.send_tls13_tickets = 0;
        let (config, serve) = (Arc::new(config), Arc::new(serve));
        let listener = netns.listen(listen);
        listener.set_nonblocking(true).expect("a listener that can be stopped");
        let sessions: Arc<AtomicUsize> = Arc::default();
        let threads: Arc<Mutex<Vec<JoinHandle<()>>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let accepting = thread::spawn({
            let (sessions, threads, stop) = (sessions.clone(), threads.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let Ok((tcp, _)) = listener.accept() else {
                        thread::sleep(Duration::from_millis(5));
                        continue;
                    };
                    let number = sessions.fetch_add(1, Ordering::Relaxed);
                    let (config, serve) = (config.clone(), serve.clone());
                    let session = thread::spawn(move || {
                        if let Ok(tls) = shake_hands(tcp, config) {
                            serve(number, &mut Called(tls));
                        }
                    });
                    threads.lock().unwrap().push(session);
                }
            }
        });
        Self { sessions, threads, stop, accepting: Some(accepting) }
    }

    /// Sessions so far.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }
}

impl Drop for FlowServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        // Sessions end with the agent that has begun them, or with their own patience: nobody waits for them.
        self.threads.lock().unwrap().clear();
    }
}

fn shake_hands(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
) -> io::Result<StreamOwned<ServerConnection, TcpStream>> {
    tcp.set_nonblocking(false)?;
    set_patience(&tcp);
    let connection = ServerConnection::new(config).expect("a TLS server");
    let mut tls = StreamOwned::new(connection, tcp);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    Ok(tls)
}
