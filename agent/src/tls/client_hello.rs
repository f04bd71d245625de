//! Tells from the first bytes of a connection whether it is for the agent. The bytes may be anything.

use rustls::server::Acceptor;

use crate::wire::modes::agent_protocols;

/// What the bytes seen so far are the beginning of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstBytes {
    /// A ClientHello that offers one of our ALPN protocols.
    Ours,
    /// Somebody else's TLS.
    ForeignTls,
    /// No TLS.
    Plaintext,
    /// A ClientHello of which more is to come.
    Incomplete,
}

/// `handshake` as record type (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// Classifies the first bytes of a stream. Ours are the protocols of agents, and `protocols`. Anything malformed
/// is not ours.
#[must_use]
pub fn classify(bytes: &[u8], protocols: &[Vec<u8>]) -> FirstBytes {
    match bytes.first() {
        None => return FirstBytes::Incomplete,
        Some(&HANDSHAKE_RECORD) => {}
        Some(_) => return FirstBytes::Plaintext,
    }
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        match acceptor.read_tls(&mut rest) {
            Ok(read) if read > 0 => {}
            _ => return FirstBytes::ForeignTls,
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let ours = offers(&accepted.client_hello(), protocols);
                return if ours { FirstBytes::Ours } else { FirstBytes::ForeignTls };
            }
            Err(_) => return FirstBytes::ForeignTls,
        }
    }
    FirstBytes::Incomplete
}

/// True if a ClientHello offers a protocol of agents or one of `protocols`.
#[must_use]
pub fn offers(hello: &rustls::server::ClientHello<'_>, protocols: &[Vec<u8>]) -> bool {
    let is_ours = |offered: &[u8]| {
        agent_protocols().any(|ours| ours == offered)
            || protocols.iter().any(|ours| ours == offered)
    };
    hello.alpn().is_some_and(|mut offered| offered.any(is_ours))
}
