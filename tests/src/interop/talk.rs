//! One short conversation between two applications, and the verdict of everybody who can hear it.

use super::{Tls, Versions};
use crate::judge;
use crate::names;
use crate::script::{Connection, Step};
use crate::status::Access;
use crate::tap::Tap;

/// A question and an answer that occur nowhere else, and the end in order. Where it matters, the side
/// of the foreign program is the one that ends: nginx never answers the peer's close_notify.
pub struct Talk {
    pub question: String,
    pub answer: String,
    ended_by: Side,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

impl Talk {
    pub fn ended_by(side: Side) -> Self {
        // Of different lengths, so that nobody can take one count for the other.
        let (question, answer) = (names::marker(), format!("{} is the answer", names::marker()));
        Self { question, answer, ended_by: side }
    }

    pub fn client(&self) -> Vec<Step> {
        let (say, hear) = (Step::Send(self.question.clone()), Step::Receive(self.answer.len()));
        self.steps(Side::Client, [say, hear])
    }

    pub fn server(&self) -> Vec<Step> {
        let (hear, say) = (Step::Receive(self.question.len()), Step::Send(self.answer.clone()));
        self.steps(Side::Server, [hear, say])
    }

    fn steps(&self, side: Side, steps: [Step; 2]) -> Vec<Step> {
        let end = (side == self.ended_by).then_some(Step::EndSending);
        steps.into_iter().chain(end).chain([Step::ReceiveToEnd]).collect()
    }

    /// The client has heard the answer and then the end, in order.
    #[track_caller]
    pub fn assert_answered(&self, client: &Connection) {
        assert_eq!(client.ended_by(), None, "{client:?}");
        assert_eq!(client.steps[1].text, self.answer, "{client:?}");
        assert_eq!(client.last().bytes, 0, "{client:?}");
    }

    /// The server has heard the question and then the end, in order.
    #[track_caller]
    pub fn assert_asked(&self, server: &Connection) {
        assert_eq!(server.ended_by(), None, "{server:?}");
        assert_eq!(server.steps[0].text, self.question, "{server:?}");
        assert_eq!(server.last().bytes, 0, "{server:?}");
    }

    /// The wire has TLS of this version alone.
    #[track_caller]
    pub fn assert_tls(&self, tap: &Tap, port: u16, versions: Versions) {
        for text in [&self.question, &self.answer] {
            judge::assert_tls(tap, port, text, versions.number());
        }
    }

    /// Our access log knows the peer, what the other side's TLS made of it, and every byte.
    #[track_caller]
    pub fn assert_logged(&self, line: &Access, peer_id: &str, tls: &Tls) {
        assert_eq!((&*line.outcome, &*line.reason), ("ok", ""), "{line:?}");
        let protection = if tls.trust.is_some() { "mtls" } else { "tls" };
        assert_eq!((&*line.peer_id, &*line.protection), (peer_id, protection), "{line:?}");
        assert_eq!(line.tls_version, tls.versions.name(), "{line:?}");
        let (asked, answered) = (self.question.len() as u64, self.answer.len() as u64);
        let moved = match &*line.direction {
            "outbound" => (asked, answered),
            _ => (answered, asked),
        };
        assert_eq!((line.sent, line.received), moved, "{line:?}");
    }
}
