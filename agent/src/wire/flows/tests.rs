mod specification;

use proptest::prelude::*;

use super::*;
use crate::wire::Endpoints;

fn open() -> Endpoints {
    Endpoints {
        source: "192.0.2.7:40000".parse().unwrap(),
        destination: "[2001:db8::1]:443".parse().unwrap(),
    }
}

fn frame(control: Control) -> Vec<u8> {
    control.encode().as_ref().to_vec()
}

fn data(payload: &[u8]) -> Vec<u8> {
    [&data_header(payload.len())[..], payload].concat()
}

/// What a reader makes of a stream in pieces of these lengths: controls, and the data between them. Each FIN is answered.
fn read_all(
    reader: &mut Reader,
    stream: &[u8],
    pieces: &[usize],
) -> Result<(Vec<Control>, Vec<u8>), FrameError> {
    let (mut controls, mut payload) = (Vec::new(), Vec::new());
    let mut pieces = pieces.iter().cycle();
    let mut rest = stream;
    while !rest.is_empty() {
        let (mut piece, later) = rest.split_at(rest.len().min(*pieces.next().unwrap()));
        rest = later;
        loop {
            let (used, item) = reader.next(piece)?;
            match item {
                Item::Data(range) => payload.extend_from_slice(&piece[range]),
                Item::Control(control) => {
                    controls.push(control);
                    if control == Control::Fin {
                        reader.sent_fin();
                    }
                }
                Item::More => {
                    assert_eq!(used, piece.len());
                    break;
                }
            }
            piece = &piece[used..];
        }
    }
    Ok((controls, payload))
}

proptest! {
    #[test]
    fn flows_come_out_as_they_went_in_however_they_are_cut(
        flows in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 1..400), 0..5),
            1..5,
        ),
        pieces in prop::collection::vec(1_usize..300, 1..8),
    ) {
        let (mut stream, mut controls, mut payload) = (Vec::new(), Vec::new(), Vec::new());
        for flow in &flows {
            stream.extend(frame(Control::Open(open())));
            for chunk in flow {
                stream.extend(data(chunk));
                payload.extend_from_slice(chunk);
            }
            stream.extend(frame(Control::Fin));
            controls.extend([Control::Open(open()), Control::Fin]);
        }
        let mut reader = Reader::of_client();
        let read = read_all(&mut reader, &stream, &pieces).unwrap();
        prop_assert_eq!(read, (controls, payload));
        prop_assert!(reader.is_between_flows());
    }

    #[test]
    fn no_bytes_make_it_panic_or_stand_still(bytes: Vec<u8>, of_client: bool) {
        let mut reader = if of_client { Reader::of_client() } else { Reader::of_server() };
        let mut rest = bytes.as_slice();
        while let Ok((used, item)) = reader.next(rest) {
            if item == Item::More {
                prop_assert_eq!(used, rest.len());
                break;
            }
            if let Item::Data(range) = &item {
                prop_assert!(!range.is_empty() && range.end <= used);
            }
            rest = &rest[used..];
        }
    }

    #[test]
    fn endpoints_survive(source: std::net::SocketAddr, destination: std::net::SocketAddr) {
        let read = read_all(
            &mut Reader::of_client(),
            &frame(Control::Open(Endpoints { source, destination })),
            &[100],
        );
        let nobody = |endpoint: &std::net::SocketAddr| {
            let ip = endpoint.ip().to_canonical();
            endpoint.port() == 0 || ip.is_unspecified() || ip.is_multicast()
        };
        if nobody(&source) || nobody(&destination) {
            prop_assert_eq!(read, Err(FrameError::Address));
        } else {
            let plain = |endpoint: std::net::SocketAddr| {
                std::net::SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port())
            };
            let open = Endpoints { source: plain(source), destination: plain(destination) };
            prop_assert_eq!(read.unwrap().0, vec![Control::Open(open)]);
        }
    }
}

/// What a reader makes of these frames.
fn read(mut reader: Reader, frames: &[Vec<u8>]) -> Result<(), FrameError> {
    read_all(&mut reader, &frames.concat(), &[1000]).map(|_| ())
}

/// A reader of a server that has been sent an OPEN.
fn answering() -> Reader {
    let mut reader = Reader::of_server();
    reader.expect_answer();
    reader
}

