//! What the SPIRE agent knows, and who has asked.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use super::api;
use crate::ca::Leaf;

/// Who is meant by a registration entry.
#[derive(Clone, Debug)]
pub enum Subject {
    /// Whoever has all of these selectors.
    Selectors(Vec<String>),
    /// Every process in a cgroup below this path, as the agent sees when it attests a process.
    Cgroup(String),
    /// Whatever process has this number.
    Process(u32),
}

/// A registration entry.
#[derive(Clone, Debug)]
pub struct Entry {
    pub subject: Subject,
    pub svids: Vec<SentSvid>,
    /// Trust domains, spelled as they are sent.
    pub federates_with: Vec<String>,
}

/// An SVID as it is sent; nothing says that its parts belong together.
#[derive(Clone, Debug)]
pub struct SentSvid {
    pub chain: Vec<Vec<u8>>,
    pub key: Vec<u8>,
}

/// A request for SVIDs.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// As `type:value`.
    pub selectors: Vec<String>,
    pub pid: i32,
    /// False once either side has ended it.
    pub open: bool,
}

impl Subject {
    pub fn selectors(selectors: &[&str]) -> Self {
        Self::Selectors(selectors.iter().map(ToString::to_string).collect())
    }

    /// The entry is for a caller who asks with these selectors, or on behalf of this process.
    fn matches(&self, selectors: &[String], pid: i32) -> bool {
        match self {
            Self::Selectors(own) => {
                !selectors.is_empty() && own.iter().all(|selector| selectors.contains(selector))
            }
            Self::Cgroup(path) => pid != 0 && is_below(pid, path),
            Self::Process(number) => u32::try_from(pid) == Ok(*number),
        }
    }
}

/// Whether a process is in a cgroup v2 below `path`.
fn is_below(pid: i32, path: &str) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let cgroup = text.lines().find_map(|line| line.strip_prefix("0::/"));
    cgroup.is_some_and(|cgroup| {
        cgroup.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

impl Entry {
    pub fn new(subject: Subject, leaf: &Leaf) -> Self {
        Self { subject, svids: vec![SentSvid::of(leaf)], federates_with: Vec::new() }
    }

    #[must_use]
    pub fn federating(self, with: &[&str]) -> Self {
        Self { federates_with: with.iter().map(ToString::to_string).collect(), ..self }
    }
}

impl SentSvid {
    pub fn of(leaf: &Leaf) -> Self {
        let chain = leaf.chain.iter().map(|der| der.to_vec()).collect();
        Self { chain, key: leaf.key.secret_der().to_vec() }
    }
}

/// What can be told to subscribers, and whether it is.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    pub entries: BTreeMap<&'static str, Entry>,
    /// Concatenated DER by key.
    pub bundles: HashMap<String, Vec<u8>>,
    pub refuses: bool,
    pub holds: bool,
    /// Subscriptions end when it changes.
    pub epoch: u64,
}

impl Registry {
    pub fn svids(&self, selectors: &[String], pid: i32) -> api::SubscribeToX509sviDsResponse {
        let entries = self.entries.values().filter(|entry| entry.subject.matches(selectors, pid));
        let mut response = api::SubscribeToX509sviDsResponse::default();
        for entry in entries {
            response.x509_svids.extend(entry.svids.iter().map(sent));
            response.federates_with.extend(entry.federates_with.clone());
        }
        response
    }

    pub fn bundles(&self) -> api::SubscribeToX509BundlesResponse {
        api::SubscribeToX509BundlesResponse { ca_certificates: self.bundles.clone() }
    }
}

fn sent(svid: &SentSvid) -> api::X509svidWithKey {
    let document = api::types::X509svid { cert_chain: svid.chain.clone(), ..Default::default() };
    api::X509svidWithKey { x509_svid: Some(document), x509_svid_key: svid.key.clone() }
}

/// The registry, with those who follow it and a record of who they are.
#[derive(Debug, Default)]
pub struct Shared {
    registry: watch::Sender<Registry>,
    subscriptions: Mutex<Vec<Subscription>>,
}

impl Shared {
    pub fn change(&self, change: impl FnOnce(&mut Registry)) {
        self.registry.send_modify(change);
    }

    pub fn follow(&self) -> watch::Receiver<Registry> {
        self.registry.subscribe()
    }

    pub fn subscriptions(&self) -> Vec<Subscription> {
        self.lock().clone()
    }

    /// Records a subscription; returns its number.
    pub fn opened(&self, selectors: Vec<String>, pid: i32) -> usize {
        let mut all = self.lock();
        all.push(Subscription { selectors, pid, open: true });
        all.len() - 1
    }

    pub fn closed(&self, number: usize) {
        self.lock()[number].open = false;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Subscription>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
