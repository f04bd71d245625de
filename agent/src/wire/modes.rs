//! Which kind of session a handshake leads to.

use std::net::TcpStream as StdTcpStream;
use std::sync::Arc;

use super::buffers::Account;
use super::mode::Mode;
use super::records::RecordStream;
use super::saved::{NotRestored, SavedWire};
use super::{Session, bytes, flows, library, plain};
use crate::flow::Role;

/// All kinds of sessions. A handshake of ours leads to the first whose protocol was agreed on, in the order in which agents
/// offer them; if none was, to the one that takes what no agent has agreed on.
pub static MODES: [&Mode; 5] =
    [&flows::MODE, &bytes::AGENTS, &bytes::FOREIGN, &library::MODE, &plain::MODE];

/// What agents offer, in order of preference.
pub fn agent_protocols() -> impl Iterator<Item = &'static [u8]> {
    MODES.iter().filter_map(|mode| mode.alpn)
}

/// The session that a handshake leads to in which this protocol was agreed on.
pub fn start(alpn: Option<&[u8]>, records: RecordStream, role: Role) -> Box<dyn Session> {
    let agreed = MODES.iter().filter(|mode| mode.alpn == alpn).find_map(|mode| mode.start);
    agreed.unwrap_or(bytes::start_foreign)(records, role)
}

/// Goes on with a session that was saved in another process, on the runtime of the calling thread.
///
/// # Errors
/// If there is no such kind of session, or if the state is not one that such a session can have.
pub fn restore(
    saved: &SavedWire,
    tcp: StdTcpStream,
    account: Arc<Account>,
) -> Result<Box<dyn Session>, NotRestored> {
    let mode = MODES.iter().find(|mode| mode.name == saved.mode);
    let restore = mode.and_then(|mode| mode.restore);
    restore.ok_or_else(|| NotRestored::Mode(saved.mode.clone()))?(&saved.state, tcp, account)
}
