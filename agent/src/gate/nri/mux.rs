//! Frames that carry several connections over one socket (containerd/nri, `pkg/net/multiplex`): a header of eight bytes, the
//! number of the connection and the length of what follows, both big-endian. What follows belongs to the connection's
//! stream of bytes; where frames begin and end means nothing to it.

/// Bytes.
pub const HEADER: usize = 8;

/// The longest message of ttrpc with its header: no frame need be longer.
pub const LONGEST: usize = super::ttrpc::HEADER + super::ttrpc::LONGEST;

/// The connection on which the runtime calls the plugin, and the one on which the plugin calls the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    Plugin = 1,
    Runtime = 2,
}

impl Connection {
    fn of(number: u32) -> Option<Self> {
        [Self::Plugin, Self::Runtime].into_iter().find(|known| *known as u32 == number)
    }
}

/// The header announces a frame that is longer than any message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the runtime sends a frame of {0} bytes, and {LONGEST} is the most")]
pub struct FrameTooLong(pub u32);

/// A part of a connection's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'i> {
    /// `None` for one that nobody listens on: such bytes are dropped, as the runtime's side does it.
    pub connection: Option<Connection>,
    pub bytes: &'i [u8],
}

/// Takes frames apart. It holds no bytes but those of a header.
#[derive(Debug, Default)]
pub struct Reader {
    header: [u8; HEADER],
    have: usize,
    connection: Option<Connection>,
    left: usize,
}

impl Reader {
    /// True between two frames.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Takes the next part out of `input`, which then begins behind it. `None` once nothing of it is left.
    ///
    /// # Errors
    /// If a frame is too long. There is no way to go on.
    pub fn next<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<Part<'i>>, FrameTooLong> {
        while self.left == 0 {
            let (taken, rest) = input.split_at(input.len().min(HEADER - self.have));
            self.header[self.have..self.have + taken.len()].copy_from_slice(taken);
            self.have += taken.len();
            *input = rest;
            if self.have < HEADER {
                return Ok(None);
            }
            self.have = 0;
            let [number, length] = words(self.header);
            if length as usize > LONGEST {
                return Err(FrameTooLong(length));
            }
            self.connection = Connection::of(number);
            self.left = length as usize;
        }
        if input.is_empty() {
            return Ok(None);
        }
        let (bytes, rest) = input.split_at(input.len().min(self.left));
        self.left -= bytes.len();
        *input = rest;
        Ok(Some(Part { connection: self.connection, bytes }))
    }
}

fn words([a, b, c, d, e, f, g, h]: [u8; HEADER]) -> [u32; 2] {
    [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])]
}

/// The header of a frame.
#[must_use]
pub fn header(connection: Connection, length: u32) -> [u8; HEADER] {
    let ([a, b, c, d], [e, f, g, h]) = ((connection as u32).to_be_bytes(), length.to_be_bytes());
    [a, b, c, d, e, f, g, h]
}
