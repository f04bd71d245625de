//! The applications on the server's node. Every contender has the same, each in a world of its own.

use std::path::Path;

use anyhow::{Context, Result};
use sheath_tests::interop::Program;
use sheath_tests::place::Place;
use sheath_tests::programs::{Nginx, Redis};

use crate::play::Play;

/// iperf3's server.
pub const THROUGHPUT: u16 = 5201;
/// sockperf's server.
pub const PINGPONG: u16 = 5301;
/// Returns what it gets.
pub const ECHO: u16 = 5401;
/// redis-server.
pub const REDIS: u16 = 5501;
/// nginx with one small page.
pub const HTTP: u16 = 5601;

/// Everything that clients reach by way of a contender.
pub const PORTS: [u16; 5] = [THROUGHPUT, PINGPONG, ECHO, REDIS, HTTP];

/// An echo that no contender has to do with.
pub const BESIDE: u16 = 5701;

/// Where the server-side proxy of a service listens with TLS.
pub const fn wire_port(port: u16) -> u16 {
    port + 1
}

/// What nginx serves: about as much as a small answer of an API.
const PAGE_BYTES: usize = 1024;

/// All services of one world.
pub struct Services {
    _programs: Vec<Program>,
    _redis: Redis,
    _nginx: Nginx,
}

impl Services {
    /// Returns when all of them listen.
    ///
    /// # Errors
    /// If a directory or a command cannot be made.
    pub fn start(place: &Place, dir: &Path) -> Result<Self> {
        let dir = dir.join("services");
        let start = |name: &'static str, port: u16, program: &str, arguments: &[&str]| {
            let dir = dir.join(name);
            std::fs::create_dir_all(&dir)
                .with_context(|| format!("cannot make {}", dir.display()))?;
            let mut command = place.command(program);
            command.args(arguments);
            Ok::<_, anyhow::Error>(Program::start(name, place, &dir, &mut command, port))
        };
        let port = |port: u16| port.to_string();
        let mut programs = vec![
            start("iperf3", THROUGHPUT, "iperf3", &["-s", "-p", &port(THROUGHPUT)])?,
            start(
                "sockperf",
                PINGPONG,
                "sockperf",
                &["server", "--tcp", "-i", "0.0.0.0", "-p", &port(PINGPONG)],
            )?,
        ];
        for at in [ECHO, BESIDE] {
            let mut command = Play::Echo { port: at }.command(place)?;
            programs.push(Program::start("echo", place, &dir, &mut command, at));
        }
        let page = "x".repeat(PAGE_BYTES);
        Ok(Self {
            _programs: programs,
            _redis: Redis::start(place, &dir.join("redis"), REDIS),
            _nginx: Nginx::start(place, &dir.join("nginx"), HTTP, &page),
        })
    }
}
