//! What must hold whichever program it is that forwards between plaintext and TLS.

use super::scene::{Scene, TLS_PORT};
use super::talk::{Side, Talk};
use super::{Program, Route, Tls};
use crate::config::spiffe_id;
use crate::dissect::tls;
use crate::pair::{self, PORT};
use crate::probe::{self, Probe};
use crate::script::{Connection, Step};
use crate::status::Access;
use crate::tap::Tap;
use crate::world::Family;

/// Starts a terminating or an originating program.
pub type Start<'s> = &'s dyn Fn(&Route, &Tls) -> Program;

/// What was to be learnt of a conversation that was as it should be.
pub struct Heard {
    pub line: Access,
    /// What the client sent first.
    pub hello: Vec<u8>,
}

/// What clients say that must not be heard.
const PLEA: &str = "let me in, please";

impl Scene {
    /// [`Self::client_workload_is_served_by`] a program with the SVID of `web`.
    #[track_caller]
    pub fn client_workload_is_served(&self, family: Family, server: Start<'_>) {
        let route = self.server_route(family);
        self.client_workload_is_served_by(&route, server, &self.svid("web"), &spiffe_id("web"));
    }

    /// [`Self::server_workload_is_reached_by`] a program with the SVID of `client`.
    #[track_caller]
    pub fn server_workload_is_reached(&self, family: Family, client: Start<'_>) {
        let (tls, peer_id) = (self.svid("client"), spiffe_id("client"));
        self.server_workload_is_reached_by(family, client, &tls, &peer_id);
    }

    /// The client workload talks plaintext to an application behind `server`, which our access log
    /// calls `peer_id`; the wire has none of it.
    #[track_caller]
    pub fn client_workload_is_served_by(
        &self,
        route: &Route,
        server: Start<'_>,
        tls: &Tls,
        peer_id: &str,
    ) -> Heard {
        let talk = Talk::ended_by(Side::Server);
        let mut application =
            Probe::start(&self.place_b, &pair::server(route.forward, &talk.server()));
        let _server = server(route, tls);
        let tap = self.pair.world.tap();
        let seen = self.pair.connect(route.listen, &talk.client());
        talk.assert_answered(&seen);
        talk.assert_asked(&application.connection());
        self.heard(talk, tap, &seen, tls, peer_id)
    }

    /// The same with a server that is itself the application.
    #[track_caller]
    pub fn client_workload_talks_with(
        &self,
        route: &Route,
        server: Start<'_>,
        tls: &Tls,
        peer_id: &str,
    ) -> Heard {
        let talk = Talk::ended_by(Side::Client);
        let mut server = server(route, tls);
        let tap = self.pair.world.tap();
        let job = pair::client(route.listen, &talk.client());
        let mut client = Probe::start(&self.pair.client, &job);
        server.wait_for_log(&talk.question);
        server.say(&talk.answer);
        let seen = client.connection();
        talk.assert_answered(&seen);
        self.heard(talk, tap, &seen, tls, peer_id)
    }

    #[track_caller]
    fn heard(&self, talk: Talk, tap: Tap, seen: &Connection, tls: &Tls, peer_id: &str) -> Heard {
        talk.assert_tls(&tap, TLS_PORT, tls.versions);
        let line = self.access_at_a(seen.local.expect("the client's address"));
        talk.assert_logged(&line, peer_id, tls);
        Heard { line, hello: hello(&tap, TLS_PORT) }
    }

    /// An application talks plaintext to `client`, which our access log calls `peer_id`, and so
    /// reaches the server workload; the wire has none of it.
    #[track_caller]
    pub fn server_workload_is_reached_by(
        &self,
        family: Family,
        client: Start<'_>,
        tls: &Tls,
        peer_id: &str,
    ) -> Heard {
        let route = self.client_route(family);
        let talk = Talk::ended_by(Side::Client);
        let mut web = self.pair.serve(family, &talk.server());
        let _client = client(&route, tls);
        let tap = self.pair.world.tap();

        let seen = probe::run(&self.place_a, &pair::client(route.listen, &talk.client()));
        talk.assert_answered(&seen);
        let served = web.connection();
        talk.assert_asked(&served);
        talk.assert_tls(&tap, PORT, tls.versions);
        let hello = hello(&tap, PORT);
        let offered = tls::alpn_offered(&hello).unwrap_or_default();
        assert_eq!(offered, tls.alpn, "a standard client, not an agent");
        let source = tap.attempts(PORT)[0];
        assert_eq!(served.accepted, Some(source), "the server sees the address of the wire");
        let line = self.access_at_b(source);
        talk.assert_logged(&line, peer_id, tls);
        Heard { line, hello }
    }

    /// Much data in both directions at once between the client workload and an echo behind `server`.
    #[track_caller]
    pub fn client_workload_hears_its_echo(&self, family: Family, server: Start<'_>) {
        let route = self.server_route(family);
        let _echo = Probe::start(&self.place_b, &pair::server(route.forward, &[Step::Echo]));
        let _server = server(&route, &self.svid("web"));
        assert_echoed(&self.pair.connect(route.listen, &[MUCH]));
    }

