//! DNS names of external peers: resolved, and resolved again when what was learnt has had its time, or when the host says
//! something else of names or of whom to ask.

mod resolve;
mod system;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::crypto::SecureRandom;
use rustls_pki_types::DnsName;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::config::ADDRESSES_OF_A_NAME as MOST_ADDRESSES;
use crate::desired::{Desired, Place};
use crate::identity::Backoff;
use crate::policy::Addresses;
use crate::sys::files::{self, IfThere, ReadError};

/// How long an address counts that a name does not resolve to any more. Applications keep addresses for longer
/// than they should; until then they are protected as before, and never in plaintext.
const LINGER: Duration = Duration::from_secs(3600);

/// What people are told of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NameView {
    pub name: String,
    /// That it stands for, or has stood for not long ago.
    pub addresses: Vec<IpAddr>,
    /// Why it is not resolved now; empty if it is.
    pub problem: String,
}

/// The same of all, read by whoever wants to.
pub type NameViews = Arc<ArcSwap<Vec<NameView>>>;

/// What a name resolves to now, or why that is not known.
pub type Answer = (DnsName<'static>, Result<BTreeSet<IpAddr>, String>);

/// The names that are followed.
#[derive(Debug)]
pub struct Names {
    answers: mpsc::Sender<Answer>,
    random: &'static dyn SecureRandom,
    followed: HashMap<DnsName<'static>, Followed>,
    servers: Vec<SocketAddr>,
    /// Once there is a name to resolve.
    system: Option<system::Followed>,
    memory: Memory,
    views: NameViews,
}

#[derive(Debug)]
struct Followed {
    task: AbortHandle,
    /// Addresses with the time when the name last resolved to them.
    seen: HashMap<IpAddr, SystemTime>,
    problem: Option<String>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Followed {
    /// Takes addresses in. Returns true if that changes them.
    fn take(&mut self, addresses: BTreeSet<IpAddr>, now: SystemTime) -> bool {
        let before: BTreeSet<_> = self.seen.keys().copied().collect();
        for address in addresses.into_iter().filter(is_somebodys).take(MOST_ADDRESSES) {
            self.seen.insert(address.to_canonical(), now);
        }
        let age = |last: SystemTime| now.duration_since(last).unwrap_or_default();
        self.seen.retain(|_, last| age(*last) < LINGER);
        while self.seen.len() > MOST_ADDRESSES {
            let oldest = self.seen.iter().min_by_key(|(address, last)| (**last, **address));
            let Some(oldest) = oldest.map(|(address, _)| *address) else {
                break;
            };
            self.seen.remove(&oldest);
        }
        before != self.seen.keys().copied().collect()
    }
}

/// False for addresses at which nobody else can be meant: no answer may turn to the host itself.
fn is_somebodys(address: &IpAddr) -> bool {
    let address = address.to_canonical();
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || is_link_local)
}

impl Names {
    /// `memory` is a file that outlives the agent: what was protected stays so when it starts anew.
    #[must_use]
    pub fn new(
        answers: mpsc::Sender<Answer>,
        random: &'static dyn SecureRandom,
        memory: PathBuf,
    ) -> Self {
        Self {
            answers,
            random,
            followed: HashMap::new(),
            servers: Vec::new(),
            system: None,
            memory: Memory(memory),
            views: NameViews::default(),
        }
    }

    /// What is known of the names, now and later.
    #[must_use]
    pub fn views(&self) -> NameViews {
        self.views.clone()
    }

    /// Follows the names of a configuration and lets go of all others. Needs a tokio runtime.
    pub fn follow(&mut self, desired: &Desired, servers: &[SocketAddr]) {
        let wanted = wanted(desired);
        self.followed.retain(|name, _| wanted.contains(name));
        let same_servers = self.servers == servers;
        servers.clone_into(&mut self.servers);
        let remembered = self.memory.recall();
        if wanted.is_empty() {
            self.system = None;
            return self.publish();
        }
        let system = match &self.system {
            Some(system) => {
                system.refresh();
                system
            }
            None => self.system.insert(system::Followed::start(system::Paths::default())),
        };
        for name in wanted {
            if same_servers && self.followed.contains_key(&name) {
                continue;
            }
            let task = resolve::keep_resolved(
                self.servers.clone(),
                name.clone(),
                system.subscribe(),
                self.answers.clone(),
                Backoff::new(self.random),
            );
            let task = tokio::spawn(task).abort_handle();
            // What is known stays known, whoever is asked from now on.
            let old = self.followed.remove(&name);
            let seen = old.map(|mut old| std::mem::take(&mut old.seen));
            let seen = seen.or_else(|| remembered.get(name.as_ref()).cloned()).unwrap_or_default();
            let mut followed = Followed { task, seen, problem: None };
            followed.take(BTreeSet::new(), SystemTime::now());
            self.followed.insert(name, followed);
        }
        self.remember();
        self.publish();
    }

    /// Takes an answer in. Returns true if it changes the addresses.
    pub fn take(&mut self, answer: Answer) -> bool {
        let changed = self.take_in(answer);
        self.publish();
        changed
    }

    fn take_in(&mut self, (name, answer): Answer) -> bool {
        let Some(followed) = self.followed.get_mut(&name) else {
            return false;
        };
        match answer {
            Err(problem) => {
                if followed.problem.as_ref() != Some(&problem) {
                    tracing::warn!(
                        name = name.as_ref(),
                        problem,
                        "not resolved; known addresses stay"
                    );
                }
                followed.problem = Some(problem);
                false
            }
            Ok(addresses) => {
                followed.problem = None;
                let changed = followed.take(addresses, SystemTime::now());
                if changed {
                    tracing::info!(
                        name = name.as_ref(),
                        addresses = followed.seen.len(),
                        "resolved"
                    );
                    self.remember();
                }
                changed
            }
        }
    }

    /// The addresses of the names that are wanted, as far as they are known.
    #[must_use]
    pub fn addresses(&self, desired: &Desired) -> Addresses {
        let known = |name: DnsName<'static>| {
            let addresses = self.followed.get(&name)?.seen.keys().copied().collect();
            Some((name, addresses))
        };
        wanted(desired).into_iter().filter_map(known).collect()
    }

    fn publish(&self) {
        let view = |(name, followed): (&DnsName<'static>, &Followed)| {
            let mut addresses: Vec<_> = followed.seen.keys().copied().collect();
            addresses.sort();
            let problem = followed.problem.clone().unwrap_or_default();
            NameView { name: name.as_ref().to_owned(), addresses, problem }
        };
        let mut views: Vec<_> = self.followed.iter().map(view).collect();
        views.sort_by(|one, other| one.name.cmp(&other.name));
        self.views.store(Arc::new(views));
    }

    fn remember(&self) {
        let seen = |followed: &Followed| followed.seen.clone();
        let all = self.followed.iter();
        self.memory.keep(&all.map(|(name, f)| (name.as_ref().to_owned(), seen(f))).collect());
    }
}

