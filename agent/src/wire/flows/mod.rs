//! Protocol `sheath/1`: how one TLS session between agents carries flow after flow.
//!
//! One flow at a time: the client opens it, the server accepts or refuses it, data goes both ways, each direction
//! ends with a FIN. Then the next may be opened. Anything else ends the session. `frame` and [`Reader`] do no I/O;
//! [`Flows`] is the session.

mod code;
mod frame;
mod reader;
mod session;

pub use code::{GoAwayCode, RefusalCode, ResetCode};
pub use frame::{Control, Encoded, HEADER, Kind, LONGEST_DATA, data_header};
pub use reader::{FrameError, Item, Reader, SavedReader};
pub use session::{Flows, MODE};

#[cfg(test)]
mod tests;
