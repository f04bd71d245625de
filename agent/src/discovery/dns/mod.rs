//! Resolves the DNS names of external peers: again when an answer has expired, and when the host's resolvers or its
//! `/etc/hosts` change.

mod error;
mod hosts;
mod memory;
mod name;
mod resolv_conf;
mod resolve;
mod system;
mod zoned;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use rustls_pki_types::DnsName;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{Discovery, Problems, Snapshot, Update, Updates};
use crate::desired::{Desired, Endpoints, Origin, Place};
use crate::follow::{Following, Unfollowed};

use error::ResolutionError;
use memory::Memory;
use name::{News, SeenAddresses};
use system::HostFiles;

/// The most addresses of one name. A name server cannot fill the kernel's maps.
pub const ADDRESSES_OF_A_NAME: usize = 64;

/// Settings of the resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Name servers; empty for those of the host.
    pub servers: Vec<SocketAddr>,
    /// File with the known addresses. It outlives the agent, so what was protected stays protected after a restart.
    pub memory: PathBuf,
}

/// What a name resolves to, or why it does not.
type Answer = (DnsName<'static>, Result<BTreeSet<IpAddr>, ResolutionError>);

impl Discovery for Dns {
    fn kind(&self) -> &'static str {
        "dns"
    }

    fn follow(self: Arc<Self>, updates: Updates) -> Following {
        Box::pin(async move { DnsNames::new(&self, updates).run().await })
    }
}

/// The names that are followed.
#[derive(Debug)]
struct DnsNames {
    servers: Vec<SocketAddr>,
    updates: Updates,
    answers: (mpsc::Sender<Answer>, mpsc::Receiver<Answer>),
    followed: HashMap<DnsName<'static>, FollowedName>,
    /// `None` as long as there is no name to resolve.
    system: Option<HostFiles>,
    memory: Memory,
}

#[derive(Debug)]
struct FollowedName {
    /// Aborted when this is dropped.
    _task: AbortOnDropHandle<()>,
    seen: SeenAddresses,
    problem: Option<ResolutionError>,
}

impl DnsNames {
    fn new(settings: &Dns, updates: Updates) -> Self {
        Self {
            servers: settings.servers.clone(),
            updates,
            answers: mpsc::channel(16),
            followed: HashMap::new(),
            system: None,
            memory: Memory::new(settings.memory.clone()),
        }
    }

    async fn run(mut self) -> Result<(), Unfollowed> {
        let mut wanted = self.updates.wanted();
        let names = names_in(&wanted.borrow_and_update());
        // Addresses from the previous name servers stay known.
        let before = self.updates.take_before();
        self.follow(names, &before);
        loop {
            self.updates.send(Update::Snapshot(self.snapshot())).await?;
            // Until the snapshot changes.
            loop {
                tokio::select! {
                    changed = wanted.changed() => {
                        changed.map_err(|_| Unfollowed)?;
                        let names = names_in(&wanted.borrow_and_update());
                        if self.follow(names, &Desired::default()) {
                            break;
                        }
                    }
                    Some(answer) = self.answers.1.recv() => match self.take(answer) {
                        News::Nothing => {}
                        News::Problem => self.updates.send(Update::Problems(self.problems())).await?,
                        News::Addresses => break,
                    },
                }
            }
        }
    }

    /// Resolves these names and forgets all others. `known` has addresses of some of them. Returns true if the names have
    /// changed.
    fn follow(&mut self, names: HashSet<DnsName<'static>>, known: &Desired) -> bool {
        let system = match (names.is_empty(), self.system.take()) {
            (true, _) => None,
            (false, None) => Some(HostFiles::start(system::Paths::default())),
            (false, Some(system)) => {
                // Someone who has changed the peers may have changed these files as well.
                system.refresh();
                Some(system)
            }
        };
        let is_same = names.len() == self.followed.len()
            && names.iter().all(|name| self.followed.contains_key(name));
        if let Some(system) = &system
            && !is_same
        {
            self.followed.retain(|name, _| names.contains(name));
            let mut remembered = self.memory.recall();
            for name in names {
                if !self.followed.contains_key(&name) {
                    let mut seen = remembered.remove(name.as_ref()).unwrap_or_default();
                    let known = known.endpoints.iter().find(|known| known.name == name);
                    let known = known.map(|known| known.addresses.clone());
                    seen.take(known.unwrap_or_default(), SystemTime::now());
                    let followed = self.follow_name(&name, seen, system);
                    self.followed.insert(name, followed);
                }
            }
            self.remember();
        } else if !is_same {
            self.followed.clear();
        }
        self.system = system;
        !is_same
    }

    fn follow_name(
        &self,
        name: &DnsName<'static>,
        seen: SeenAddresses,
        system: &HostFiles,
    ) -> FollowedName {
        let task = resolve::keep_resolved(
            self.servers.clone(),
            name.clone(),
            system.subscribe(),
            self.answers.0.clone(),
            self.updates.backoff(),
        );
        let task = AbortOnDropHandle::new(tokio::spawn(task));
        FollowedName { _task: task, seen, problem: None }
    }

    /// Handles an answer.
    fn take(&mut self, (name, answer): Answer) -> News {
        let Some(followed) = self.followed.get_mut(&name) else {
            return News::Nothing;
        };
        let name = name.as_ref();
        match answer {
            Err(problem) => {
                if followed.problem.as_ref() == Some(&problem) {
                    return News::Nothing;
                }
                tracing::warn!(name, %problem, "not resolved; known addresses stay");
                followed.problem = Some(problem);
                News::Problem
            }
            Ok(addresses) => {
                let had_problem = followed.problem.take().is_some();
                let has_changed = followed.seen.take(addresses, SystemTime::now());
                if has_changed {
                    tracing::info!(name, addresses = followed.seen.len(), "resolved");
                }
                if has_changed || self.memory.is_outdated(Instant::now()) {
                    self.remember();
                }
                match () {
                    () if has_changed => News::Addresses,
                    () if had_problem => News::Problem,
                    () => News::Nothing,
                }
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let endpoints = self.followed.iter().map(|(name, followed)| Endpoints {
            origin: Origin::Dns(name.as_ref().into()),
            name: name.clone(),
            addresses: followed.seen.addresses(),
        });
        let endpoints = endpoints.map(Arc::new).collect();
        let desired = Desired { endpoints, ..Desired::default() };
        Snapshot { desired, problems: self.problems() }
    }

    fn problems(&self) -> Problems {
        let problem = |(name, followed): (&DnsName<'_>, &FollowedName)| {
            Some((name.as_ref().to_owned(), followed.problem.clone()?.into()))
        };
        self.followed.iter().filter_map(problem).collect()
    }

    fn remember(&mut self) {
        let seen = |(name, followed): (&DnsName<'_>, &FollowedName)| {
            (name.as_ref().to_owned(), followed.seen.clone())
        };
        self.memory.keep(&self.followed.iter().map(seen).collect());
    }
}

/// The names of external peers.
fn names_in(desired: &Desired) -> HashSet<DnsName<'static>> {
    let places = desired.external_peers.iter().flat_map(|peer| &peer.places);
    places
        .filter_map(|place| match place {
            Place::Named { name, .. } => Some(name.clone()),
            Place::At(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests;
