//! Small programs that are part of this one: it starts itself again as a client, a server or a proxy.

mod clock;
mod connect;
mod echo;
mod hold;
mod relay;
mod say;

use std::net::SocketAddr;
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Subcommand;
use sheath_tests::place::Place;

pub use clock::Times;
pub use connect::Churn;

/// What to play. Hidden from the command line's help, because it is of no use alone.
#[derive(Subcommand)]
pub enum Play {
    /// Return whatever arrives on a port
    #[command(hide = true)]
    Echo { port: u16 },
    /// Copy bytes from one address to another and back
    #[command(hide = true)]
    Relay { ways: Vec<Way> },
    /// Send a text to an echo and expect it back
    #[command(hide = true)]
    Say { to: SocketAddr, text: String },
    /// Open and close connections to an echo, so many at once, for so many milliseconds
    #[command(hide = true)]
    Connect { to: SocketAddr, concurrency: usize, milliseconds: u64 },
    /// Open connections to an echo up to the number on the next line of input, and keep them
    #[command(hide = true)]
    Hold { to: SocketAddr },
    /// Take the time of each of so many calls of connect()
    #[command(hide = true)]
    Clock { to: SocketAddr, count: usize },
}

/// Where a relay listens and where it forwards to: `LISTEN=FORWARD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub listen: SocketAddr,
    pub forward: SocketAddr,
}

impl FromStr for Way {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (listen, forward) = text.split_once('=').context("not LISTEN=FORWARD")?;
        Ok(Self { listen: listen.parse()?, forward: forward.parse()? })
    }
}

impl Play {
    /// Plays it to its end.
    ///
    /// # Errors
    /// If a connection or a port fails.
    pub fn run(self) -> Result<()> {
        match self {
            Self::Echo { port } => echo::serve(port),
            Self::Relay { ways } => relay::serve(&ways),
            Self::Say { to, text } => say::say(to, &text),
            Self::Connect { to, concurrency, milliseconds } => {
                connect::churn(to, concurrency, Duration::from_millis(milliseconds))
            }
            Self::Hold { to } => hold::hold(to),
            Self::Clock { to, count } => clock::take(to, count),
        }
    }

    /// The command that plays this in another place.
    ///
    /// # Errors
    /// If the path of this program is not known.
    pub fn command(&self, place: &Place) -> Result<Command> {
        let program = std::env::current_exe().context("this program's own path")?;
        let mut command = place.command(program);
        command.args(self.arguments());
        Ok(command)
    }

    fn arguments(&self) -> Vec<String> {
        let texts = |texts: &[&dyn ToString]| texts.iter().map(|text| text.to_string()).collect();
        match self {
            Self::Echo { port } => texts(&[&"echo", port]),
            Self::Relay { ways } => {
                let ways = ways.iter().map(|way| format!("{}={}", way.listen, way.forward));
                ["relay".to_owned()].into_iter().chain(ways).collect()
            }
            Self::Say { to, text } => texts(&[&"say", to, text]),
            Self::Connect { to, concurrency, milliseconds } => {
                texts(&[&"connect", to, concurrency, milliseconds])
            }
            Self::Hold { to } => texts(&[&"hold", to]),
            Self::Clock { to, count } => texts(&[&"clock", to, count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        play: Play,
    }

    #[test]
    fn what_is_written_on_a_command_line_is_read_from_it() {
        let at: SocketAddr = "127.0.0.1:5401".parse().unwrap();
        let way = Way { listen: at, forward: "[fd00::1]:5402".parse().unwrap() };
        for play in [
            Play::Echo { port: 7 },
            Play::Relay { ways: vec![way, way] },
            Play::Say { to: at, text: "some words".to_owned() },
            Play::Connect { to: at, concurrency: 32, milliseconds: 1_500 },
            Play::Hold { to: at },
            Play::Clock { to: at, count: 9 },
        ] {
            let written = play.arguments();
            let line = ["play".to_owned()].into_iter().chain(written.clone());
            assert_eq!(Line::try_parse_from(line).ok().unwrap().play.arguments(), written);
        }
        assert!("127.0.0.1:1".parse::<Way>().is_err());
    }
}
