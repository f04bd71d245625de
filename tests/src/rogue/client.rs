//! A TLS client outside every workload.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::{End, describe, set_patience, trust};
use crate::ca::Leaf;
use crate::netns::NetNs;

/// A connection to make.
pub struct Dial<'a> {
    pub netns: &'a NetNs,
    pub to: SocketAddr,
    pub leaf: Option<&'a Leaf>,
    pub alpn: &'a [&'a str],
    pub send: &'a str,
    pub end: End,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Answer {
    /// Application data received.
    pub received: String,
    /// What ended the connection, if not close_notify.
    pub error: Option<String>,
    /// The certificate that the server showed.
    pub certificate: Option<CertificateDer<'static>>,
}

impl Dial<'_> {
    /// Connects, sends, ends sending, and receives to the end.
    pub fn run(&self) -> Answer {
        let mut answer = Answer::default();
        let result = self.netns.run(|| self.exchange(&mut answer));
        answer.error = result.err().map(|error| describe(&error));
        answer
    }

    fn exchange(&self, answer: &mut Answer) -> io::Result<()> {
        let tcp = TcpStream::connect(self.to)?;
        set_patience(&tcp);
        let name = ServerName::from(self.to.ip());
        let connection = ClientConnection::new(self.config(), name).expect("a TLS client");
        let mut tls = StreamOwned::new(connection, tcp);
        let shaken = tls.conn.complete_io(&mut tls.sock);
        answer.certificate = tls.conn.peer_certificates().map(|chain| chain[0].clone());
        shaken?;
        tls.write_all(self.send.as_bytes())?;
        let mut bytes = Vec::new();
        if self.end == End::AfterEcho {
            bytes.resize(self.send.len(), 0);
            tls.read_exact(&mut bytes)?;
            answer.received = String::from_utf8_lossy(&bytes).into_owned();
        }
        if self.end != End::Truncate {
            tls.conn.send_close_notify();
        }
        tls.flush()?;
        tls.sock.shutdown(Shutdown::Write)?;
        let result = tls.read_to_end(&mut bytes);
        answer.received = String::from_utf8_lossy(&bytes).into_owned();
        result.map(|_| ())
    }

    fn config(&self) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(trust::provider())
            .with_safe_default_protocol_versions()
            .expect("TLS versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(trust::Everybody));
        let mut config = match self.leaf {
            None => builder.with_no_client_auth(),
            Some(leaf) => builder
                .with_client_auth_cert(leaf.chain.clone(), leaf.key.clone_key())
                .expect("the client's certificate"),
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}
