//! Where a matrix of sockets is played: a world in which whatever leaks arrives, and a tap.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::matrix::Matrix;
use crate::names::{self, marker};
use crate::pair::{PORT, Pair, Setting, any, server};
use crate::place::Place;
use crate::probe::Probe;
use crate::script::{Job, Step};
use crate::world::{FAMILIES, WIRE};

/// A port that node B answers on in plaintext, at every address.
const OPEN_PORT: u16 = 9090;
/// For all the cases of one matrix.
const LIMIT: Duration = Duration::from_secs(120);
/// For the first retransmissions of what was held back.
const RETRANSMISSION: Duration = Duration::from_millis(700);

/// The usual pair, and everything that a leak needs.
pub struct Scene {
    /// An outsider in the client's namespace, who does favours, and servers.
    _helpers: Vec<Probe>,
    pub pair: Pair,
    pub device: &'static str,
    destinations: Vec<SocketAddr>,
    accomplice: PathBuf,
}

impl Scene {
    /// With the client's outbound mode.
    #[track_caller]
    pub fn new(setting: Setting, mode: &'static str) -> Self {
        let pair =
            Pair::with(setting, |a, _| a.workloads[0].outbound.as_mut().unwrap().mode = mode);
        let device = if setting == Setting::Host { WIRE } else { "eth0" };
        // As kube-proxy sets it: packets for 127.0.0.0/8 are then routed, and taken from the wire.
        pair.client.netns.sysctl(&format!("ipv4/conf/{device}/route_localnet"), "1");
        for netns in [&pair.world.a.netns, &pair.world.b.netns] {
            netns.sysctl("ipv4/conf/all/route_localnet", "1");
            netns.sysctl("ipv4/conf/all/accept_source_route", "1");
            netns.sysctl(&format!("ipv4/conf/{WIRE}/accept_source_route"), "1");
            netns.sysctl("ipv6/conf/all/seg6_enabled", "1");
            netns.sysctl(&format!("ipv6/conf/{WIRE}/seg6_enabled"), "1");
        }
        let open_place = pair.world.b.host("open");
        let mut helpers = Vec::new();
        for family in FAMILIES {
            let open = server(any(family, OPEN_PORT), &[Step::Echo]);
            helpers.push(Probe::start(&open_place, &open));
            helpers.push(pair.serve(family, &[Step::Echo]));
        }
        let bystander = Place::new(&pair.client.netns, &pair.world.a.host("bystander").cgroup);
        let accomplice = pair.world.dir.path().join(names::unique());
        helpers.push(Probe::start(&bystander, &Job::Accomplice { path: accomplice.clone() }));
        // Whoever plays may be anybody.
        fs::set_permissions(pair.world.dir.path(), fs::Permissions::from_mode(0o711))
            .expect("the world's directory");
        fs::set_permissions(&accomplice, fs::Permissions::from_mode(0o666))
            .expect("the accomplice's socket");
        let destinations = destinations(&pair, mode);
        Self { _helpers: helpers, pair, device, destinations, accomplice }
    }

    /// Plays the whole matrix, as root or as an ordinary user with these capabilities.
    #[track_caller]
    pub fn assert_nothing_leaks(
        &self,
        capabilities: Option<&[&str]>,
        context: &str,
        is_enough: impl FnOnce(usize) -> bool,
    ) {
        let matrix = Matrix {
            marker: marker(),
            destinations: self.destinations.clone(),
            device: self.device.to_owned(),
            via: FAMILIES.map(|family| self.pair.world.b.addresses.of(family)).to_vec(),
            accomplice: self.accomplice.clone(),
        };
        let job = Job::Matrix(matrix.clone());
        let tap = self.pair.world.tap();
        let mut player = match capabilities {
            None => Probe::start(&self.pair.client, &job),
            Some(some) => Probe::start_as_user(&self.pair.client, &self.pair.world, &job, some),
        };
        let tally = player.tally(LIMIT);
        thread::sleep(RETRANSMISSION);
        let seen = matrix.seen_in(&tap.frames());
        assert_eq!(tally.ok + tally.errors.len(), matrix.cases().len(), "{context}");
        let count = seen.len();
        assert!(seen.is_empty(), "{context}: {count} cases on the wire in plaintext: {seen:#?}");
        assert!(is_enough(tally.ok), "{context}: {tally:?}");
    }
}

/// Peers, this very host in all its names, and, where the mode refuses them, everybody else.
fn destinations(pair: &Pair, mode: &str) -> Vec<SocketAddr> {
    let own = pair.client_addresses;
    let mut all: Vec<SocketAddr> = Vec::new();
    for ip in [
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(127, 0, 0, 2),
        Ipv4Addr::new(127, 255, 255, 254),
        Ipv4Addr::UNSPECIFIED,
    ] {
        all.push((ip, OPEN_PORT).into());
    }
    for ip in [Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED] {
        all.push((ip, OPEN_PORT).into());
    }
    all.push((Ipv4Addr::LOCALHOST, 15_001).into());
    all.push((Ipv6Addr::LOCALHOST, 15_001).into());
    for family in FAMILIES {
        all.push(pair.target(family));
        all.push(pair.world.b.addresses.at(family, OPEN_PORT));
    }
    if mode == "require" {
        for family in FAMILIES {
            all.push(own.at(family, OPEN_PORT));
            all.push(pair.world.b.extra.at(family, OPEN_PORT));
            all.push(pair.world.b.extra.at(family, PORT));
        }
        for ip in ["224.0.0.1", "10.0.255.255", "255.255.255.255", "240.0.0.1"] {
            all.push(SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), OPEN_PORT));
        }
    }
    all
}
