//! dnsmasq as the only name server of a node.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use super::Program;
use crate::place::Place;

const PORT: u16 = 53;

/// How long, in seconds, an answer may be believed.
const TTL: u32 = 1;

/// A name server that knows what it is told and nothing else.
pub struct Dnsmasq {
    program: Program,
    hosts: PathBuf,
}

impl Dnsmasq {
    /// Returns when it listens on `address`.
    #[track_caller]
    pub fn start(place: &Place, dir: &Path, address: IpAddr, records: &[(&str, IpAddr)]) -> Self {
        let listen = ["--bind-interfaces".to_owned(), format!("--listen-address={address}")];
        Self::listen(place, dir, &listen, records)
    }

    /// Listens at all addresses of an interface, those of the link among them.
    #[track_caller]
    pub fn on_interface(
        place: &Place,
        dir: &Path,
        interface: &str,
        records: &[(&str, IpAddr)],
    ) -> Self {
        Self::listen(place, dir, &[format!("--interface={interface}")], records)
    }

    #[track_caller]
    fn listen(place: &Place, dir: &Path, listen: &[String], records: &[(&str, IpAddr)]) -> Self {
        let hosts = dir.join("hosts");
        write_hosts(&hosts, records);
        let mut command = place.command("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--pid-file=",
            "--user=root",
        ]);
        command.args(["--no-resolv", "--no-hosts", "--local=/example.com/"]).args(listen);
        command.args(["--log-queries", "--log-facility=-"]);
        command.arg(format!("--local-ttl={TTL}"));
        command.arg(format!("--addn-hosts={}", hosts.display()));
        let program = Program::start("dnsmasq", place, dir, &mut command, PORT);
        Self { program, hosts }
    }

    /// Knows other records from now on.
    pub fn change(&self, records: &[(&str, IpAddr)]) {
        write_hosts(&self.hosts, records);
        self.program.signal(Signal::SIGHUP);
    }

    /// Where it answers, for a node with this address.
    pub fn endpoint(address: IpAddr) -> SocketAddr {
        SocketAddr::new(address, PORT)
    }
}

fn write_hosts(file: &Path, records: &[(&str, IpAddr)]) {
    let mut text = String::new();
    for (name, address) in records {
        writeln!(text, "{address} {name}").expect("a line in memory");
    }
    fs::write(file, text).expect("dnsmasq's records");
}
