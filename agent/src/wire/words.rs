//! Messages about failed handshakes, with what to look at next. The library's own messages are names from its
//! code; they are logged at the level `debug`.

use std::io;

use rustls::{CertificateError, Error, InvalidMessage, PeerIncompatible};

use super::record::Alert;

const NO_TLS: &str = "what the peer sends is no TLS; is another protocol spoken on this port, or one that has to be \
                      asked for TLS first (STARTTLS)?";
const NO_TLS_OR_LATER: &str = "the peer speaks no TLS on this port, or only after a word of its own protocol: STARTTLS, \
                               or the SSLRequest of PostgreSQL before version 17";

/// Why TLS fails.
pub fn handshake(error: &Error) -> String {
    if let Error::AlertReceived(alert) = error {
        return format!("the peer ended it with the TLS alert {}", Alert(u8::from(*alert)));
    }
    let words = match error {
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::UnknownProtocolVersion
            | InvalidMessage::MessageTooLarge
            | InvalidMessage::InvalidEmptyPayload,
        )
        | Error::PeerSentOversizedRecord => NO_TLS,
        Error::InvalidMessage(_) => "a TLS message of the peer's is malformed",
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            "the peer sent a TLS message that has no place there"
        }
        Error::NoCertificatesPresented => "the peer showed no certificate",
        Error::DecryptError => "a record of the peer's was damaged on its way",
        Error::PeerIncompatible(lack) => incompatible(lack),
        Error::PeerMisbehaved(_) => "the peer breaks a rule of TLS",
        Error::NoApplicationProtocol => {
            "the peer speaks none of the application protocols that are offered (ALPN); see `alpn`"
        }
        Error::InvalidCertificate(error) => certificate(error),
        Error::InconsistentKeys(_) => "the key does not belong to the certificate",
        Error::FailedToGetCurrentTime => "the system's time is not known",
        Error::FailedToGetRandomBytes => "the system has no random numbers",
        _ => "something failed in the agent itself; `log.level: debug` tells more",
    };
    words.to_owned()
}

fn incompatible(lack: &PeerIncompatible) -> &'static str {
    match lack {
        PeerIncompatible::NoCipherSuitesInCommon => {
            "the two sides have no cipher suite in common; see `cipherSuites`"
        }
        PeerIncompatible::NoKxGroupsInCommon
        | PeerIncompatible::NamedGroupsExtensionRequired
        | PeerIncompatible::KeyShareExtensionRequired => {
            "the two sides have no key agreement in common; see `curves`"
        }
        PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon
        | PeerIncompatible::SignatureAlgorithmsExtensionRequired => {
            "the peer takes no signature of the certificate's kind of key"
        }
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled => {
            "the two sides have no TLS version in common; see `minVersion`"
        }
        _ => "the peer's TLS lacks something that is needed here",
    }
}

/// Why a certificate is refused where it was not our verifier that refused it.
pub fn certificate(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::BadEncoding => "the peer's certificate cannot be parsed",
        CertificateError::BadSignature => {
            "the peer's signature is wrong: it does not have the key of its certificate"
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the peer signs by an algorithm that is not accepted here"
        }
        _ => "the peer's certificate cannot be used",
    }
}

/// Why the connection below fails.
pub fn handshake_io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            format!("the peer closed the connection in the middle of it; {NO_TLS_OR_LATER}")
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            format!("the peer reset the connection in the middle of it; {NO_TLS_OR_LATER}")
        }
        _ => error.to_string(),
    }
}

/// Why a stream fails. A TLS stream that ends without `close_notify` was cut (RFC 8446, 6.1).
pub fn stream(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "the stream was cut short without close_notify".to_owned();
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(error) => handshake(error),
        None => error.to_string(),
    }
}
