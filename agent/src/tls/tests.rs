use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, CustomExtension, ExtendedKeyUsagePurpose};
use rustls::sign::CertifiedKey;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::client_hello::{FirstBytes, classify};
use super::testing::{ids, quota};
use super::*;
use crate::peer::{Expectation, Target, crypto_provider};
use crate::trust::testing::{Ca, svid};
use crate::wire::WireError;
use crate::wire::record::ContentType;
use crate::wire::records::{Received, RecordStream};

const LIMIT: Duration = Duration::from_secs(10);

impl Ca {
    fn key(&self, id: &str, change: impl FnOnce(&mut CertificateParams)) -> Arc<CertifiedKey> {
        self.issue(svid(id, change)).certified()
    }

    fn configs(&self, key: Arc<CertifiedKey>, callers: &[&str]) -> TlsConfigs {
        testing::configs(crypto_provider(), self, key, callers)
    }
}

const WEB: &str = "spiffe://example.org/web";
const CLIENT: &str = "spiffe://example.org/client";

const BUFFERS: usize = 1 << 20;

/// A handshake over loopback; both sides' results.
async fn handshake(
    client: &TlsConfigs,
    expected: Expectation,
    server: &TlsConfigs,
) -> (Result<Established, TlsError>, Result<Established, TlsError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let target = Target::Agent(expected);
    let quota = quota(BUFFERS);
    let connecting = async {
        let mut session = connect(dialled, client, &target, LIMIT, &quota).await?;
        // The end of the handshake travels with the first data; there is none yet.
        poll_fn(|cx| session.session.poll_flush(cx)).await.unwrap();
        Ok(session)
    };
    tokio::join!(connecting, accept(accepted, server, LIMIT, &quota))
}