#[test]
fn frames_come_in_their_order_alone() {
    let opened = frame(Control::Open(open()));
    let accepted = frame(Control::Accepted);
    let fin = frame(Control::Fin);
    let reset = frame(Control::Reset(ResetCode::APPLICATION));
    let refused = frame(Control::Refused(RefusalCode::UNREACHABLE));
    let go_away = frame(Control::GoAway(GoAwayCode::IDLE));
    let hello = data(b"hello");
    let fine = |reader, frames: &[&Vec<u8>]| {
        read(reader, &frames.iter().map(|frame| (*frame).clone()).collect::<Vec<_>>())
    };
    let client = Reader::of_client;
    let server = Reader::of_server;
    assert_eq!(fine(client(), &[&opened, &hello, &fin, &opened, &reset]), Ok(()));
    assert_eq!(fine(answering(), &[&accepted, &hello, &fin, &go_away]), Ok(()));
    assert_eq!(fine(answering(), &[&refused]), Ok(()));
    assert_eq!(fine(answering(), &[&accepted, &refused]), Ok(()));
    assert_eq!(fine(answering(), &[&go_away]), Ok(()));
    for (reader, frames, wrong) in [
        (client(), vec![&hello], Kind::Data),
        (client(), vec![&accepted], Kind::Accepted),
        (client(), vec![&go_away], Kind::GoAway),
        (client(), vec![&opened, &opened], Kind::Open),
        (client(), vec![&opened, &fin, &hello], Kind::Data),
        (client(), vec![&opened, &reset, &opened], Kind::Open),
        (server(), vec![&accepted], Kind::Accepted),
        (server(), vec![&hello], Kind::Data),
        (server(), vec![&opened], Kind::Open),
        (answering(), vec![&hello], Kind::Data),
        (answering(), vec![&fin], Kind::Fin),
        (answering(), vec![&accepted, &accepted], Kind::Accepted),
        (answering(), vec![&accepted, &hello, &refused], Kind::Refused),
        (answering(), vec![&refused, &accepted], Kind::Accepted),
        (answering(), vec![&accepted, &fin, &accepted], Kind::Accepted),
        (answering(), vec![&accepted, &fin, &go_away, &go_away], Kind::GoAway),
        (client(), vec![&reset], Kind::Reset),
        (client(), vec![&opened, &reset, &reset], Kind::Reset),
        (server(), vec![&reset], Kind::Reset),
        (answering(), vec![&reset], Kind::Reset),
    ] {
        assert_eq!(fine(reader, &frames), Err(FrameError::OutOfOrder(wrong)));
    }
}

/// A flow takes two FINs to end.
#[test]
fn behind_a_fin_the_other_one_is_waited_for() {
    let [open, accepted, fin, reset, go_away] = [
        Control::Open(open()),
        Control::Accepted,
        Control::Fin,
        Control::Reset(ResetCode::APPLICATION),
        Control::GoAway(GoAwayCode::IDLE),
    ]
    .map(frame);
    let ended = |mut reader: Reader, frames: [&Vec<u8>; 2]| {
        for frame in frames {
            reader.next(frame).unwrap();
        }
        assert!(!reader.is_between_flows());
        reader
    };
    let client = || ended(Reader::of_client(), [&open, &fin]);
    let server = || ended(answering(), [&accepted, &fin]);
    for (reader, wrong) in [
        (client(), &open),
        (client(), &fin),
        (client(), &data(b"more")),
        (server(), &go_away),
        (server(), &accepted),
        (server(), &fin),
        (server(), &data(b"more")),
    ] {
        // As soon as the header is there.
        let result = { reader }.next(&wrong[..HEADER]).unwrap_err();
        assert!(matches!(result, FrameError::OutOfOrder(_)), "{result:?}");
    }
    for mut reader in [client(), server()] {
        assert!(matches!(reader.next(&reset), Ok((_, Item::Control(Control::Reset(_))))));
    }
    // It may have been sent before our FIN was heard, and OPEN after that.
    let over = |mut reader: Reader| {
        reader.sent_fin();
        assert!(reader.is_between_flows());
        reader
    };
    let asked = |mut reader: Reader| {
        reader.expect_answer();
        reader
    };
    for mut reader in [over(client()), over(server()), asked(over(server()))] {
        assert!(matches!(reader.next(&reset), Ok((_, Item::Control(Control::Reset(_))))));
        assert!(reader.next(&reset).is_err());
    }
    assert!(over(client()).next(&open).is_ok());
    assert!(over(server()).next(&go_away).is_ok());
    // The next flow needs a FIN of its own.
    let mut next = over(client());
    next.next(&open).unwrap();
    next.next(&fin).unwrap();
    assert!(!next.is_between_flows());
    let mut next = asked(over(server()));
    next.next(&accepted).unwrap();
    assert!(next.next(&reset).is_ok());
}

/// Whoever asks without waiting may have ended its direction before there is an answer.
#[test]
fn our_fin_may_come_before_theirs() {
    let mut reader = answering();
    reader.sent_fin();
    reader.next(&frame(Control::Accepted)).unwrap();
    reader.next(&frame(Control::Fin)).unwrap();
    assert!(reader.is_between_flows());
}

#[test]
fn malformed_frames_are_refused_by_their_header() {
    let refused = |header: [u8; 4]| {
        let mut reader = Reader::of_client();
        reader.next(&header).map(|_| ())
    };
    assert_eq!(refused([0, 0, 0, 0]), Err(FrameError::UnknownKind(0)));
    assert_eq!(refused([8, 0, 0, 0]), Err(FrameError::UnknownKind(8)));
    let length = |kind, length| Err(FrameError::Length { kind, length });
    assert_eq!(refused([1, 0, 0, 35]), length(Kind::Open, 35));
    assert_eq!(refused([2, 0, 0, 1]), length(Kind::Accepted, 1));
    assert_eq!(refused([3, 0, 0, 0]), length(Kind::Refused, 0));
    assert_eq!(refused([4, 0, 0, 0]), length(Kind::Data, 0));
    assert_eq!(refused([4, 0, 0x3f, 0xfd]), length(Kind::Data, 0x3ffd));
    assert_eq!(refused([4, 1, 0, 0]), length(Kind::Data, 0x10000));
    assert_eq!(refused([5, 0, 0, 1]), length(Kind::Fin, 1));
    assert_eq!(refused([6, 0, 0, 2]), length(Kind::Reset, 2));
    assert_eq!(refused([7, 0, 0, 0]), length(Kind::GoAway, 0));
}

#[test]
fn codes_have_words() {
    assert_eq!(RefusalCode::UNREACHABLE.to_string(), "the application cannot be reached");
    assert_eq!(ResetCode(200).to_string(), "code 200");
}
