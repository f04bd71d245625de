//! How flows end: in order, by a reset, or because nobody moves any more.

use super::*;

/// What an application hears of its peer, to whatever end.
async fn hear(app: &mut TcpStream) -> (Vec<u8>, io::Result<()>) {
    let mut heard = Vec::new();
    let end = tokio::time::timeout(GENEROUS, app.read_to_end(&mut heard)).await;
    (heard, end.expect("no end").map(|_| ()))
}

#[track_caller]
fn assert_is_reset(end: io::Result<()>) {
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

/// Closes a connection by a reset.
fn hang_up(app: TcpStream) {
    sockopt::prepare_leg(&app).unwrap();
}

#[tokio::test]
async fn a_reset_of_either_application_is_a_reset_for_the_other() {
    for kind in KINDS {
        for of_client in [true, false] {
            let (client, server) = back_to_back(kind).await;
            let (mut one, mut other) = if of_client { (client, server) } else { (server, client) };
            one.app.write_all(b"I must").await.unwrap();
            let mut heard = [0; 6];
            other.app.read_exact(&mut heard).await.unwrap();
            hang_up(one.app);

            let result = ended(one.task).await.result;
            assert!(matches!(result, Err(RelayError::App(_))), "{kind:?} {result:?}");
            match (kind, ended(other.task).await.result) {
                (Kind::Flows, Err(RelayError::Reset(Reset::APPLICATION))) => {}
                (Kind::Bytes, Err(RelayError::Wire(error))) => {
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                }
                (_, other) => panic!("{kind:?} {other:?}"),
            }
            assert_is_reset(hear(&mut other.app).await.1);
            assert_eq!((one.account.leased(), other.account.leased()), (0, 0));
        }
    }
}

/// Whoever answers and then hangs up has answered.
#[tokio::test]
async fn what_was_said_before_a_reset_frame_is_delivered() {
    let account = account();
    let ((wire, reader), mut raw) = serving(&account).await;
    let mut relay = Relay::start(wire, reader, &account).await;
    let mut said = opening().encode().as_ref().to_vec();
    said.extend(data_frame(b"goodbye"));
    said.extend(Control::Reset(Reset::REVOKED).encode().as_ref());
    raw.send(ContentType::ApplicationData, &said).await;
    let result = ended(relay.task).await.result;
    assert!(matches!(result, Err(RelayError::Reset(Reset::REVOKED))), "{result:?}");
    let mut heard = [0; 7];
    relay.app.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"goodbye");
    assert_is_reset(hear(&mut relay.app).await.1);
}

const SHORT: Duration = Duration::from_millis(200);

/// As [`back_to_back`], with a client whose patience has an end.
async fn impatient(kind: Kind, patience: Patience) -> (Relay, Relay) {
    let (mine, theirs) = (account(), account());
    let (client, server) = sessions(tcp_pair().await, [&mine, &theirs]);
    let (client, server) = begin(kind, client, server);
    (
        Relay::patient(client.0, client.1, &mine, patience).await,
        Relay::start(server.0, server.1, &theirs).await,
    )
}

#[tokio::test]
async fn a_flow_in_which_nothing_moves_is_broken_off() {
    for kind in KINDS {
        let patience = Patience { idle: Some(SHORT), half_closed: None };
        let (client, mut server) = impatient(kind, patience).await;
        let result = ended(client.task).await.result;
        assert!(matches!(result, Err(RelayError::Idle(SHORT))), "{kind:?} {result:?}");
        let result = ended(server.task).await.result;
        match (kind, result) {
            (Kind::Flows, Err(RelayError::Reset(Reset::TIMEOUT))) => {}
            (Kind::Bytes, Err(RelayError::Wire(_))) => {}
            (_, other) => panic!("{kind:?} {other:?}"),
        }
        assert_is_reset(hear(&mut server.app).await.1);
    }
}

#[tokio::test]
async fn a_byte_now_and_then_keeps_a_flow_alive() {
    for from_client in [true, false] {
        let patience = Patience { idle: Some(SHORT), half_closed: None };
        let (client, server) = impatient(Kind::Flows, patience).await;
        let (mut from, mut to) = match from_client {
            true => (client.app, server.app),
            false => (server.app, client.app),
        };
        for _ in 0..8 {
            tokio::time::sleep(SHORT / 4).await;
            from.write_all(b".").await.unwrap();
            to.read_exact(&mut [0]).await.unwrap();
        }
        from.shutdown().await.unwrap();
        to.shutdown().await.unwrap();
        ended(client.task).await.result.unwrap();
    }
}

/// The end of one direction begins the shorter wait, and movement in the other lengthens it.
#[tokio::test]
async fn a_half_closed_flow_has_a_limit_of_its_own() {
    for of_client in [true, false] {
        let patience = Patience { idle: None, half_closed: Some(SHORT) };
        let (client, server) = impatient(Kind::Flows, patience).await;
        let (mut from, mut to) = match of_client {
            true => (client.app, server.app),
            false => (server.app, client.app),
        };
        tokio::time::sleep(2 * SHORT).await;
        from.shutdown().await.unwrap();
        for _ in 0..8 {
            tokio::time::sleep(SHORT / 4).await;
            to.write_all(b".").await.unwrap();
            from.read_exact(&mut [0]).await.unwrap();
        }
        assert!(!client.task.is_finished());
        let result = ended(client.task).await.result;
        assert!(matches!(result, Err(RelayError::Idle(SHORT))), "{result:?}");
    }
}

/// A slow peer is not one that has stopped: bytes leave for it all the time, although it takes many limits to be rid of
/// one buffer.
#[tokio::test]
async fn a_peer_that_reads_slowly_is_waited_for() {
    let account = account();
    let (wire, raw) = with_raw(narrow_tcp_pair().await, &account);
    let patience = Patience { idle: Some(SHORT), half_closed: Some(SHORT) };
    let mut relay = Relay::patient(wire, None, &account, patience).await;
    let said = pattern(400_000, 3);
    relay.app.write_all(&said).await.unwrap();
    relay.app.shutdown().await.unwrap();
    let (mut seen, mut room) = (0, [0; 8 * 1024]);
    while seen < 400_000 {
        tokio::time::sleep(SHORT / 10).await;
        raw.tcp.readable().await.unwrap();
        seen += raw.tcp.try_read(&mut room).unwrap_or(0);
        assert!(!relay.task.is_finished(), "broken off after {seen} bytes");
    }
}

/// Of a slow application in the same way.
#[tokio::test]
async fn an_application_that_reads_slowly_is_waited_for() {
    let account = account();
    let (wire, mut raw) = with_raw(tcp_pair().await, &account);
    let patience = Patience { idle: Some(SHORT), half_closed: Some(SHORT) };
    let mut relay = Relay::between(narrow_tcp_pair().await, wire, None, &account, patience);
    let records: Vec<u8> =
        (0..24).flat_map(|_| raw.seal(ContentType::ApplicationData, &pattern(16_000, 3))).collect();
    let writing = tokio::spawn(async move {
        raw.write(&records).await;
        raw
    });
    let (mut seen, mut room) = (0, [0; 8 * 1024]);
    while seen < 24 * 16_000 {
        tokio::time::sleep(SHORT / 10).await;
        seen += relay.app.read(&mut room).await.unwrap();
    }
    drop(writing.await.unwrap());
}
