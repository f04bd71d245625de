//! What comes from the container runtime: frames of the mux, and messages of ttrpc in them.
//!
//! What is read is what was written, however it was cut up; no byte is lost, made up or led to the other connection.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sheath::gate::nri::mux::{self, Connection, FrameTooLong, Part};
use sheath::gate::nri::ttrpc::{self, Frame, Kind};
use sheath_fuzz::cuts;

/// What was read of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    /// Of the plugin's connection and of the runtime's.
    bytes: [Vec<u8>; 2],
    frames: [Vec<Frame>; 2],
    error: Option<FrameTooLong>,
}

fuzz_target!(|input: &[u8]| {
    let whole = read(&[input]);
    for bytes_and_frames in whole.bytes.iter().zip(&whole.frames) {
        assert_written(bytes_and_frames.0, bytes_and_frames.1);
    }
    assert_framed(input, &whole);
    for pieces in cuts(input, 300) {
        assert_eq!(read(&pieces), whole, "cut up");
    }
});

fn read(pieces: &[&[u8]]) -> Read {
    let mut read = Read::default();
    let mut demux = mux::Reader::default();
    let mut readers = [ttrpc::Reader::default(), ttrpc::Reader::default()];
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let before = rest.len();
            match demux.next(&mut rest) {
                Err(error) => {
                    read.error = Some(error);
                    return read;
                }
                Ok(None) => break,
                Ok(Some(Part { connection, bytes })) => {
                    assert!(!bytes.is_empty() && rest.len() < before, "it stands still");
                    let Some(connection) = connection else {
                        continue;
                    };
                    let at = connection as usize - 1;
                    read.bytes[at].extend_from_slice(bytes);
                    let mut bytes = bytes;
                    while let Some(frame) = readers[at].next(&mut bytes) {
                        read.frames[at].push(frame);
                    }
                    assert!(bytes.is_empty(), "left over");
                }
            }
        }
        assert!(rest.is_empty(), "left over");
    }
    read
}

/// The messages of a connection are its bytes, but for flags, and for what was too long.
fn assert_written(bytes: &[u8], frames: &[Frame]) {
    let mut rest = bytes;
    for Frame { stream, kind, data } in frames {
        let Some(data) = data else {
            let length = u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            assert!(length > ttrpc::LONGEST);
            rest = &rest[ttrpc::HEADER + length..];
            continue;
        };
        let mut written = Frame::encode(*stream, *kind, data);
        written[9] = rest[9];
        assert!(rest.starts_with(&written));
        rest = &rest[written.len()..];
        assert!(!matches!(kind, Kind::Unknown(1..=3)));
    }
    // What is left is no whole message.
    if let Some(length) = rest.first_chunk::<4>() {
        assert!(rest.len() < ttrpc::HEADER + u32::from_be_bytes(*length) as usize);
    }
}

/// Frame by frame, without a state.
fn assert_framed(input: &[u8], read: &Read) {
    let (mut rest, mut bytes, mut error) = (input, [Vec::new(), Vec::new()], None);
    while let Some((header, payload)) = rest.split_first_chunk::<{ mux::HEADER }>() {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        if length as usize > mux::LONGEST {
            error = Some(FrameTooLong(length));
            break;
        }
        let end = payload.len().min(length as usize);
        for connection in [Connection::Plugin, Connection::Runtime] {
            if *header == mux::header(connection, length) {
                bytes[connection as usize - 1].extend_from_slice(&payload[..end]);
            }
        }
        rest = &payload[end..];
    }
    assert_eq!((&read.bytes, read.error), (&bytes, error));
}
