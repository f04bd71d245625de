//! Frames, from a peer that has proved who it is and may still be mad.
//!
//! What is read is what was written, however it was cut up, and comes in the order of `docs/wire.md`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sheath::wire::flows::{
    Control, FrameError, HEADER, Item, Kind, LONGEST_DATA, Reader, data_header,
};
use sheath_fuzz::cuts;

/// Something that was read.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    Control(Control),
    Data(Vec<u8>),
}

fuzz_target!(|input: &[u8]| {
    let Some((flags, stream)) = input.split_first() else {
        return;
    };
    let role = match flags % 3 {
        0 => Role::Client,
        1 => Role::Server { asked: true },
        _ => Role::Server { asked: false },
    };
    let ours = match flags / 3 % 3 {
        0 => OurFin::Last,
        1 => OurFin::First,
        _ => OurFin::Never,
    };
    let (read, error) = read(role, ours, &[stream]);
    let written: Vec<u8> = read.iter().flat_map(write).collect();
    assert_written(stream, &written, error);
    assert_order(role, ours, &read);
    let whole = (read, error);
    for pieces in cuts(stream, 700) {
        assert_eq!(self::read(role, ours, &pieces), whole, "cut up");
    }
});

/// When the reader's own side ends its direction of each flow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OurFin {
    /// Once the other has.
    Last,
    /// As soon as there is a flow, or an OPEN for one.
    First,
    Never,
}

/// Whose frames they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Client,
    /// `asked` says that an OPEN comes before every flow.
    Server {
        asked: bool,
    },
}

/// Reads a stream in pieces, to its end or to the first error. Data in a row is put together.
fn read(role: Role, ours: OurFin, pieces: &[&[u8]]) -> (Vec<Read>, Option<FrameError>) {
    let mut reader = match role {
        Role::Client => Reader::of_client(),
        Role::Server { .. } => Reader::of_server(),
    };
    let asks = role == Role::Server { asked: true };
    let ask = |reader: &mut Reader| {
        reader.expect_answer();
        if ours == OurFin::First {
            reader.sent_fin();
        }
    };
    if asks {
        ask(&mut reader);
    }
    let mut read = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let (used, item) = match reader.next(rest) {
                Ok(next) => next,
                Err(error) => return (read, Some(error)),
            };
            assert!(used <= rest.len());
            match item {
                Item::More => {
                    assert_eq!(used, rest.len(), "it stops before the end");
                    break;
                }
                Item::Data(place) => {
                    assert!(!place.is_empty() && place.end == used && place.len() <= LONGEST_DATA);
                    match read.last_mut() {
                        Some(Read::Data(before)) => before.extend_from_slice(&rest[place]),
                        _ => read.push(Read::Data(rest[place].to_vec())),
                    }
                }
                Item::Control(control) => {
                    assert!(used > 0, "it stands still");
                    match (control, ours) {
                        (Control::Open(_), OurFin::First) | (Control::Fin, OurFin::Last) => {
                            reader.sent_fin();
                        }
                        _ => {}
                    }
                    if control == Control::Fin {
                        let is_over = ours != OurFin::Never;
                        assert_eq!(reader.is_between_flows(), is_over);
                        if asks && is_over {
                            ask(&mut reader);
                        }
                    }
                    read.push(Read::Control(control));
                }
            }
            rest = &rest[used..];
        }
    }
    (read, None)
}

fn write(item: &Read) -> Vec<u8> {
    match item {
        Read::Control(control) => control.encode().as_ref().to_vec(),
        Read::Data(data) => data.clone(),
    }
}

/// Up to where it was read, a stream is what would be written, but for how data is framed.
fn assert_written(stream: &[u8], written: &[u8], error: Option<FrameError>) {
    let (mut rest, mut plain) = (stream, Vec::new());
    while let Some((header, payload)) = rest.split_first_chunk::<HEADER>() {
        let length = usize::from(header[2]) << 8 | usize::from(header[3]);
        let is_data = header[0] == Kind::Data as u8;
        if is_data && (1..=LONGEST_DATA).contains(&length) && header[1] == 0 {
            assert_eq!(*header, data_header(length));
        } else {
            plain.extend_from_slice(header);
        }
        let end = length.min(payload.len());
        plain.extend_from_slice(&payload[..end]);
        rest = &payload[end..];
    }
    plain.extend_from_slice(rest);
    assert!(plain.starts_with(written));
    // What is left is a frame that is wrong or not there as a whole.
    assert!(error.is_some() || plain.len() - written.len() < HEADER + 36);
}

/// The tables of `docs/wire.md`.
fn assert_order(role: Role, ours: OurFin, read: &[Read]) {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum State {
        Between,
        Asked,
        Taken,
        Open,
        Ended,
        Over,
    }
    let between = match role {
        Role::Server { asked: true } => State::Asked,
        _ => State::Between,
    };
    let is_client = role == Role::Client;
    let mut state = between;
    let mut follows_fin = false;
    for item in read {
        let kind = match item {
            Read::Data(_) => Kind::Data,
            Read::Control(control) => control.kind(),
        };
        state = match (state, kind) {
            (State::Between, Kind::Open) if is_client => State::Open,
            (State::Between | State::Asked, Kind::GoAway) if !is_client => State::Over,
            (State::Asked, Kind::Accepted) => State::Taken,
            (State::Asked | State::Taken, Kind::Refused) => State::Over,
            (State::Taken | State::Open, Kind::Data) => State::Open,
            (State::Taken | State::Open, Kind::Fin) if ours == OurFin::Never => State::Ended,
            (State::Taken | State::Open, Kind::Fin) => between,
            (State::Taken | State::Open | State::Ended, Kind::Reset) => State::Over,
            // It has crossed our FIN.
            (State::Between | State::Asked, Kind::Reset) if follows_fin => State::Over,
            (state, kind) => panic!("{kind:?} in {state:?}"),
        };
        follows_fin = kind == Kind::Fin;
    }
}
