//! A server outside every workload, at an address where a workload is expected.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{End, describe, set_patience, trust};
use crate::ca::Leaf;
use crate::netns::NetNs;
use crate::wait::{self, GENEROUS};

/// What the server shows to whoever connects.
#[derive(Clone)]
pub enum Face {
    /// TLS with this certificate; a client certificate is asked for.
    Tls(Leaf),
    /// No TLS at all.
    Plain,
}

/// What the server saw of one connection, once it has ended.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// Application data received, or bytes if without TLS.
    pub received: Vec<u8>,
    /// The certificate that the client showed.
    pub client_certificate: Option<CertificateDer<'static>>,
    pub error: Option<String>,
}

/// A running server; dropping it stops it.
pub struct RogueServer {
    sessions: Arc<Mutex<Vec<Session>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl RogueServer {
    /// Answers every connection with `say`, receives to the end, and ends as told. With
    /// [`End::Truncate`] it does not wait for the client's end.
    pub fn start(netns: &NetNs, listen: SocketAddr, face: Face, say: &str, end: End) -> Self {
        let listener = netns.listen(listen);
        Self::on(listener, face, say, end)
    }

    /// The same on a socket that listens already.
    pub fn on(listener: TcpListener, face: Face, say: &str, end: End) -> Self {
        listener.set_nonblocking(true).expect("a listener that can be stopped");
        let sessions: Arc<Mutex<Vec<Session>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (say, stopped, seen) = (say.to_owned(), stop.clone(), sessions.clone());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((tcp, _)) => {
                        tcp.set_nonblocking(false).expect("a blocking connection");
                        set_patience(&tcp);
                        let session = serve(tcp, &face, &say, end);
                        seen.lock().unwrap().push(session);
                    }
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Self { sessions, stop, thread: Some(thread) }
    }

    /// Waits until `count` connections have ended and returns them.
    #[track_caller]
    pub fn sessions(&self, count: usize) -> Vec<Session> {
        wait::wait_for("the rogue server's sessions", GENEROUS, || {
            let sessions = self.sessions.lock().unwrap();
            (sessions.len() >= count).then(|| sessions.clone())
        })
    }

    /// Connections ended so far.
    pub fn count(&self) -> usize {
        self.sessions.lock().unwrap().len()
    }
}

impl Drop for RogueServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(tcp: TcpStream, face: &Face, say: &str, end: End) -> Session {
    let mut session = Session::default();
    let result = match face {
        Face::Tls(leaf) => serve_tls(tcp, leaf, say, end, &mut session),
        Face::Plain => serve_plain(tcp, say, &mut session),
    };
    session.error = result.err().map(|error| describe(&error));
    session
}

fn serve_plain(mut tcp: TcpStream, say: &str, session: &mut Session) -> io::Result<()> {
    tcp.write_all(say.as_bytes())?;
    tcp.read_to_end(&mut session.received).map(|_| ())
}

fn serve_tls(
    tcp: TcpStream,
    leaf: &Leaf,
    say: &str,
    end: End,
    session: &mut Session,
) -> io::Result<()> {
    let config = ServerConfig::builder_with_provider(trust::provider())
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_client_cert_verifier(Arc::new(trust::Everybody))
        .with_single_cert(leaf.chain.clone(), leaf.key.clone_key())
        .expect("the server's certificate");
    let connection = ServerConnection::new(Arc::new(config)).expect("a TLS server");
    let mut tls = StreamOwned::new(connection, tcp);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    session.client_certificate = tls.conn.peer_certificates().map(|chain| chain[0].clone());
    tls.write_all(say.as_bytes())?;
    tls.flush()?;
    if end == End::Truncate {
        tls.sock.shutdown(Shutdown::Write)?;
    }
    let result = tls.read_to_end(&mut session.received);
    if end == End::CloseNotify {
        tls.conn.send_close_notify();
        tls.flush()?;
    }
    result.map(|_| ())
}
