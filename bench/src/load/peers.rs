//! Does it matter how many peers are configured? Asked of an agent with one, and with a hundred thousand.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use sheath_tests::agent::Agent;
use sheath_tests::config::Peer;
use sheath_tests::wait;
use sheath_tests::world::Family;

use super::{Figures, Load, sockperf};
use crate::contender::{Contender, Entry, Kind};
use crate::play::{Play, Times};
use crate::results::Quantity;
use crate::scale::Scale;
use crate::services::{BESIDE, ECHO};
use crate::statistics::median;

/// The agent on the client's node.
pub struct Peers;

const MANY: u32 = 100_000;

/// Calls of `connect()` that are timed: enough for a median that stands still.
const CONNECTIONS: usize = 1_000;

pub const PROTECTED_ONE: &str = "connect_protected_1";
pub const PROTECTED_MANY: &str = "connect_protected_100000";
pub const BESIDE_ONE: &str = "connect_unprotected_1";
pub const BESIDE_MANY: &str = "connect_unprotected_100000";
pub const P99_QUIET: &str = "p99_quiet";
pub const P99_RELOAD: &str = "p99_reload";
const RELOAD: &str = "reload";
const START: &str = "start";

impl Load for Peers {
    fn name(&self) -> String {
        "peers".to_owned()
    }

    fn title(&self) -> String {
        "100 000 peers".to_owned()
    }

    fn quantities(&self) -> &'static [Quantity] {
        const MICROSECONDS: &str = "µs";
        const ONE: &str = "connect(), protected, 1 peer";
        const HUNDRED: &str = "connect(), protected, 100 000 peers";
        const PAST_ONE: &str = "connect(), unprotected, 1 peer";
        const PAST_HUNDRED: &str = "connect(), unprotected, 100 000 peers";
        const {
            &[
                Quantity { name: PROTECTED_ONE, title: ONE, unit: MICROSECONDS },
                Quantity { name: PROTECTED_MANY, title: HUNDRED, unit: MICROSECONDS },
                Quantity { name: BESIDE_ONE, title: PAST_ONE, unit: MICROSECONDS },
                Quantity { name: BESIDE_MANY, title: PAST_HUNDRED, unit: MICROSECONDS },
                Quantity { name: P99_QUIET, title: "round trip p99, quiet", unit: MICROSECONDS },
                Quantity {
                    name: P99_RELOAD,
                    title: "round trip p99, reloading",
                    unit: MICROSECONDS,
                },
                Quantity { name: RELOAD, title: "one reload", unit: "s" },
                Quantity { name: START, title: "start", unit: "s" },
            ]
        }
    }

    fn play(&self, contender: &Contender, scale: &Scale) -> Result<Figures> {
        let mut fresh = Contender::start(&contender.entry)?;
        let mut figures = connects(&fresh, PROTECTED_ONE, BESIDE_ONE)?;
        let place = fresh.client.clone();
        let agent = fresh.agent().context("only agents have peers")?;
        agent.kill();
        agent.reconfigure(|config| config.peers.extend((0..MANY).map(other)));
        let started = agent.launch();
        agent.wait_enrolled("client", &place);
        figures.push((START, started.as_secs_f64()));
        figures.extend(connects(&fresh, PROTECTED_MANY, BESIDE_MANY)?);
        let mut client = sockperf::client(&fresh, PINGPONG_BYTES, &scale.seconds());
        let text = fresh.run_client(&mut client)?;
        figures.push((P99_QUIET, sockperf::percentile(&text, "99.000")?));
        figures.extend(while_reloading(&mut fresh, scale)?);
        Ok(figures)
    }

    fn is_for(&self, entry: &Entry) -> bool {
        !entry.connections_only && matches!(entry.kind, Kind::Agents(_))
    }
}

const PINGPONG_BYTES: u32 = 100;

/// A peer that nobody here talks to.
fn other(number: u32) -> Peer {
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(11, 0, 0, 0)) + number);
    Peer::new(&[&format!("{address}/32")], &["somebody-else"])
}

/// The medians of `connect()` to a peer and to somebody else.
fn connects(
    contender: &Contender,
    protected: &'static str,
    beside: &'static str,
) -> Result<Figures> {
    let take = |to: SocketAddr| -> Result<f64> {
        let mut command = Play::Clock { to, count: CONNECTIONS }.command(&contender.client)?;
        Ok(Times::parse(&contender.run_client(&mut command)?)?.median)
    };
    let stranger = contender.world.b.extra.at(Family::V4, BESIDE);
    Ok(vec![(protected, take(contender.target(ECHO))?), (beside, take(stranger)?)])
}

/// A ping-pong during which the agent reads one configuration after the other, as fast as it can.
fn while_reloading(contender: &mut Contender, scale: &Scale) -> Result<Figures> {
    let mut client = sockperf::client(contender, PINGPONG_BYTES, &scale.seconds());
    let agent = contender.agent().context("only agents have peers")?;
    let configurations = two_configurations(agent)?;
    client.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = client.spawn().context("cannot start sockperf")?;
    let mut reloads = Vec::new();
    let done = reload_until_end(agent, &configurations, &mut client, &mut reloads);
    if done.is_err() {
        let _ = client.kill();
    }
    let output = client.wait_with_output().context("sockperf's output")?;
    done?;
    let text = String::from_utf8_lossy(&output.stdout);
    let one = median(&reloads).context("no reload ended before the ping-pong did")?;
    Ok(vec![(P99_RELOAD, sockperf::percentile(&text, "99.000")?), (RELOAD, one)])
}

fn reload_until_end(
    agent: &Agent,
    configurations: &[Vec<u8>; 2],
    client: &mut std::process::Child,
    reloads: &mut Vec<f64>,
) -> Result<()> {
    for text in configurations.iter().cycle() {
        if client.try_wait().context("cannot wait for sockperf")?.is_some() {
            break;
        }
        ensure!(!wait::is_interrupted(), "interrupted");
        // Written as a whole beforehand: making it is the harness's work, not the agent's.
        fs::write(agent.file(), text).context("the agent's configuration")?;
        let start = Instant::now();
        let output = agent.sheath("reload", &[]);
        if !output.status.success() {
            bail!("sheath reload: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        reloads.push(start.elapsed().as_secs_f64());
    }
    Ok(())
}

/// The configuration with and without its last peer, so that there is something to do.
fn two_configurations(agent: &mut Agent) -> Result<[Vec<u8>; 2]> {
    let read = |agent: &Agent| fs::read(agent.file()).context("the agent's configuration");
    let whole = read(agent)?;
    agent.reconfigure(|config| drop(config.peers.pop()));
    Ok([read(agent)?, whole])
}
