//! One side of a pair of proxies.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use sheath_tests::ca::{Ca, Leaf, PemFiles, San};
use sheath_tests::config::spiffe_id;
use sheath_tests::interop::Program;
use sheath_tests::place::Place;
use sheath_tests::world::{Family, TRUST_DOMAIN, World};

use crate::play::Way;
use crate::services::{PORTS, wire_port};

/// How many threads a proxy works with: as many as the agent, which has one for each processor.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Connections that a proxy must be able to carry, both of its sides counted.
pub const CONNECTIONS: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

impl Side {
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    /// The names in this side's certificate: what SPIFFE wants, and what older programs can check.
    pub fn names(self) -> [San; 2] {
        let name = self.name();
        [San::Uri(spiffe_id(name)), San::Dns(format!("{name}.{TRUST_DOMAIN}"))]
    }
}

/// A P-256 certificate for each side, from one authority, valid longer than any run.
pub struct Credentials {
    leaves: [Leaf; 2],
    files: [PemFiles; 2],
    authority: PathBuf,
}

const LIFE: Duration = Duration::from_hours(24);

impl Credentials {
    /// Issues them anew.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn issue(world: &World) -> Result<Self> {
        let dir = world.dir.path().join("credentials");
        let ca = Ca::named("the authority of the proxies", TRUST_DOMAIN);
        let leaves =
            [Side::Client, Side::Server].map(|side| ca.issue_named_for(&side.names(), LIFE));
        let [client, server] = &leaves;
        let files = [client.write(&dir.join("client")), server.write(&dir.join("server"))];
        let authority = dir.join("ca.crt");
        ca.write_certificate(&authority);
        for files in &files {
            // haproxy wants certificate and key in one file.
            let key = std::fs::read_to_string(&files.key).context("a key")?;
            let certificate = std::fs::read_to_string(&files.certificate)?;
            let both = files.certificate.with_extension("pem");
            std::fs::write(both, certificate + &key).context("a certificate with its key")?;
        }
        Ok(Self { leaves, files, authority })
    }

    pub fn leaf(&self, side: Side) -> &Leaf {
        &self.leaves[side as usize]
    }
}

/// Where one side's proxy runs, and all that it is told.
pub struct Hop<'a> {
    pub place: Place,
    pub side: Side,
    /// For configuration and logs.
    pub dir: PathBuf,
    credentials: &'a Credentials,
    server: IpAddr,
}

impl<'a> Hop<'a> {
    /// Makes the directory of this side.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(world: &World, side: Side, credentials: &'a Credentials) -> Result<Self> {
        let node = match side {
            Side::Client => &world.a,
            Side::Server => &world.b,
        };
        let dir = world.dir.path().join(format!("proxy-{}", side.name()));
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let server = world.b.addresses.of(Family::V4);
        Ok(Self { place: node.host("proxy"), side, dir, credentials, server })
    }

    /// From the client to the client's side, from there over the wire to the server's side, and on to the service.
    pub fn ways(&self) -> Vec<Way> {
        let local = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let wire = |port| SocketAddr::new(self.server, wire_port(port));
        let way = |port| match self.side {
            Side::Client => Way { listen: local(port), forward: wire(port) },
            Side::Server => Way { listen: wire(port), forward: local(port) },
        };
        PORTS.into_iter().map(way).collect()
    }

    /// The certificate that this side shows, with its key.
    pub fn own(&self) -> &PemFiles {
        &self.credentials.files[self.side as usize]
    }

    /// Both of [`Self::own`] in one file.
    pub fn own_pem(&self) -> PathBuf {
        self.own().certificate.with_extension("pem")
    }

    /// What the other side's certificate must chain to.
    pub fn authority(&self) -> &PathBuf {
        &self.credentials.authority
    }

    /// The SPIFFE ID that the other side's certificate must have.
    pub fn peer_id(&self) -> String {
        spiffe_id(self.side.other().name())
    }

    /// The DNS name that the other side's certificate must have.
    pub fn peer_name(&self) -> String {
        format!("{}.{TRUST_DOMAIN}", self.side.other().name())
    }

    /// Writes a file into this side's directory.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let file = self.dir.join(name);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }

    /// Starts the proxy. Returns when it listens on the first port.
    pub fn start(&self, name: &'static str, command: &mut Command) -> Program {
        Program::start(name, &self.place, &self.dir, command, self.ways()[0].listen.port())
    }
}