/// A chain may be longer than a record, and longer than the buffers that the workload has left. Data that comes right
/// behind it is not lost.
#[tokio::test]
async fn a_long_chain_is_no_reason_to_fail() {
    let ca = Ca::new("example.org");
    let web = ca.configs(ca.key(WEB, |_| {}), &[CLIENT]);
    for length in [5_000, 20_000, 40_000, 60_000] {
        let leaf = ca.issue(svid(CLIENT, |params| {
            // Of a private arc, for nobody to look at.
            let oid = [1, 3, 6, 1, 4, 1, 55555, 1];
            params.custom_extensions =
                vec![CustomExtension::from_oid_content(&oid, vec![4; length])];
        }));
        let client = ca.configs(leaf.certified(), &[]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        // Over its limit from the start.
        let quota = quota(0);
        let said = vec![7; 4_000];
        let connecting = async {
            let target = Target::Agent(ids(&[WEB]));
            let session = connect(dialled, &client, &target, LIMIT, &quota).await;
            let session = session.unwrap_or_else(|error| panic!("{length}: {error}"));
            let mut records = session.session.into_records();
            for _ in 0..16 {
                write(&mut records, &said).await.unwrap();
            }
            records
        };
        let accepting = accept(accepted, &web, LIMIT, &quota);
        let (_outbound, inbound) = tokio::join!(connecting, accepting);
        let inbound = inbound.unwrap_or_else(|error| panic!("{length}: {error}"));
        let mut inbound = inbound.session.into_records();
        for _ in 0..16 {
            assert!(read(&mut inbound).await.unwrap() == said, "{length}");
        }
    }
}

/// Waits for the next record with data.
async fn read(stream: &mut RecordStream) -> Result<Vec<u8>, WireError> {
    loop {
        match stream.receive()? {
            Received::Data(place) => {
                let data = stream.buffer()[place.clone()].to_vec();
                stream.consume(place.len());
                return Ok(data);
            }
            Received::Closed => return Ok(Vec::new()),
            Received::Nothing => {
                if poll_fn(|cx| stream.poll_fill(cx)).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
            }
        }
    }
}

async fn write(stream: &mut RecordStream, data: &[u8]) -> Result<(), WireError> {
    stream.put(ContentType::ApplicationData, data)?;
    poll_fn(|cx| stream.poll_flush(cx)).await
}

/// What the client learns: in TLS 1.3 it may believe to be done before the server has judged it.
async fn client_is_refused(session: Result<Established, TlsError>) -> bool {
    match session {
        Err(_) => true,
        // It learns more only when it goes on.
        Ok(session) => {
            let mut records = session.session.into_records();
            let _ = write(&mut records, b"?").await;
            read(&mut records).await.is_err()
        }
    }
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let ca = Ca::new("example.org");
    let web = ca.configs(ca.key(WEB, |_| {}), &[CLIENT]);
    let client = ca.configs(ca.key(CLIENT, |_| {}), &[]);
    let (outbound, inbound) = handshake(&client, ids(&[WEB]), &web).await;
    let (outbound, inbound) = (outbound.unwrap(), inbound.unwrap());
    assert_eq!(outbound.proof.peer.to_string(), WEB);
    assert_eq!(inbound.proof.peer.to_string(), CLIENT);
    for session in [&outbound, &inbound] {
        assert_eq!(session.session.mode().name, "sheath/1");
        assert_eq!(session.proof.negotiated.version, "TLSv1.3");
        assert_eq!(session.proof.negotiated.suite, "TLS13_AES_128_GCM_SHA256");
        assert_eq!(session.proof.negotiated.group, "X25519MLKEM768");
    }
    let mut outbound = outbound.session.into_records();
    let mut inbound = inbound.session.into_records();
    write(&mut outbound, b"ping").await.unwrap();
    assert_eq!(read(&mut inbound).await.unwrap(), b"ping");
    write(&mut inbound, b"pong").await.unwrap();
    assert_eq!(read(&mut outbound).await.unwrap(), b"pong");
}

#[tokio::test]
async fn a_server_that_is_not_expected_is_refused_by_name() {
    let ca = Ca::new("example.org");
    let web = ca.configs(ca.key(WEB, |_| {}), &[CLIENT]);
    let client = ca.configs(ca.key(CLIENT, |_| {}), &[]);
    let (outbound, inbound) = handshake(&client, ids(&["spiffe://example.org/db"]), &web).await;
    let reason = outbound.unwrap_err().to_string();
    assert!(reason.contains("spiffe://example.org/web, which is not expected here"), "{reason}");
    assert!(inbound.is_err());
}

#[tokio::test]
async fn a_client_that_is_not_allowed_is_refused_by_name() {
    let ca = Ca::new("example.org");
    let web = ca.configs(ca.key(WEB, |_| {}), &["spiffe://example.org/other"]);
    let client = ca.configs(ca.key(CLIENT, |_| {}), &[]);
    let (outbound, inbound) = handshake(&client, ids(&[WEB]), &web).await;
    let reason = inbound.unwrap_err().to_string();
    assert!(reason.contains("spiffe://example.org/client, which is not expected"), "{reason}");
    assert!(client_is_refused(outbound).await);
}

#[tokio::test]
async fn certificates_that_prove_nothing_are_refused_in_both_directions() {
    let ca = Ca::new("example.org");
    let impostor = Ca::new("example.org");
    let foreign = Ca::new("other.org");
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let bad = [
        ("forged by another CA", impostor.key(WEB, |_| {})),
        ("of another trust domain", foreign.key("spiffe://other.org/web", |_| {})),
        ("expired", ca.key(WEB, |p| p.not_after = (now - hour).into())),
        ("not yet valid", ca.key(WEB, |p| p.not_before = (now + hour).into())),
        ("without a SPIFFE ID", ca.key(WEB, |p| p.subject_alt_names.clear())),
        (
            "for no purpose of ours",
            ca.key(WEB, |p| {
                p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
            }),
        ),
    ];
    let good = ca.configs(ca.key(WEB, |_| {}), &[WEB]);
    for (what, key) in bad {
        let rogue = ca.configs(key, &[WEB]);
        let (outbound, inbound) = handshake(&good, ids(&[WEB]), &rogue).await;
        assert!(outbound.is_err() && inbound.is_err(), "server with a certificate {what}");
        let (outbound, inbound) = handshake(&rogue, ids(&[WEB]), &good).await;
        assert!(inbound.is_err(), "client with a certificate {what}");
        assert!(client_is_refused(outbound).await);
    }
}

#[tokio::test]
async fn a_silent_peer_does_not_hold_a_handshake_open() {
    let ca = Ca::new("example.org");
    let web = ca.configs(ca.key(WEB, |_| {}), &[CLIENT]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let result = accept(accepted, &web, Duration::from_millis(50), &quota(BUFFERS)).await;
    assert!(matches!(result, Err(TlsError::Timeout(_))));
}

/// A ClientHello as our client sends it, with or without our ALPN protocol.
fn client_hello(alpn: &[&[u8]]) -> Vec<u8> {
    let ca = Ca::new("example.org");
    let configs = ca.configs(ca.key(CLIENT, |_| {}), &[]);
    let setup = configs.client(&Target::Agent(ids(&[]))).unwrap();
    let mut config = rustls::ClientConfig::clone(&setup.config);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let name = std::net::IpAddr::from([192, 0, 2, 1]).into();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

fn classify_ours(bytes: &[u8]) -> FirstBytes {
    classify(bytes, &[])
}

#[test]
fn protocols_of_clients_without_an_agent_can_be_claimed() {
    let h2 = client_hello(&[b"h2"]);
    assert_eq!(classify(&h2, &[b"h2".to_vec()]), FirstBytes::Ours);
    assert_eq!(classify(&h2, &[b"h3".to_vec()]), FirstBytes::ForeignTls);
}

#[test]
fn first_bytes_tell_whose_a_connection_is() {
    let ours = client_hello(&[b"h2", b"sheath/1"]);
    assert_eq!(classify_ours(&ours), FirstBytes::Ours);
    assert_eq!(classify_ours(&client_hello(&[b"h2"])), FirstBytes::ForeignTls);
    assert_eq!(classify_ours(&client_hello(&[])), FirstBytes::ForeignTls);
    assert_eq!(classify_ours(b"GET / HTTP/1.1\r\n"), FirstBytes::Plaintext);
    assert_eq!(classify_ours(b""), FirstBytes::Incomplete);
    assert_eq!(classify_ours(&[22, 3, 1, 0xff, 0xff, 1]), FirstBytes::ForeignTls);
    for end in 1..ours.len() {
        assert_eq!(classify_ours(&ours[..end]), FirstBytes::Incomplete, "after {end} bytes");
    }
}

proptest::proptest! {
    #[test]
    fn no_first_bytes_make_the_classifier_panic(mut bytes: Vec<u8>, tls: bool) {
        if tls && !bytes.is_empty() {
            bytes[0] = 22;
        }
        let verdict = classify(&bytes, &[]);
        if let Some(first) = bytes.first() {
            proptest::prop_assert_eq!(verdict == FirstBytes::Plaintext, *first != 22);
        }
    }
}

/// Whatever a peer says instead of TLS is an error, and one that is told.
#[tokio::test]
async fn a_peer_that_does_not_speak_tls_is_an_error() {
    let ca = Ca::new("example.org");
    let client = ca.configs(ca.key(CLIENT, |_| {}), &[]);
    let server = ca.configs(ca.key(WEB, |_| {}), &[CLIENT]);
    let server_hello_of_a_stranger = [22, 3, 3, 0, 6, 2, 0, 0, 2, 3, 3];
    for said in [
        &b"trust me"[..],
        b"t",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        &[0; 100],
        &[22, 3, 3, 0, 0],
        &[22, 3, 3, 0xff, 0xff, 1],
        &[23, 3, 3, 0, 17, 1, 2, 3],
        &[21, 3, 3, 0, 2, 2, 40],
        &server_hello_of_a_stranger,
        // A fragment of a message, and then something else.
        &[22, 3, 3, 0, 2, 2, 0, 23, 3, 3, 0, 1, 1],
        &[22, 3, 3, 0, 2, 2, 0, 99, 3, 3, 0, 1, 1],
    ] {
        for as_client in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut theirs, _) = listener.accept().await.unwrap();
            theirs.write_all(said).await.unwrap();
            theirs.shutdown().await.unwrap();
            let quota = quota(BUFFERS);
            let result = if as_client {
                connect(ours, &client, &Target::Agent(ids(&[WEB])), LIMIT, &quota).await
            } else {
                accept(ours, &server, LIMIT, &quota).await
            };
            assert!(
                matches!(result, Err(TlsError::Protocol(_) | TlsError::Io(_))),
                "{said:?} {as_client} {result:?}"
            );
        }
    }
}

mod words;
