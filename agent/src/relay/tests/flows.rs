//! Flow after flow in one session, and what the peer says out of its turn.

use super::*;
use crate::wire::flows::HEADER;

fn frame(control: Control) -> Vec<u8> {
    control.encode().as_ref().to_vec()
}

async fn hear(app: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    tokio::time::timeout(GENEROUS, app.read_to_end(&mut heard)).await.expect("no end").unwrap();
    heard
}

/// What a client sends behind the end of a flow belongs to the next one, also when it came in the same record.
#[tokio::test]
async fn the_next_flow_may_begin_in_the_record_in_which_the_last_one_ends() {
    let account = account();
    let (mut wire, mut raw) = serving(&account).await;
    let flows: [&[u8]; 4] = [b"first", b"", b"third", b"the last"];
    let begin = |said: &[u8]| {
        let said = if said.is_empty() { Vec::new() } else { data_frame(said) };
        [frame(opening()), said].concat()
    };
    raw.send(ContentType::ApplicationData, &begin(flows[0])).await;
    for (number, said) in flows.into_iter().enumerate() {
        wire.accept().unwrap();
        let mut relay = Carried::start(wire, &account).await;
        let mut heard = vec![0; said.len()];
        relay.app.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, said, "flow {number}");
        relay.app.write_all(said).await.unwrap();
        relay.app.shutdown().await.unwrap();
        let echoed = if said.is_empty() { Vec::new() } else { data_frame(said) };
        let expected = [frame(Control::Accepted), echoed, frame(Control::Fin)].concat();
        let mut answered = Vec::new();
        while answered.len() < expected.len() {
            answered.extend(raw.receive().await.unwrap().unwrap().1);
        }
        assert_eq!(answered, expected, "flow {number}");

        // The server has ended the flow first: its client may go on as it likes.
        let mut last = frame(Control::Fin);
        last.extend(flows.get(number + 1).map(|next| begin(next)).unwrap_or_default());
        // In two records, cut where it hurts: amid a frame's header.
        let (now, later) = last.split_at(last.len().min(HEADER + 2));
        let mut records = raw.seal(ContentType::ApplicationData, now);
        if !later.is_empty() {
            records.extend(raw.seal(ContentType::ApplicationData, later));
        }
        raw.write(&records).await;
        let ended = ended(relay.task).await;
        ended.result.unwrap();
        wire = ended.wire.unwrap();
    }
    assert!(wire.is_quiet());
    assert_eq!(account.leased(), 0);
}

/// The application has ended its direction, and what has come for it waits until it reads: what waits stays where it is.
#[tokio::test]
async fn what_waits_for_a_slow_application_outlives_the_end_of_the_other_direction() {
    for kind in KINDS {
        let account = account();
        let (wire, mut raw) = with_raw(tcp_pair().await, &account);
        let wire = served(kind, wire);
        let mut relay =
            Carried::between(narrow_tcp_pair().await, wire, &account, IdleTimeouts::default());
        let said = pattern(600_000, 9);
        let mut records = match kind {
            Kind::Bytes => Vec::new(),
            Kind::Flows => raw.seal(ContentType::ApplicationData, &frame(opening())),
        };
        for chunk in said.chunks(10_000) {
            let content = if kind == Kind::Flows { data_frame(chunk) } else { chunk.to_vec() };
            records.extend(raw.seal(ContentType::ApplicationData, &content));
        }
        records.extend(match kind {
            Kind::Flows => raw.seal(ContentType::ApplicationData, &frame(Control::Fin)),
            Kind::Bytes => raw.seal(ContentType::Alert, &[1, 0]),
        });
        let mut first = [0];
        let (_, first) = tokio::join!(
            // As much as there is room for.
            tokio::time::timeout(Duration::from_millis(200), raw.write(&records[..400_000])),
            relay.app.read_exact(&mut first)
        );
        first.unwrap();
        assert!(account.leased() > 0, "nothing waits");
        relay.app.shutdown().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!relay.task.is_finished());

        let rest = raw.write(&records[400_000..]);
        let (_, heard) = tokio::join!(rest, hear(&mut relay.app));
        assert!(heard == said[1..], "{kind:?}: {} bytes came", heard.len());
        let ended = ended(relay.task).await;
        ended.result.unwrap();
        assert_eq!(account.leased(), 0);
        // The next flow will need a FIN of ours again.
        if let Some(mut wire) = ended.wire {
            let frames = [frame(opening()), frame(Control::Fin)].concat();
            raw.send(ContentType::ApplicationData, &frames).await;
            let next = std::future::poll_fn(|cx| wire.poll_next_flow(cx)).await.unwrap();
            assert_eq!(next, Some(endpoints()));
            assert_eq!(wire.collect().unwrap(), crate::wire::Collected::End);
            assert!(!wire.is_quiet());
            wire.has_sent_end();
            assert!(wire.is_quiet());
        }
    }
}

