//! A kind of session.

use std::net::TcpStream as StdTcpStream;
use std::sync::Arc;

use super::Session;
use super::buffers::Account;
use super::records::RecordStream;
use super::saved::{Encoded, NotRestored};
use crate::flow::Role;

/// A kind of session.
#[derive(Debug)]
pub struct Mode {
    /// Unique, and the same in every version of the agent: saved states bear it.
    pub name: &'static str,
    /// The ALPN protocol that leads to it (RFC 7301); `None` where the peer is not known to be an agent.
    pub alpn: Option<&'static [u8]>,
    /// Makes a session from a handshake of ours; `None` if none leads here.
    pub start: Option<Start>,
    /// Goes on with a session that was saved in another process; `None` where none can be.
    pub restore: Option<Restore>,
}

type Start = fn(RecordStream, Role) -> Box<dyn Session>;
type Restore = fn(&Encoded, StdTcpStream, Arc<Account>) -> Result<Box<dyn Session>, NotRestored>;

impl Mode {
    /// The peer says that it is an agent.
    #[must_use]
    pub fn is_of_agents(&self) -> bool {
        self.alpn.is_some()
    }
}
