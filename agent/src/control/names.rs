//! DNS names of external peers: resolved, and resolved again when what was learnt has had its time.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use rustls::crypto::SecureRandom;
use rustls_pki_types::DnsName;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::config::{Config, Place};
use crate::identity::Backoff;
use crate::policy::Addresses;

/// Answers are asked for again after their TTL, but neither more nor less often than this.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// How long an address counts that a name does not resolve to any more. Applications keep addresses for longer
/// than they should; until then they are protected as before, and never in plaintext.
const LINGER: Duration = Duration::from_secs(3600);

/// What a name resolves to now, or why that is not known.
pub type Answer = (DnsName<'static>, Result<BTreeSet<IpAddr>, String>);

/// The names that are followed.
#[derive(Debug)]
pub struct Names {
    answers: mpsc::Sender<Answer>,
    random: &'static dyn SecureRandom,
    followed: HashMap<DnsName<'static>, Followed>,
    servers: Vec<SocketAddr>,
}

#[derive(Debug)]
struct Followed {
    task: AbortHandle,
    /// Addresses with the time when the name last resolved to them.
    seen: HashMap<IpAddr, Instant>,
    problem: Option<String>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Names {
    #[must_use]
    pub fn new(answers: mpsc::Sender<Answer>, random: &'static dyn SecureRandom) -> Self {
        Self { answers, random, followed: HashMap::new(), servers: Vec::new() }
    }

    /// Follows the names of a configuration and lets go of all others. Needs a tokio runtime.
    pub fn follow(&mut self, config: &Config) {
        if self.servers != config.dns_servers {
            self.servers.clone_from(&config.dns_servers);
            self.followed.clear();
        }
        let places = config.external_peers.iter().flat_map(|peer| &peer.places);
        let wanted: HashSet<_> = places
            .filter_map(|place| match place {
                Place::Named { name, .. } => Some(name.clone()),
                Place::At(_) => None,
            })
            .collect();
        self.followed.retain(|name, _| wanted.contains(name));
        let new: Vec<_> =
            wanted.into_iter().filter(|name| !self.followed.contains_key(name)).collect();
        if new.is_empty() {
            return;
        }
        let resolver = resolver(&self.servers);
        for name in new {
            let task = keep_resolved(
                resolver.clone(),
                name.clone(),
                self.answers.clone(),
                Backoff::new(self.random),
            );
            let task = tokio::spawn(task).abort_handle();
            self.followed.insert(name, Followed { task, seen: HashMap::new(), problem: None });
        }
    }

    /// Takes an answer in. Returns true if it changes the addresses.
    pub fn take(&mut self, (name, answer): Answer) -> bool {
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
                let now = Instant::now();
                let mut changed = false;
                for address in addresses {
                    changed |= followed.seen.insert(address, now).is_none();
                }
                let before = followed.seen.len();
                followed.seen.retain(|_, last| now.duration_since(*last) < LINGER);
                changed |= followed.seen.len() != before;
                if changed {
                    tracing::info!(name = name.as_ref(), addresses = ?followed.seen.keys(), "resolved");
                }
                changed
            }
        }
    }

    #[must_use]
    pub fn addresses(&self) -> Addresses {
        let known = |followed: &Followed| followed.seen.keys().copied().collect();
        self.followed.iter().map(|(name, followed)| (name.clone(), known(followed))).collect()
    }
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, String> {
    let provider = TokioRuntimeProvider::default();
    let mut builder = if servers.is_empty() {
        TokioResolver::builder(provider).map_err(|error| error.to_string())?
    } else {
        let server = |address: &SocketAddr| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()]
                .map(|mut connection| {
                    connection.port = address.port();
                    connection
                })
                .to_vec();
            NameServerConfig::new(address.ip(), true, connections)
        };
        let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
        TokioResolver::builder_with_config(config, provider)
    };
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // Nothing is asked for before its time is over.
    options.cache_size = 0;
    builder.build().map_err(|error| error.to_string())
}

async fn keep_resolved(
    resolver: Result<TokioResolver, String>,
    name: DnsName<'static>,
    answers: mpsc::Sender<Answer>,
    mut backoff: Backoff,
) {
    // Absolute: no search domain is tried.
    let absolute = format!("{}.", name.as_ref());
    loop {
        let answer = match &resolver {
            Ok(resolver) => {
                resolver.lookup_ip(absolute.as_str()).await.map_err(|error| error.to_string())
            }
            Err(reason) => Err(reason.clone()),
        };
        let (answer, pause) = match answer {
            Ok(found) => {
                backoff.reset();
                let left = found.valid_until().saturating_duration_since(Instant::now());
                (Ok(found.iter().collect()), left.clamp(SHORTEST, LONGEST))
            }
            Err(reason) => (Err(reason), backoff.pause()),
        };
        if answers.send((name.clone(), answer)).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}
