//! Messages of ttrpc (containerd/ttrpc, `PROTOCOL.md`): a header of ten bytes, with length and stream in big-endian, type and
//! flags, and up to 4 MiB of data. NRI uses calls with one request and one response.

use prost::Message as _;

/// Bytes.
pub const HEADER: usize = 10;

/// Bytes of data in a message.
pub const LONGEST: usize = 4 << 20;

/// Room that is made on a header's word alone, in bytes.
const TRUSTED: usize = 64 << 10;

/// What a message is. Others are for the future, and passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    Response,
    /// Of a stream: nothing in NRI is one.
    Data,
    Unknown(u8),
}

impl From<u8> for Kind {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Data,
            number => Self::Unknown(number),
        }
    }
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Data => 3,
            Self::Unknown(number) => number,
        }
    }
}

/// A message as it goes over the wire. Its flags are about streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub stream: u32,
    pub kind: Kind,
    /// `None` if there was more than there may be; it has been passed over.
    pub data: Option<Vec<u8>>,
}

impl Frame {
    /// As bytes. `data` must not be longer than [`LONGEST`].
    #[must_use]
    pub fn encode(stream: u32, kind: Kind, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + data.len());
        bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(&[kind.number(), 0]);
        bytes.extend_from_slice(data);
        bytes
    }
}

/// Puts messages together. It holds one at most, and takes memory for what has come, not for what is announced.
#[derive(Debug, Default)]
pub struct Reader {
    header: [u8; HEADER],
    have: usize,
    data: Vec<u8>,
}

impl Reader {
    /// True between two messages.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.have == 0
    }

    /// Takes bytes out of `input`, until a message is whole or nothing is left.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Frame> {
        if self.have < HEADER {
            let taken = take(input, HEADER - self.have);
            self.header[self.have..self.have + taken.len()].copy_from_slice(taken);
            self.have += taken.len();
            if self.have < HEADER {
                return None;
            }
        }
        let [a, b, c, d, e, f, g, h, kind, _flags] = self.header;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        // Counts what follows the header.
        let had = self.have - HEADER;
        let taken = take(input, length - had);
        self.have += taken.len();
        let is_too_long = length > LONGEST;
        if !is_too_long {
            if self.data.is_empty() {
                self.data.reserve(length.min(TRUSTED));
            }
            self.data.extend_from_slice(taken);
        }
        if self.have - HEADER < length {
            return None;
        }
        self.have = 0;
        let data = std::mem::take(&mut self.data);
        Some(Frame {
            stream: u32::from_be_bytes([e, f, g, h]),
            kind: kind.into(),
            data: (!is_too_long).then_some(data),
        })
    }
}

fn take<'i>(input: &mut &'i [u8], most: usize) -> &'i [u8] {
    let (taken, rest) = input.split_at(input.len().min(most));
    *input = rest;
    taken
}

/// A call (containerd/ttrpc, `request.proto`).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Request {
    #[prost(string, tag = "1")]
    pub service: String,
    #[prost(string, tag = "2")]
    pub method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    /// How long the caller waits, in nanoseconds; 0 for ever.
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
}

/// The answer to a call.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Response {
    /// Missing if all is well.
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Status {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

/// Those of gRPC's status codes that are answered with (`google/rpc/code.proto`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    InvalidArgument = 3,
    ResourceExhausted = 8,
    /// Of the codes for "no" the one that nobody takes for a lost connection, a time limit or a message that is too long:
    /// containerd would go on without asking after the second, and NRI would send again in pieces after the third.
    FailedPrecondition = 9,
    Unimplemented = 12,
}

impl Response {
    /// A result.
    #[must_use]
    pub fn ok(message: &impl prost::Message) -> Self {
        Self { status: None, payload: message.encode_to_vec() }
    }

    /// A failure. `message` is cut off where the runtime's side could not read it any more.
    #[must_use]
    pub fn failed(code: Code, message: &str) -> Self {
        let end = message.floor_char_boundary(LONGEST_TEXT);
        let message = message[..end].to_owned();
        Self { status: Some(Status { code: code as i32, message }), payload: Vec::new() }
    }

    /// As a frame's bytes.
    #[must_use]
    pub fn frame(&self, stream: u32) -> Vec<u8> {
        Frame::encode(stream, Kind::Response, &self.encode_to_vec())
    }
}

/// Bytes of a failure's message. The runtime's side reads 4096 bytes at a time, and fails with ENOMEM if a frame of the mux
/// has more (containerd/nri, `pkg/net/multiplex/mux.go`, `Read`).
const LONGEST_TEXT: usize = 2048;
