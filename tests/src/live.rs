//! Flows that live while something happens.

use std::net::SocketAddr;

use crate::pair::client;
use crate::place::Place;
use crate::probe::Probe;
use crate::script::{Connection, Event, Step};
use crate::wait::GENEROUS;

/// A client that talks with an echo server all the time.
pub struct LiveFlow(Probe);

impl LiveFlow {
    /// Returns when the first words have come back.
    #[track_caller]
    pub fn start(place: &Place, to: SocketAddr) -> Self {
        let steps = [Step::Converse, Step::EndSending, Step::ReceiveToEnd];
        let mut flow = Self(Probe::start(place, &client(to, &steps)));
        flow.expect_move();
        flow
    }

    /// Words that were not said before this was called have come back.
    #[track_caller]
    pub fn assert_alive(&mut self) {
        self.0.events_so_far();
        // The first may have been under way.
        self.expect_move();
        self.expect_move();
    }

    /// Ends the conversation, which must have gone well.
    #[track_caller]
    pub fn finish(mut self) {
        self.assert_alive();
        self.0.go();
        let seen = self.0.connection();
        assert_eq!(seen.ended_by(), None, "{seen:?}");
    }

    /// Waits for the end of a conversation that nobody has ended in order.
    #[track_caller]
    pub fn wait_reset(mut self) {
        let seen = self.0.connection();
        assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
    }

    #[track_caller]
    fn expect_move(&mut self) {
        let moved: Result<(), Connection> =
            self.0.expect("a conversation", GENEROUS, |event| match event {
                Event::Moved(_) => Some(Ok(())),
                Event::Connection(connection) => Some(Err(connection.clone())),
                _ => None,
            });
        assert!(moved.is_ok(), "the conversation has ended: {moved:?}");
    }
}
