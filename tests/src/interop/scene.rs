//! The usual pair of workloads, each with a foreign program on the other node in place of the other
//! workload and its agent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::{Route, Tls, Versions};
use crate::ca::{Ca, Leaf, PemFiles};
use crate::config::{Config, spiffe_id};
use crate::names;
use crate::pair::{Pair, Setting};
use crate::place::Place;
use crate::rogue;
use crate::status::Access;
use crate::world::{Family, TRUST_DOMAIN};

/// Where foreign programs listen with TLS on node B. No workload lives there.
pub const TLS_PORT: u16 = 9443;

/// The same, as configurations write it.
pub const SERVICE: [&str; 2] = ["10.0.2.1:9443", "[fd00::2:1]:9443"];

/// The plaintext side of a foreign program, on loopback.
pub const PLAIN_PORT: u16 = 7000;

/// The usual scene, and room for foreign programs on both nodes, in no workload.
pub struct Scene {
    pub pair: Pair,
    pub place_a: Place,
    pub place_b: Place,
}

/// A foreign program that must get nothing, and words of the reason in our access log.
pub struct Refusal {
    pub name: &'static str,
    pub tls: Tls,
    pub reason: &'static str,
}

impl Scene {
    pub fn new() -> Self {
        Self::with(|_, _| {})
    }

    /// With changes to the configurations of A and B.
    #[track_caller]
    pub fn with(change: impl FnOnce(&mut Config, &mut Config)) -> Self {
        let pair = Pair::with(Setting::Host, change);
        let (place_a, place_b) = (pair.world.a.host("foreign"), pair.world.b.host("foreign"));
        Self { pair, place_a, place_b }
    }

    /// A directory of the world's that nobody else uses.
    pub fn dir(&self) -> PathBuf {
        let dir = self.pair.world.dir.path().join(names::unique());
        std::fs::create_dir(&dir).expect("a directory");
        dir
    }

    /// For a terminating program on node B.
    pub fn server_route(&self, family: Family) -> Route {
        let listen = self.pair.world.b.addresses.at(family, TLS_PORT);
        Route::new(&self.place_b, listen, loopback(family, PLAIN_PORT), &self.dir())
    }

    /// For an originating program on node A that calls the server workload.
    pub fn client_route(&self, family: Family) -> Route {
        let listen = loopback(family, PLAIN_PORT);
        Route::new(&self.place_a, listen, self.pair.target(family), &self.dir())
    }

    /// Mutual TLS with an SVID of the workload `name`, as SPIRE's files would give it to a program.
    pub fn svid(&self, name: &str) -> Tls {
        let leaf = self.pair.world.ca().issue(&spiffe_id(name));
        Tls::mutual(self.write(&leaf), self.write_ca(self.pair.world.ca()))
    }

    /// The same, but with trust in somebody else's authority for the trust domain.
    pub fn misled(&self, name: &str) -> Tls {
        self.svid(name).trusting(self.write_ca(&Ca::stranger(TRUST_DOMAIN)))
    }

    pub fn write(&self, leaf: &Leaf) -> PemFiles {
        leaf.write(&self.dir())
    }

    pub fn write_ca(&self, ca: &Ca) -> PathBuf {
        let file = self.dir().join("ca.crt");
        ca.write_certificate(&file);
        file
    }

    /// What no program in the place of `name` may show, with the rule that each breaks.
    pub fn refusals(&self, name: &str) -> Vec<Refusal> {
        let good = self.svid(name);
        let mut refusals: Vec<Refusal> = rogue::credentials(self.pair.world.ca(), &spiffe_id(name))
            .into_iter()
            .map(|credential| {
                let own = credential.leaf.map(|leaf| self.write(&leaf));
                let tls = Tls { own, ..good.clone() };
                Refusal { name: credential.name, tls, reason: credential.rule }
            })
            .collect();
        let tls = good.versions(Versions::Tls12);
        refusals.push(Refusal { name: "TLS 1.2", tls, reason: "version" });
        refusals
    }

    /// The end of the flow that left node A from `source`.
    #[track_caller]
    pub fn access_at_a(&self, source: SocketAddr) -> Access {
        let source = source.to_string();
        self.pair.agent_a.wait_for_access("the flow at A", |line| line.source == source)
    }

    /// The end of the flow that came to node B from `source`.
    #[track_caller]
    pub fn access_at_b(&self, source: SocketAddr) -> Access {
        let source = source.to_string();
        self.pair.agent_b.wait_for_access("the flow at B", |line| line.source == source)
    }
}

impl Refusal {
    /// Our access log names the rule.
    #[track_caller]
    pub fn assert_logged(&self, line: &Access) {
        assert_ne!(line.outcome, "ok", "{}: {line:?}", self.name);
        let reason = line.reason.to_lowercase();
        assert!(reason.contains(self.reason), "{}: no {:?} in {line:?}", self.name, self.reason);
    }
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

pub fn loopback(family: Family, port: u16) -> SocketAddr {
    let address: IpAddr = match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(address, port)
}
