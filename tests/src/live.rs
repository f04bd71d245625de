//! Flows that live while something happens.

use std::net::SocketAddr;

use crate::pair::{Pair, any, client, server};
use crate::place::Place;
use crate::probe::Probe;
use crate::script::{Connection, Event, Step};
use crate::wait::GENEROUS;
use crate::world::Family;

/// A client that talks with an echo server all the time.
pub struct LiveFlow(Probe);

impl LiveFlow {
    /// Returns when the first words have come back.
    #[track_caller]
    pub fn start(place: &Place, to: SocketAddr) -> Self {
        let steps = [Step::Converse, Step::EndSending, Step::ReceiveToEnd];
        let mut flow = Self(Probe::start(place, &client(to, &steps)));
        expect_move(&mut flow.0);
        flow
    }

    /// Words that were not said before this was called have come back.
    #[track_caller]
    pub fn assert_alive(&mut self) {
        assert_moving(&mut self.0);
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
}

/// A transfer in both directions at once that goes on until it is told to end.
pub struct Transfer {
    client: Probe,
    server: Probe,
}

impl Transfer {
    /// Between the usual workloads, on a port of its own, which must be among those of the server's.
    #[track_caller]
    pub fn start(pair: &Pair, port: u16) -> Self {
        let family = Family::V4;
        let listen = server(any(family, port), &[Step::Stream { seed: 1 }]);
        let server = Probe::start(&pair.server, &listen);
        let to = pair.server_addresses.at(family, port);
        let client = Probe::start(&pair.client, &client(to, &[Step::Stream { seed: 2 }]));
        let mut transfer = Self { client, server };
        transfer.assert_moving();
        transfer
    }

    /// Bytes have arrived on both sides that were not there before this was called.
    #[track_caller]
    pub fn assert_moving(&mut self) {
        assert_moving(&mut self.client);
        assert_moving(&mut self.server);
    }

    /// Ends both directions; what was received must be what was sent. Returns how much that was.
    #[track_caller]
    pub fn finish(mut self) -> [u64; 2] {
        self.client.go();
        self.server.go();
        let (client, server) = (self.client.connection(), self.server.connection());
        assert_eq!((client.ended_by(), server.ended_by()), (None, None), "{client:?} {server:?}");
        let (client, server) = (client.last(), server.last());
        assert_eq!(client.sent_digest, server.received_digest, "{client:?} {server:?}");
        assert_eq!(server.sent_digest, client.received_digest, "{client:?} {server:?}");
        [client.bytes, server.bytes]
    }
}

/// Something has moved since this was called.
#[track_caller]
fn assert_moving(probe: &mut Probe) {
    for event in probe.events_so_far() {
        assert!(!matches!(event, Event::Connection(_)), "the flow has ended: {event:?}");
    }
    // The first may have been under way.
    expect_move(probe);
    expect_move(probe);
}

#[track_caller]
fn expect_move(probe: &mut Probe) {
    let moved: Result<(), Connection> =
        probe.expect("something to move", GENEROUS, |event| match event {
            Event::Moved(_) => Some(Ok(())),
            Event::Connection(connection) => Some(Err(connection.clone())),
            _ => None,
        });
    assert!(moved.is_ok(), "the flow has ended: {moved:?}");
}
