//! What goes wrong in a handshake, in words of ours, with what to look at next. The library's own are names out of its
//! code; they are there at the level `debug`.

use std::io;

use rustls::{CertificateError, Error, InvalidMessage, PeerIncompatible};

use crate::record::Alert;

const NO_TLS: &str = "what the peer sends is no TLS; is another protocol spoken on this port, or one that has to be \
                      asked for TLS first (STARTTLS)?";
const NO_TLS_OR_LATER: &str = "the peer speaks no TLS on this port, or only after a word of its own protocol: STARTTLS, \
                               or the SSLRequest of PostgreSQL before version 17";

/// Why TLS fails.
pub fn words(error: &Error) -> String {
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
pub fn io_words(error: &io::Error) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{Target, connect, crypto_provider, testing};
    use crate::trust::testing::{Ca, svid};
    use rustls::{AlertDescription, PeerMisbehaved};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    #[test]
    fn no_name_of_the_library_is_in_a_message() {
        for error in [
            Error::InvalidMessage(InvalidMessage::InvalidContentType),
            Error::InvalidMessage(InvalidMessage::MissingKeyExchange),
            Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon),
            Error::PeerIncompatible(PeerIncompatible::ExtendedMasterSecretExtensionRequired),
            Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare),
            Error::InvalidCertificate(CertificateError::BadSignature),
            Error::General("InternalWord".to_owned()),
            Error::AlertReceived(AlertDescription::HandshakeFailure),
            Error::AlertReceived(AlertDescription::Unknown(99)),
            Error::HandshakeNotComplete,
        ] {
            let said = words(&error);
            let is_name = |word: &str| word.chars().skip(1).any(char::is_uppercase);
            let names =
                said.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| is_name(word));
            let known = ["TLS", "ALPN", "STARTTLS", "SVID", "SPIFFE", "cipherSuites", "minVersion"];
            for name in names {
                assert!(known.contains(&name), "{name}: {said}");
            }
        }
    }

    /// What a client is told about a server that reads what it is sent, says this, and closes if that is nothing.
    async fn told_of_server_that_says(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        let serving = async {
            let mut hello = [0; 4096];
            let _ = accepted.read(&mut hello).await;
            let _ = accepted.write_all(answer).await;
            // One that greets waits for an answer.
            if answer.is_empty() {
                drop(accepted);
            } else {
                let _ = accepted.read(&mut hello).await;
            }
        };
        let ca = Ca::new("example.org");
        let id = "spiffe://example.org/web";
        let contexts =
            testing::contexts(crypto_provider(), &ca, ca.issue(svid(id, |_| {})).certified(), &[]);
        let (target, share) = (Target::Agent(testing::ids(&[id])), testing::share(1 << 20));
        let limit = std::time::Duration::from_secs(10);
        let connecting = connect(dialled, &contexts, &target, limit, &share);
        let (connected, ()) = tokio::join!(connecting, serving);
        connected.map(drop).unwrap_err().to_string()
    }

    #[tokio::test]
    async fn servers_that_speak_no_tls_at_first_are_recognised() {
        // PostgreSQL before version 17 closes on what is no StartupMessage of its protocol; later ones know TLS.
        let told = told_of_server_that_says(b"").await;
        assert!(told.contains("PostgreSQL before version 17"), "{told}");
        for greeting in [
            b"220 mail.example.org ESMTP ready\r\n".as_slice(),
            b"SSH-2.0-OpenSSH_9.2\r\n",
            // MySQL
            b"\x4a\0\0\0\x0a8.0.36\0",
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
            b"E\0\0\0\x44SFATAL\0VFATAL\0C0A000\0Munsupported frontend protocol\0\0",
        ] {
            let told = told_of_server_that_says(greeting).await;
            assert!(told.contains("is no TLS") && told.contains("STARTTLS"), "{told}");
        }
        // handshake_failure (40), fatal.
        let told = told_of_server_that_says(&[21, 3, 3, 0, 2, 2, 40]).await;
        assert!(told.contains("the TLS alert handshake_failure: it has no cipher suite"), "{told}");
    }
}
