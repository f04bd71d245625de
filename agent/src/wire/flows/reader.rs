//! From bytes to frames, in the only order in which they may come.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::frame::{
    Control, ENDPOINT, HEADER, Kind, LONGEST_CONTROL, LONGEST_DATA, OPEN_PAYLOAD, endpoint,
};
use super::{GoAwayCode, RefusalCode, ResetCode};
use crate::wire::Endpoints;
use crate::wire::saved::NotRestored;

/// Reads what one side of a session sends. Bytes may come in any pieces; payload is never copied.
#[derive(Debug)]
pub struct Reader {
    expects: Expects,
    /// What it expects when no flow is open.
    between: Expects,
    /// The other side has been sent our FIN, and its own is still to come.
    sent_fin: bool,
    /// The last frame was a FIN.
    follows_fin: bool,
    /// Header and payload of a control frame, as far as they are there; of a DATA frame the header alone.
    partial: [u8; LONGEST_CONTROL],
    have: usize,
    /// Bytes of a DATA frame's payload that are still to come.
    data: usize,
}

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Expects {
    /// From a client between flows.
    Open,
    /// From a server between flows: nothing but a GO_AWAY.
    Nothing,
    /// From a server after an OPEN.
    Answer,
    /// From a server that has accepted a flow, but may not have reached its application yet.
    First,
    /// From either, within a flow.
    Data,
    /// From either, behind its FIN and before ours: nothing but a RESET.
    OurFin,
    /// After something that ends the session.
    End,
}

/// A [`Reader`] for another process.
#[derive(Serialize, Deserialize)]
pub struct SavedReader {
    expects: Expects,
    sent_fin: bool,
    follows_fin: bool,
    partial: Vec<u8>,
    data: u32,
}

/// Something that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Payload, at this place of the bytes that were read.
    Data(Range<usize>),
    Control(Control),
    /// Nothing as a whole yet.
    More,
}

/// Why a session is over: the peer does not keep to the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of the unknown type {0}")]
    UnknownKind(u8),
    #[error("a frame of type {kind:?} with {length} bytes")]
    Length { kind: Kind, length: usize },
    #[error("a frame of type {0:?} that makes no sense here")]
    OutOfOrder(Kind),
    #[error("an address that nobody can have")]
    Address,
}

impl Reader {
    /// Of what a client sends.
    #[must_use]
    pub fn of_client() -> Self {
        Self::new(Expects::Open)
    }

    /// Of what a server sends.
    #[must_use]
    pub fn of_server() -> Self {
        Self::new(Expects::Nothing)
    }

    fn new(between: Expects) -> Self {
        Self {
            expects: between,
            between,
            sent_fin: false,
            follows_fin: false,
            partial: [0; LONGEST_CONTROL],
            have: 0,
            data: 0,
        }
    }

    #[must_use]
    pub fn save(&self) -> SavedReader {
        SavedReader {
            expects: self.expects,
            sent_fin: self.sent_fin,
            follows_fin: self.follows_fin,
            partial: self.partial[..self.have].to_vec(),
            // No longer than a frame.
            data: self.data as u32,
        }
    }

    /// Goes on with what a client or a server sends.
    ///
    /// # Errors
    /// If no reader can have this state.
    pub fn restore(saved: &SavedReader, is_of_client: bool) -> Result<Self, NotRestored> {
        let wrong = || NotRestored::Contradiction("frames that cannot have come so");
        let mut reader = if is_of_client { Self::of_client() } else { Self::of_server() };
        let (of_client, of_server) = (Expects::Open, [Expects::Nothing, Expects::Answer]);
        let is_of_other_side = match is_of_client {
            true => of_server.contains(&saved.expects) || saved.expects == Expects::First,
            false => saved.expects == of_client,
        };
        let data = saved.data as usize;
        let is_amid_data = data > 0;
        if is_of_other_side
            || data > LONGEST_DATA
            || is_amid_data && (saved.expects != Expects::Data || !saved.partial.is_empty())
        {
            return Err(wrong());
        }
        reader
            .partial
            .get_mut(..saved.partial.len())
            .ok_or_else(wrong)?
            .copy_from_slice(&saved.partial);
        reader.have = saved.partial.len();
        reader.expects = saved.expects;
        reader.sent_fin = saved.sent_fin;
        reader.follows_fin = saved.follows_fin;
        reader.data = data;
        // What has come of a frame must be one that may come, and not more than it is long.
        let wanted = reader.wanted().map_err(|_| wrong())?;
        if reader.have > wanted { Err(wrong()) } else { Ok(reader) }
    }

    /// The other side, a server, has been sent an OPEN.
    pub fn expect_answer(&mut self) {
        debug_assert_eq!(self.expects, Expects::Nothing);
        self.expects = Expects::Answer;
    }

