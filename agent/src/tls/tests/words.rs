//! What operators read when a handshake fails.

use rustls::{
    AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible, PeerMisbehaved,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::peer::{Target, crypto_provider};
use crate::tls::{connect, testing};
use crate::trust::testing::{Ca, svid};
use crate::wire::words::handshake;

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
        let said = handshake(&error);
        let is_name = |word: &str| word.chars().skip(1).any(char::is_uppercase);
        let names = said.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| is_name(word));
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
    let configs =
        testing::configs(crypto_provider(), &ca, ca.issue(svid(id, |_| {})).certified(), &[]);
    let (target, quota) = (Target::Agent(testing::ids(&[id])), testing::quota(1 << 20));
    let limit = std::time::Duration::from_secs(10);
    let connecting = connect(dialled, &configs, &target, limit, &quota);
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