fn wanted(desired: &Desired) -> HashSet<DnsName<'static>> {
    let places = desired.external_peers.iter().flat_map(|peer| &peer.places);
    places
        .filter_map(|place| match place {
            Place::Named { name, .. } => Some(name.clone()),
            Place::At(_) => None,
        })
        .collect()
}

/// What is known of names, in a file.
#[derive(Debug)]
struct Memory(PathBuf);

type Remembered = BTreeMap<String, HashMap<IpAddr, SystemTime>>;

impl Memory {
    /// Nothing, if there is no such file or if it is damaged.
    fn recall(&self) -> Remembered {
        let told = |problem: &str| {
            tracing::warn!(file = %self.0.display(), problem, "addresses of names are not recalled");
        };
        match files::read(&self.0, files::STATE) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|_| {
                told("it is damaged");
                Remembered::new()
            }),
            Err(ReadError::Missing) => Remembered::new(),
            Err(error) => {
                told(&error.to_string());
                Remembered::new()
            }
        }
    }

    fn keep(&self, names: &Remembered) {
        let kept = serde_json::to_vec(names)
            .map_err(std::io::Error::other)
            .and_then(|text| files::write(&self.0, 0o600, &text, IfThere::Replace));
        if let Err(error) = kept {
            tracing::warn!(file = %self.0.display(), %error, "addresses of names are not remembered");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed() -> Followed {
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        Followed { task, seen: HashMap::new(), problem: None }
    }

    fn addresses(range: std::ops::Range<u32>) -> BTreeSet<IpAddr> {
        range.map(|n| IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n))).collect()
    }

    #[tokio::test]
    async fn an_address_lingers_and_then_goes() {
        let mut followed = followed();
        let start = SystemTime::now();
        assert!(followed.take(addresses(0..2), start));
        assert!(!followed.take(addresses(0..1), start + LINGER / 2));
        assert!(followed.take(addresses(0..1), start + LINGER));
        assert_eq!(followed.seen.len(), 1);
    }

    #[tokio::test]
    async fn no_answer_makes_a_name_stand_for_more_than_a_few_addresses() {
        let mut followed = followed();
        let start = SystemTime::now();
        for round in 0..5 {
            let many = addresses(round * 1000..round * 1000 + 1000);
            followed.take(many, start + Duration::from_secs(round.into()));
        }
        assert_eq!(followed.seen.len(), MOST_ADDRESSES);
        // The latest answer is what is left.
        assert!(addresses(4000..4010).iter().all(|address| followed.seen.contains_key(address)));
    }

    #[tokio::test]
    async fn no_answer_turns_to_the_host_itself() {
        let mut followed = followed();
        let unwanted = [
            "127.0.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "169.254.169.254",
            "255.255.255.255",
            "::1",
            "::",
            "ff02::1",
            "fe80::1",
            "::ffff:127.0.0.1",
        ];
        let unwanted = unwanted.iter().map(|address| address.parse().unwrap()).collect();
        assert!(!followed.take(unwanted, SystemTime::now()));
    }

    #[test]
    fn what_was_learnt_is_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory(directory.path().join("names.json"));
        assert!(memory.recall().is_empty());
        let seen = HashMap::from([("10.0.0.1".parse().unwrap(), SystemTime::now())]);
        let names = BTreeMap::from([("a.example".to_owned(), seen)]);
        memory.keep(&names);
        assert_eq!(memory.recall(), names);
        std::fs::write(&memory.0, "damaged").unwrap();
        assert!(memory.recall().is_empty());
    }
}
