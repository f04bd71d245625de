//! Connections that are opened and then idle.

use std::io::{self, BufRead, stdin};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use anyhow::{Context, Result};

use super::say::greet;

/// How many are opened at a time.
const CONCURRENCY: usize = 4;

/// Reads a number from each line of its input, opens connections until there are so many, and answers with the
/// number. Closes them all at the end of the input.
pub fn hold(to: SocketAddr) -> Result<()> {
    let mut held: Vec<TcpStream> = Vec::new();
    for line in stdin().lock().lines() {
        let wanted: usize = line?.trim().parse().context("not a number of connections")?;
        let missing = wanted.saturating_sub(held.len());
        let share = |index| missing / CONCURRENCY + usize::from(index < missing % CONCURRENCY);
        let opened: Vec<io::Result<Vec<TcpStream>>> = thread::scope(|scope| {
            let open = |count| move || (0..count).map(|_| greet(to)).collect();
            let workers: Vec<_> =
                (0..CONCURRENCY).map(|index| scope.spawn(open(share(index)))).collect();
            let ended = workers.into_iter().map(|worker| worker.join());
            ended
                .map(|result| result.unwrap_or_else(|_| Err(io::Error::other("a panic"))))
                .collect()
        });
        for streams in opened {
            held.extend(streams.with_context(|| format!("connection {} to {to}", held.len()))?);
        }
        println!("{}", held.len());
    }
    Ok(())
}
