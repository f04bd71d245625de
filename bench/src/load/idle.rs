//! The cost of idle flows: memory and descriptors of each side. It is measured with a fresh pair, so that
//! nothing of other loads is left in it.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sheath_tests::place::Process;
use sheath_tests::wait;

use super::{Figures, Load};
use crate::contender::{Contender, Entry, Kind, SIDES, Side};
use crate::play::Play;
use crate::process;
use crate::results::Quantity;
use crate::scale::Scale;
use crate::services::ECHO;

/// Numbers of flows as [`Scale::idle`] has them.
pub struct Idle;

/// Memory for each flow, at the largest number of them.
pub const FLOW_CLIENT: &str = "rss_per_flow_client";
pub const FLOW_SERVER: &str = "rss_per_flow_server";
/// Memory after all flows have closed, as a share of what it was before.
pub const AFTER_CLIENT: &str = "rss_after_client";
pub const AFTER_SERVER: &str = "rss_after_server";

/// How long a pair may take to release what belonged to closed flows.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what may still change.
const PAUSE: Duration = Duration::from_millis(500);

impl Load for Idle {
    fn name(&self) -> String {
        "idle".to_owned()
    }

    fn title(&self) -> String {
        "Idle flows".to_owned()
    }

    fn quantities(&self) -> &'static [Quantity] {
        const KIB: &str = "KiB";
        const {
            &[
                Quantity { name: FLOW_CLIENT, title: "RSS per flow, client side", unit: KIB },
                Quantity { name: FLOW_SERVER, title: "RSS per flow, server side", unit: KIB },
                Quantity { name: "rss_0_client", title: "RSS at 0, client side", unit: KIB },
                Quantity { name: "rss_0_server", title: "RSS at 0, server side", unit: KIB },
                Quantity { name: "rss_1000_client", title: "RSS at 1 000, client side", unit: KIB },
                Quantity { name: "rss_1000_server", title: "RSS at 1 000, server side", unit: KIB },
                Quantity { name: "rss_4000_client", title: "RSS at 4 000, client side", unit: KIB },
                Quantity { name: "rss_4000_server", title: "RSS at 4 000, server side", unit: KIB },
                Quantity { name: AFTER_CLIENT, title: "RSS after, client side", unit: "× at 0" },
                Quantity { name: AFTER_SERVER, title: "RSS after, server side", unit: "× at 0" },
                Quantity { name: "fds_0_client", title: "descriptors at 0, client side", unit: "" },
                Quantity { name: "fds_0_server", title: "descriptors at 0, server side", unit: "" },
                Quantity { name: "fds_1000_client", title: "at 1 000, client side", unit: "" },
                Quantity { name: "fds_1000_server", title: "at 1 000, server side", unit: "" },
                Quantity { name: "fds_4000_client", title: "at 4 000, client side", unit: "" },
                Quantity { name: "fds_4000_server", title: "at 4 000, server side", unit: "" },
                Quantity { name: "fds_after_client", title: "after, client side", unit: "" },
                Quantity { name: "fds_after_server", title: "after, server side", unit: "" },
            ]
        }
    }

    fn play(&self, contender: &Contender, scale: &Scale) -> Result<Figures> {
        let fresh = Contender::start(&contender.entry)?;
        let mut holder = Holder::start(&fresh)?;
        // What is made once and kept is not taken for a flow's, and what a start takes is given back by and by.
        holder.hold(1)?;
        holder.release()?;
        let start = settle(&fresh, scale.idle_still, |_| true)?;
        let mut figures = named(&start, ["rss_0_client", "rss_0_server"], FDS_0);
        let mut holder = Holder::start(&fresh)?;
        for &flows in scale.idle {
            holder.hold(flows)?;
            let seen = settle(&fresh, PAUSE, |_| true)?;
            let (rss, fds) = names_at(flows)?;
            figures.extend(named(&seen, rss, fds));
            if Some(&flows) == scale.idle.last() {
                for (index, name) in [FLOW_CLIENT, FLOW_SERVER].into_iter().enumerate() {
                    let more = seen[index].resident - start[index].resident;
                    figures.push((name, more / f64::from(flows)));
                }
            }
        }
        holder.release()?;
        let closed = |seen: &[Holdings; 2]| {
            seen.iter().zip(&start).all(|(now, then)| now.files <= then.files)
        };
        let after = settle(&fresh, scale.idle_still, closed)?;
        for (index, name) in [AFTER_CLIENT, AFTER_SERVER].into_iter().enumerate() {
            figures.push((name, after[index].resident / start[index].resident));
        }
        figures.push(("fds_after_client", after[0].files));
        figures.push(("fds_after_server", after[1].files));
        Ok(figures)
    }

    fn is_for(&self, entry: &Entry) -> bool {
        !entry.connections_only && !matches!(entry.kind, Kind::Direct)
    }

    fn rounds(&self, scale: &Scale) -> Option<u32> {
        Some(scale.idle_rounds)
    }

    fn is_quick(&self) -> bool {
        true
    }
}