    /// The same between an application in front of `client` and an echo in the server workload.
    #[track_caller]
    pub fn server_workload_echoes(&self, family: Family, client: Start<'_>) {
        let route = self.client_route(family);
        let _echo = self.pair.serve(family, &[Step::Echo]);
        let _client = client(&route, &self.svid("client"));
        assert_echoed(&probe::run(&self.place_a, &pair::client(route.listen, &[MUCH])));
    }

    /// The client workload refuses `server` with any but the right certificate, and says why.
    #[track_caller]
    pub fn wrong_servers_are_refused(&self, family: Family, server: Start<'_>) {
        for refusal in self.refusals("web") {
            // There is no TLS server without a certificate.
            if refusal.tls.own.is_some() {
                let steps = pair::say(PLEA);
                let line = self.client_workload_gets_nothing(family, &refusal.tls, server, &steps);
                refusal.assert_logged(&line);
            }
        }
    }

    /// The server workload refuses `client` with any but the right certificate, and says why.
    #[track_caller]
    pub fn wrong_clients_are_refused(&self, family: Family, client: Start<'_>) {
        for refusal in self.refusals("client") {
            let line = self.server_workload_stays_unreached(family, &refusal.tls, client);
            refusal.assert_logged(&line);
        }
    }

    /// `server` refuses the client workload, and our log has its alert for a reason: whether the client
    /// waits or speaks, for in TLS 1.3 it may speak before the server has looked at its certificate.
    #[track_caller]
    pub fn alert_of_server_is_logged(
        &self,
        family: Family,
        tls: &Tls,
        server: Start<'_>,
        alert: &str,
    ) {
        for steps in [vec![Step::ReceiveToEnd], pair::say(PLEA)] {
            let line = self.client_workload_gets_nothing(family, tls, server, &steps);
            assert_eq!(line.outcome, "reset", "{line:?}");
            assert!(line.reason.contains(&format!("TLS alert {alert}: ")), "{line:?}");
        }
    }

    /// `client` refuses the server workload, and our log has its alert for a reason.
    #[track_caller]
    pub fn alert_of_client_is_logged(
        &self,
        family: Family,
        tls: &Tls,
        client: Start<'_>,
        alert: &str,
    ) {
        let line = self.server_workload_stays_unreached(family, tls, client);
        assert_eq!(line.outcome, "denied", "{line:?}");
        assert!(line.reason.contains(&format!("TLS alert {alert}: ")), "{line:?}");
    }

    /// The client workload plays `steps`, but nothing gets to an application behind `server` or
    /// comes back. Returns our access log's line.
    #[track_caller]
    pub fn client_workload_gets_nothing(
        &self,
        family: Family,
        tls: &Tls,
        server: Start<'_>,
        steps: &[Step],
    ) -> Access {
        let (pair, route) = (&self.pair, self.server_route(family));
        let mut echo = Probe::start(&self.place_b, &pair::server(route.forward, &[Step::Echo]));
        let server = server(&route, tls);
        let tap = pair.world.tap();

        let seen = pair.connect(route.listen, steps);
        assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
        assert_eq!(seen.last().text, "", "{seen:?}");
        assert_eq!(tap.sightings(PLEA), 0, "plaintext on the wire");
        let line = self.access_at_a(seen.local.expect("the client's address"));
        assert_eq!(line.received, 0, "{line:?}");
        // A proxy can have dialled its application before the handshake.
        drop(server);
        for _ in 0..echo.pending() {
            assert_eq!(echo.connection().last().bytes, 0, "{line:?}");
        }
        line
    }

    /// `client` gets nothing through to the server workload, nor anything from it. Returns our
    /// access log's line.
    #[track_caller]
    pub fn server_workload_stays_unreached(
        &self,
        family: Family,
        tls: &Tls,
        client: Start<'_>,
    ) -> Access {
        let (pair, route) = (&self.pair, self.client_route(family));
        let mut web = pair.serve(family, &[Step::Send("a banner".into()), Step::Echo]);
        let _client = client(&route, tls);
        let tap = pair.world.tap();

        let job = pair::client(route.listen, &pair::say(PLEA));
        let seen = probe::run(&self.place_a, &job);
        assert_eq!(seen.last().text, "", "{seen:?}");
        let line = self.access_at_b(tap.attempts(PORT)[0]);
        assert_eq!(web.pending(), 0, "reached the application: {line:?}");
        line
    }
}

/// What the client of the only connection to `port` sent.
fn hello(tap: &Tap, port: u16) -> Vec<u8> {
    tap.streams_to(port).swap_remove(0).bytes
}

/// More than all buffers on the way hold. Who sends it ends first: when both ends come while bytes wait
/// in one of its buffers, Envoy 1.40 drops them, without TLS too.
const MUCH: Step = Step::Exchange { bytes: 24 * 1024 * 1024, seed: 1 };

#[track_caller]
fn assert_echoed(client: &Connection) {
    assert_eq!(client.ended_by(), None, "{client:?}");
    assert_eq!(client.last().sent_digest, client.last().received_digest, "{client:?}");
}
