//! Frames are what was sent, however they were cut up on the way.

use proptest::prelude::*;

use super::super::mux::{self, Connection, FrameTooLong};
use super::super::testing::message;
use super::super::ttrpc::{self, Frame, Kind};

/// What comes out of a stream of bytes that comes in pieces: the bytes of both connections, and the messages in them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    bytes: [Vec<u8>; 2],
    frames: [Vec<Frame>; 2],
    error: Option<FrameTooLong>,
    is_between: bool,
}

fn read<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Read {
    let mut read = Read::default();
    let mut demux = mux::Reader::default();
    let mut readers = [ttrpc::Reader::default(), ttrpc::Reader::default()];
    for mut piece in pieces {
        loop {
            match demux.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(mux::Part { connection: None, .. })) => {}
                Ok(Some(mux::Part { connection: Some(connection), bytes })) => {
                    let at = connection as usize - 1;
                    read.bytes[at].extend(bytes);
                    let mut bytes = bytes;
                    while let Some(frame) = readers[at].next(&mut bytes) {
                        read.frames[at].push(frame);
                    }
                    assert!(bytes.is_empty(), "left over");
                }
                Err(error) => {
                    read.error = Some(error);
                    return read;
                }
            }
        }
        assert!(piece.is_empty(), "left over");
    }
    read.is_between =
        demux.is_between_frames() && readers.iter().all(ttrpc::Reader::is_between_messages);
    read
}

fn pieces<'b>(bytes: &'b [u8], cuts: &[prop::sample::Index]) -> Vec<&'b [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|place| &bytes[place[0]..place[1]]).collect()
}

/// Messages of a connection, cut into frames.
fn sent() -> impl Strategy<Value = (Vec<u8>, [Vec<Frame>; 2])> {
    let data = prop::collection::vec(any::<u8>(), 0..300);
    let one = (0_u32..4, any::<u32>(), any::<u8>(), data, 1_usize..200);
    prop::collection::vec(one, 0..12).prop_map(|messages| {
        let (mut bytes, mut frames) = (Vec::new(), [Vec::new(), Vec::new()]);
        for (connection, stream, kind, data, longest) in messages {
            for piece in message(stream, kind, &data).chunks(longest) {
                bytes.extend(connection.to_be_bytes());
                bytes.extend((piece.len() as u32).to_be_bytes());
                bytes.extend(piece);
            }
            if let 1 | 2 = connection {
                let frame = Frame { stream, kind: kind.into(), data: Some(data) };
                frames[connection as usize - 1].push(frame);
            }
        }
        (bytes, frames)
    })
}

proptest! {
    #[test]
    fn messages_come_out_as_they_went_in(
        (bytes, frames) in sent(),
        cuts: [prop::sample::Index; 8],
    ) {
        let read = read(pieces(&bytes, &cuts));
        prop_assert_eq!(&read.frames, &frames);
        prop_assert!(read.is_between && read.error.is_none());
    }

    #[test]
    fn cuts_make_no_difference_to_anything(
        bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(10), any::<u8>()], 0..400),
        cuts: [prop::sample::Index; 8],
    ) {
        prop_assert_eq!(read(pieces(&bytes, &cuts)), read([bytes.as_slice()]));
    }
}

#[test]
fn what_is_announced_takes_no_memory() {
    let mut reader = ttrpc::Reader::default();
    let mut header: &[u8] = &message(1, 1, &[])[4..];
    let mut announced: &[u8] = &(4_u32 << 20).to_be_bytes();
    assert_eq!(reader.next(&mut announced), None);
    assert_eq!(reader.next(&mut header), None);
    assert!(!reader.is_between_messages());
    assert!(size_of_val(&reader) < 100);
}

#[test]
fn a_message_that_is_too_long_is_passed_over() {
    let long = message(5, 1, &vec![0; ttrpc::LONGEST + 1]);
    let next = message(7, 1, b"x");
    let mut reader = ttrpc::Reader::default();
    let mut frames = Vec::new();
    for piece in [long, next].concat().chunks(60_000) {
        let mut piece = piece;
        while let Some(frame) = reader.next(&mut piece) {
            frames.push(frame);
        }
    }
    let expected = [
        Frame { stream: 5, kind: Kind::Request, data: None },
        Frame { stream: 7, kind: Kind::Request, data: Some(b"x".to_vec()) },
    ];
    assert_eq!(frames, expected);
}

#[test]
fn no_frame_is_longer_than_a_message() {
    let frame = |length: u32| [&1_u32.to_be_bytes()[..], &length.to_be_bytes()].concat();
    let longest = (4 << 20) + 10;
    assert_eq!(read([&frame(longest)[..]]).error, None);
    assert_eq!(read([&frame(longest + 1)[..]]).error, Some(FrameTooLong(longest + 1)));
    assert_eq!(mux::header(Connection::Runtime, 300), [0, 0, 0, 2, 0, 0, 1, 44]);
}

#[test]
fn a_failures_text_fits_into_what_the_runtime_reads() {
    let failed = ttrpc::Response::failed(ttrpc::Code::FailedPrecondition, &"\u{e9}".repeat(9_000));
    assert!(failed.frame(u32::MAX).len() <= 4096);
    assert!(failed.status.unwrap().message.len() > 2_000);
}
