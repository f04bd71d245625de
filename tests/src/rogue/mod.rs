//! TLS peers that are no agents: honest strangers, and dishonest ones. They believe anything
//! about the other side, so whatever is refused was refused by the agent.

mod client;
pub mod frames;
mod server;
mod trust;

use std::net::TcpStream;
use std::time::Duration;

use nix::errno::Errno;

pub use client::{Answer, Dial};
pub use server::{Face, RogueServer, Session};

use crate::ca::Leaf;

/// How a rogue ends what it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// TLS close_notify, then FIN.
    CloseNotify,
    /// FIN alone: to TLS, a truncation.
    Truncate,
    /// The first, but not before as much has come back as was sent: there are servers that answer nobody who
    /// has ended. A client's alone.
    AfterEcho,
}

/// The certificates one is asked about in [`credentials`].
pub struct Credential {
    pub name: &'static str,
    /// `None`: no certificate at all.
    pub leaf: Option<Leaf>,
    /// Words, in lower case, by which an agent's reason names the rule that it breaks.
    pub rule: &'static str,
}

/// Every kind of credential that must get nothing through to someone who expects `expected`.
pub fn credentials(ca: &crate::ca::Ca, expected: &str) -> Vec<Credential> {
    use crate::ca::Ca;
    let other_domain = "spiffe://elsewhere.example/ns/demo/sa/web";
    let own_domain = crate::world::TRUST_DOMAIN;
    vec![
        Credential { name: "no certificate", leaf: None, rule: "no certificate" },
        Credential {
            name: "another identity",
            leaf: Some(ca.issue(&crate::config::spiffe_id("somebody-else"))),
            rule: "not expected",
        },
        Credential {
            name: "another trust domain",
            leaf: Some(Ca::stranger("elsewhere.example").issue(other_domain)),
            rule: "trust domain",
        },
        Credential {
            name: "the right identity from an unknown authority",
            leaf: Some(Ca::stranger(own_domain).issue(expected)),
            rule: "does not chain",
        },
        Credential { name: "expired", leaf: Some(ca.issue_expired(expected)), rule: "expired" },
    ]
}

const PATIENCE: Duration = Duration::from_secs(20);

fn set_patience(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).expect("SO_RCVTIMEO");
    stream.set_write_timeout(Some(PATIENCE)).expect("SO_SNDTIMEO");
}

/// The text of an error with the errno's name, as access to `kind()` alone hides TLS alerts.
fn describe(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(raw) => format!("{:?}", Errno::from_raw(raw)),
        None => error.to_string(),
    }
}
