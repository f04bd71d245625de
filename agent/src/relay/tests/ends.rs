//! How flows end: in order, by a reset, or because nobody moves any more.

use super::*;
use crate::wire::record::{Alert, CLOSE_NOTIFY, RecordError};

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
                (Kind::Flows, Err(RelayError::Wire(WireError::Reset(ResetCode::APPLICATION)))) => {}
                (Kind::Bytes, Err(RelayError::Wire(WireError::Io(error)))) => {
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
    let (wire, mut raw) = serving(&account).await;
    let mut relay = Carried::start(wire, &account).await;
    let mut said = opening().encode().as_ref().to_vec();
    said.extend(data_frame(b"goodbye"));
    said.extend(Control::Reset(ResetCode::REVOKED).encode().as_ref());
    raw.send(ContentType::ApplicationData, &said).await;
    let result = ended(relay.task).await.result;
    assert!(
        matches!(result, Err(RelayError::Wire(WireError::Reset(ResetCode::REVOKED)))),
        "{result:?}"
    );
    let mut heard = [0; 7];
    relay.app.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"goodbye");
    assert_is_reset(hear(&mut relay.app).await.1);
}

const SHORT: Duration = Duration::from_millis(200);

/// As [`back_to_back`], with a client whose patience has an end.
async fn impatient(kind: Kind, patience: IdleTimeouts) -> (Carried, Carried) {
    let (mine, theirs) = (account(), account());
    let (client, server) = sessions(tcp_pair().await, [&mine, &theirs]);
    let (client, server) = begin(kind, client, server);
    (Carried::patient(client, &mine, patience).await, Carried::start(server, &theirs).await)
}

#[tokio::test]
async fn a_flow_in_which_nothing_moves_is_broken_off() {
    for kind in KINDS {
        let patience = IdleTimeouts { idle: Some(SHORT), ..IdleTimeouts::default() };
        let (client, mut server) = impatient(kind, patience).await;
        let result = ended(client.task).await.result;
        assert!(matches!(result, Err(RelayError::Idle(SHORT))), "{kind:?} {result:?}");
        let result = ended(server.task).await.result;
        match (kind, result) {
            (Kind::Flows, Err(RelayError::Wire(WireError::Reset(ResetCode::TIMEOUT)))) => {}
            (Kind::Bytes, Err(RelayError::Wire(_))) => {}
            (_, other) => panic!("{kind:?} {other:?}"),
        }
        assert_is_reset(hear(&mut server.app).await.1);
    }
}