/// How a relay ends to which a server says this after the client's OPEN.
async fn answered(answer: &[u8]) -> RelayError {
    let account = account();
    let (wire, mut raw) = with_raw(tcp_pair().await, &account);
    let mut wire = Box::new(Flows::new(wire, Role::Client));
    wire.begin(endpoints()).unwrap();
    let relay = Carried::start(wire, &account).await;
    raw.send(ContentType::ApplicationData, answer).await;
    ended(relay.task).await.result.unwrap_err()
}

#[tokio::test]
async fn answers_other_than_accepted_end_the_flow_with_their_reason() {
    use crate::wire::flows::FrameError;

    let refused = Control::Refused(RefusalCode::UNREACHABLE);
    let error = answered(&frame(refused)).await;
    assert!(
        matches!(error, RelayError::Wire(WireError::Refused(RefusalCode::UNREACHABLE))),
        "{error:?}"
    );
    let error = answered(&[frame(Control::Accepted), frame(refused)].concat()).await;
    assert!(
        matches!(error, RelayError::Wire(WireError::Refused(RefusalCode::UNREACHABLE))),
        "{error:?}"
    );
    let error = answered(&frame(Control::GoAway(GoAwayCode::CHANGED))).await;
    assert!(
        matches!(error, RelayError::Wire(WireError::NotTaken(GoAwayCode::CHANGED))),
        "{error:?}"
    );
    let error = answered(&data_frame(b"unasked")).await;
    assert!(
        matches!(error, RelayError::Wire(WireError::Frame(FrameError::OutOfOrder(_)))),
        "{error:?}"
    );
    let error = answered(&[9, 0, 0, 0]).await;
    assert!(
        matches!(error, RelayError::Wire(WireError::Frame(FrameError::UnknownKind(9)))),
        "{error:?}"
    );
}

/// Nothing is lost of an application that has said nothing, although it may have ended its direction.
#[tokio::test]
async fn go_away_tells_a_flow_that_is_lost_from_one_that_can_go_elsewhere() {
    for (said, is_lost) in [(&b"question"[..], true), (b"", false)] {
        let account = account();
        let (wire, mut raw) = with_raw(tcp_pair().await, &account);
        let mut wire = Box::new(Flows::new(wire, Role::Client));
        wire.begin(endpoints()).unwrap();
        let mut relay = Carried::start(wire, &account).await;
        relay.app.write_all(said).await.unwrap();
        relay.app.shutdown().await.unwrap();
        let (mut heard, fin) = (Vec::new(), frame(Control::Fin));
        while !heard.ends_with(&fin) {
            heard.extend(raw.receive().await.unwrap().unwrap().1);
        }
        let go_away = frame(Control::GoAway(GoAwayCode::CHANGED));
        raw.send(ContentType::ApplicationData, &go_away).await;
        let error = ended(relay.task).await.result.unwrap_err();
        let lost = matches!(error, RelayError::Wire(WireError::GoneAway(GoAwayCode::CHANGED)));
        assert!(
            lost == is_lost && (lost || matches!(error, RelayError::Wire(WireError::NotTaken(_)))),
            "{error:?}"
        );
    }
}

/// Whoever breaks the rules of the framing is told so in the words of TLS.
#[tokio::test]
async fn a_frame_out_of_order_is_answered_by_an_alert() {
    use crate::wire::record::{Alert, RecordError};

    let account = account();
    let (wire, mut raw) = serving(&account).await;
    let relay = Carried::start(wire, &account).await;
    raw.send(ContentType::ApplicationData, &data_frame(b"without an OPEN")).await;
    ended(relay.task).await.result.unwrap_err();
    let told = raw.receive().await;
    let alert = RecordError::Alert(Alert::UNEXPECTED_MESSAGE);
    assert!(matches!(&told, Err(WireError::Record(error)) if *error == alert), "{told:?}");
}

/// The session's end is not the flow's: whoever has something to say has not said it.
#[tokio::test]
async fn a_session_that_closes_amid_a_flow_is_cut_short() {
    let account = account();
    let (wire, mut raw) = serving(&account).await;
    let mut relay = Carried::start(wire, &account).await;
    let begun = [frame(opening()), data_frame(b"begun")].concat();
    raw.send(ContentType::ApplicationData, &begun).await;
    raw.send(ContentType::Alert, &[1, 0]).await;
    let error = ended(relay.task).await.result.unwrap_err();
    assert!(
        matches!(&error, RelayError::Wire(WireError::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof)
    );
    let mut heard = Vec::new();
    let end = relay.app.read_to_end(&mut heard).await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}