    /// The other side has been sent our FIN, all of it: once its own has come, the flow is over.
    pub fn sent_fin(&mut self) {
        if self.expects == Expects::OurFin {
            self.expects = self.between;
        } else {
            self.sent_fin = true;
        }
    }

    /// True if neither a flow nor a frame has begun.
    #[must_use]
    pub fn is_between_flows(&self) -> bool {
        self.expects == self.between && self.have == 0
    }

    /// Reads the next item from the start of `bytes`, and returns how many of them it took.
    ///
    /// # Errors
    /// Final ones: nothing more may be read.
    pub fn next(&mut self, bytes: &[u8]) -> Result<(usize, Item), FrameError> {
        let mut used = 0;
        loop {
            if self.data > 0 {
                let length = self.data.min(bytes.len() - used);
                if length == 0 {
                    return Ok((used, Item::More));
                }
                self.data -= length;
                return Ok((used + length, Item::Data(used..used + length)));
            }
            let wanted = self.wanted()?;
            if self.have == wanted {
                match self.complete()? {
                    Some(control) => return Ok((used, Item::Control(control))),
                    None => continue,
                }
            }
            let taken = (wanted - self.have).min(bytes.len() - used);
            if taken == 0 {
                return Ok((used, Item::More));
            }
            self.partial[self.have..self.have + taken].copy_from_slice(&bytes[used..used + taken]);
            self.have += taken;
            used += taken;
        }
    }

    /// How many bytes of header and control payload the frame has, as far as that is known.
    // Twice for each small frame.
    #[inline(always)]
    fn wanted(&self) -> Result<usize, FrameError> {
        if self.have < HEADER {
            return Ok(HEADER);
        }
        let (kind, length) = self.header()?;
        self.after(kind)?;
        Ok(if kind == Kind::Data { HEADER } else { HEADER + length })
    }

    /// Type and length; an error as soon as either is wrong.
    fn header(&self) -> Result<(Kind, usize), FrameError> {
        let [kind, high, middle, low, ..] = self.partial;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        let (kind, fits) = match kind {
            1 => (Kind::Open, length == OPEN_PAYLOAD),
            2 => (Kind::Accepted, length == 0),
            3 => (Kind::Refused, length == 1),
            4 => (Kind::Data, (1..=LONGEST_DATA).contains(&length)),
            5 => (Kind::Fin, length == 0),
            6 => (Kind::Reset, length == 1),
            7 => (Kind::GoAway, length == 1),
            unknown => return Err(FrameError::UnknownKind(unknown)),
        };
        if !fits {
            return Err(FrameError::Length { kind, length });
        }
        Ok((kind, length))
    }

    /// A frame is there as a whole; of DATA, the header.
    fn complete(&mut self) -> Result<Option<Control>, FrameError> {
        let (kind, length) = self.header()?;
        self.expects = self.after(kind)?;
        self.follows_fin = kind == Kind::Fin;
        // It takes both to end a flow; the next one begins without.
        self.sent_fin &= kind != Kind::Fin;
        self.have = 0;
        let payload = &self.partial[HEADER..HEADER + length.min(OPEN_PAYLOAD)];
        Ok(Some(match kind {
            Kind::Data => {
                self.data = length;
                return Ok(None);
            }
            Kind::Open => {
                let (source, destination) = payload.split_at(ENDPOINT);
                let read = |bytes| endpoint(bytes).ok_or(FrameError::Address);
                Control::Open(Endpoints { source: read(source)?, destination: read(destination)? })
            }
            Kind::Accepted => Control::Accepted,
            Kind::Fin => Control::Fin,
            Kind::Refused => Control::Refused(RefusalCode(payload[0])),
            Kind::Reset => Control::Reset(ResetCode(payload[0])),
            Kind::GoAway => Control::GoAway(GoAwayCode(payload[0])),
        }))
    }

    /// What may come after a frame of this type, if it may come at all.
    fn after(&self, kind: Kind) -> Result<Expects, FrameError> {
        Ok(match (self.expects, kind) {
            (Expects::Answer, Kind::Accepted) => Expects::First,
            (Expects::Answer | Expects::First, Kind::Refused) => Expects::End,
            (Expects::Open, Kind::Open) => Expects::Data,
            (Expects::First | Expects::Data, Kind::Data) => Expects::Data,
            (Expects::First | Expects::Data, Kind::Fin) if self.sent_fin => self.between,
            (Expects::First | Expects::Data, Kind::Fin) => Expects::OurFin,
            (Expects::First | Expects::Data, Kind::Reset) => Expects::End,
            // It may have crossed our FIN, and even the OPEN behind that.
            (_, Kind::Reset) if self.follows_fin => Expects::End,
            (Expects::Answer | Expects::Nothing, Kind::GoAway) => Expects::End,
            _ => return Err(FrameError::OutOfOrder(kind)),
        })
    }
}