#[tokio::test]
async fn a_byte_now_and_then_keeps_a_flow_alive() {
    for from_client in [true, false] {
        let patience = IdleTimeouts { idle: Some(SHORT), ..IdleTimeouts::default() };
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
        let patience = IdleTimeouts { half_closed: Some(SHORT), ..IdleTimeouts::default() };
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
    let patience = IdleTimeouts { idle: Some(SHORT), half_closed: Some(SHORT), dead_peer: None };
    let mut relay = Carried::patient(bytes_of(wire), &account, patience).await;
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
    let patience = IdleTimeouts { idle: Some(SHORT), half_closed: Some(SHORT), dead_peer: None };
    let mut relay = Carried::between(narrow_tcp_pair().await, bytes_of(wire), &account, patience);
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

/// A flow whose peer has ended its direction, and whose application may go on.
async fn half_closed_by_peer(kind: Kind) -> (Carried, Raw) {
    let account = account();
    let (wire, mut raw) = with_raw(tcp_pair().await, &account);
    let mut relay = Carried::start(served(kind, wire), &account).await;
    match kind {
        Kind::Bytes => raw.send(ContentType::Alert, &CLOSE_NOTIFY).await,
        Kind::Flows => {
            let frames = [opening().encode().as_ref(), Control::Fin.encode().as_ref()].concat();
            raw.send(ContentType::ApplicationData, &frames).await;
        }
    }
    let (heard, end) = hear(&mut relay.app).await;
    assert_eq!(heard, b"");
    end.unwrap();
    none_held(&account).await;
    assert!(!relay.task.is_finished());
    (relay, raw)
}

/// Waits until an application that has nothing to read is told that its connection is gone.
async fn assert_told_of_reset(app: &TcpStream) {
    let told = tokio::time::timeout(SOON, app.ready(tokio::io::Interest::ERROR)).await;
    told.expect("the application is not told").unwrap();
}

/// Waits until the application is told, and says what ended the flow.
async fn why_reset(relay: Carried) -> RelayError {
    assert_told_of_reset(&relay.app).await;
    ended(relay.task).await.result.unwrap_err()
}

#[tokio::test]
async fn a_reset_behind_the_end_of_its_direction_is_heard_at_once() {
    type Break = fn(&mut Raw) -> Vec<u8>;
    let reset: Break = |raw| {
        let frame = Control::Reset(ResetCode::APPLICATION).encode();
        raw.seal(ContentType::ApplicationData, frame.as_ref())
    };
    let alert: Break = |raw| raw.seal(ContentType::Alert, &Alert::INTERNAL_ERROR.content());
    let closed: Break = |raw| raw.seal(ContentType::Alert, &CLOSE_NOTIFY);
    for (kind, what) in
        [(Kind::Flows, reset), (Kind::Flows, alert), (Kind::Flows, closed), (Kind::Bytes, alert)]
    {
        let (relay, mut raw) = half_closed_by_peer(kind).await;
        let record = what(&mut raw);
        raw.write(&record).await;
        why_reset(relay).await;
    }
}

#[tokio::test]
async fn a_connection_that_is_reset_behind_the_end_of_its_direction_ends_the_flow() {
    for kind in KINDS {
        let (relay, raw) = half_closed_by_peer(kind).await;
        hang_up(raw.tcp);
        let why = why_reset(relay).await;
        assert!(matches!(why, RelayError::Wire(_)), "{kind:?} {why:?}");
    }
}

/// Between agents a FIN of TCP amid a flow is a truncation. Others end the direction of TCP together with that of TLS: that
/// is no news, and a reset behind it is.
#[tokio::test]
async fn the_end_of_the_connection_behind_close_notify_is_no_failure() {
    let (mut relay, mut raw) = half_closed_by_peer(Kind::Bytes).await;
    socket2::SockRef::from(&raw.tcp).shutdown(std::net::Shutdown::Write).unwrap();
    relay.app.write_all(b"still here").await.unwrap();
    assert_eq!(raw.receive().await.unwrap().unwrap().1, b"still here");
    none_held(&relay.account).await;
    assert!(!relay.task.is_finished());
    hang_up(raw.tcp);
    let why = why_reset(relay).await;
    assert!(matches!(why, RelayError::Wire(_)), "{why:?}");

    let (relay, raw) = half_closed_by_peer(Kind::Flows).await;
    socket2::SockRef::from(&raw.tcp).shutdown(std::net::Shutdown::Write).unwrap();
    let why = why_reset(relay).await;
    assert!(matches!(why, RelayError::Wire(_)), "{why:?}");
}

/// RFC 8446, 6.1.
#[tokio::test]
async fn what_follows_close_notify_is_nobodys() {
    let (mut relay, mut raw) = half_closed_by_peer(Kind::Bytes).await;
    for _ in 0..40 {
        raw.send(ContentType::ApplicationData, &[7; 16_000]).await;
    }
    raw.send(ContentType::Alert, &CLOSE_NOTIFY).await;
    relay.app.write_all(b"all the same").await.unwrap();
    relay.app.shutdown().await.unwrap();
    assert_eq!(raw.receive().await.unwrap().unwrap().1, b"all the same");
    let ended = ended(relay.task).await;
    ended.result.unwrap();
    assert_eq!(ended.moved.received, 0);
}

/// docs/wire.md: behind a FIN its sender says nothing but RESET; the next flow has to wait for the other FIN.
#[tokio::test]
async fn whoever_goes_on_behind_fin_breaks_the_rules() {
    for frame in [data_frame(b"more"), opening().encode().as_ref().to_vec()] {
        let (relay, mut raw) = half_closed_by_peer(Kind::Flows).await;
        raw.send(ContentType::ApplicationData, &frame).await;
        let why = why_reset(relay).await;
        assert!(matches!(why, RelayError::Wire(WireError::Frame(_))), "{why:?}");
        let told = raw.receive().await;
        let alert = RecordError::Alert(Alert::UNEXPECTED_MESSAGE);
        assert!(matches!(&told, Err(WireError::Record(error)) if *error == alert), "{told:?}");
    }
}

/// Also when it has nothing to say any more, and nothing comes for it.
#[tokio::test]
async fn an_application_that_dies_half_closed_resets_the_flow() {
    for kind in KINDS {
        for of_client in [true, false] {
            let (client, server) = back_to_back(kind).await;
            let (mut one, mut other) = if of_client { (client, server) } else { (server, client) };
            one.app.shutdown().await.unwrap();
            hear(&mut other.app).await.1.unwrap();
            none_held(&one.account).await;
            hang_up(one.app);
            assert_told_of_reset(&other.app).await;
            let result = ended(one.task).await.result;
            assert!(matches!(result, Err(RelayError::App(_))), "{kind:?} {result:?}");
            match (kind, ended(other.task).await.result) {
                (Kind::Flows, Err(RelayError::Wire(WireError::Reset(ResetCode::APPLICATION)))) => {}
                (Kind::Bytes, Err(RelayError::Wire(_))) => {}
                (_, other) => panic!("{kind:?} {other:?}"),
            }
        }
    }
}

/// Two applications that write and never read, until both are gone: neither agent waits for the other to make room.
#[tokio::test]
async fn what_comes_for_an_application_that_is_gone_stops_nothing() {
    for kind in KINDS {
        let (client, server) = back_to_back(kind).await;
        let mut tasks = Vec::new();
        let mut apps = Vec::new();
        for relay in [client, server] {
            let (reading, mut writing) = relay.app.into_split();
            let fill = async { while writing.write_all(&[1; 64 * 1024]).await.is_ok() {} };
            assert!(tokio::time::timeout(SOON / 5, fill).await.is_err());
            tasks.push(relay.task);
            apps.push(reading.reunite(writing).unwrap());
        }
        for app in apps {
            hang_up(app);
        }
        for task in tasks {
            let result =
                tokio::time::timeout(SOON, task).await.expect("it goes on").unwrap().result;
            result.unwrap_err();
        }
    }
}