type Names = [&'static str; 2];
const FDS_0: Names = ["fds_0_client", "fds_0_server"];

fn names_at(flows: u32) -> Result<(Names, Names)> {
    match flows {
        1_000 => {
            Ok((["rss_1000_client", "rss_1000_server"], ["fds_1000_client", "fds_1000_server"]))
        }
        4_000 => {
            Ok((["rss_4000_client", "rss_4000_server"], ["fds_4000_client", "fds_4000_server"]))
        }
        other => bail!("there is no name for figures at {other} flows"),
    }
}

fn named(seen: &[Holdings; 2], rss: Names, fds: Names) -> Figures {
    let pairs = seen.iter().zip(rss).zip(fds);
    pairs.flat_map(|((seen, rss), fds)| [(rss, seen.resident), (fds, seen.files)]).collect()
}

/// What the processes of one side hold.
#[derive(Clone, Copy, PartialEq)]
struct Holdings {
    /// In KiB.
    resident: f64,
    files: f64,
}

fn look(contender: &Contender) -> Result<[Holdings; 2]> {
    let look = |side: Side| -> Result<Holdings> {
        let processes = contender.processes(side)?;
        let resident = process::resident_kib(&processes)? as f64;
        Ok(Holdings { resident, files: process::open_files(&processes)? as f64 })
    };
    let [client, server] = SIDES.map(look);
    Ok([client?, server?])
}

/// Reads again and again until the values are complete and have been unchanged for so long, or time is up. Returns the last ones.
fn settle(
    contender: &Contender,
    still: Duration,
    is_complete: impl Fn(&[Holdings; 2]) -> bool,
) -> Result<[Holdings; 2]> {
    let start = Instant::now();
    let (mut last, mut since) = (look(contender)?, start);
    loop {
        std::thread::sleep(PAUSE);
        ensure!(!wait::is_interrupted(), "interrupted");
        let seen = look(contender)?;
        if seen != last {
            (last, since) = (seen, Instant::now());
        }
        let settled = since.elapsed() >= still && is_complete(&seen);
        if settled || start.elapsed() >= PATIENCE {
            return Ok(seen);
        }
    }
}

/// A client that opens flows and leaves them alone.
struct Holder {
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Holder {
    fn start(contender: &Contender) -> Result<Self> {
        let mut command = Play::Hold { to: contender.target(ECHO) }.command(&contender.client)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = contender.client.spawn(&mut command);
        let child = process.child();
        let input = child.stdin.take().context("the holder's input")?;
        let output = BufReader::new(child.stdout.take().context("the holder's output")?);
        Ok(Self { process, input, output })
    }

    /// Returns when there are so many flows.
    fn hold(&mut self, flows: u32) -> Result<()> {
        writeln!(self.input, "{flows}").context("the holder's input")?;
        let mut line = String::new();
        self.output.read_line(&mut line).context("the holder's output")?;
        ensure!(line.trim() == flows.to_string(), "not {flows} flows, but {:?}", line.trim());
        Ok(())
    }

    /// Closes all flows.
    fn release(self) -> Result<()> {
        let Self { mut process, input, .. } = self;
        drop(input);
        let status = process.wait(wait::GENEROUS);
        ensure!(status.success(), "the holder of flows failed ({status})");
        Ok(())
    }
}
