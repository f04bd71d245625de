//! A pod, as far as the directory needs it: a few words, most of them shared with other pods.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::controller::pods::KnownPod;
use crate::kubernetes::{Lifetime, Wish, spiffe_id};
use crate::spiffe::TrustDomain;

/// A pod with addresses of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPod {
    pub namespace: Arc<str>,
    pub node: Arc<str>,
    /// `None` if its names make no SPIFFE ID: it cannot be protected.
    pub identity: Option<Arc<str>>,
    pub addresses: Box<[IpAddr]>,
    pub wish: Wish,
    pub is_mirror: bool,
    /// It was deleted, and may take its time to end.
    pub is_ending: bool,
}

/// Texts that very many pods share, each kept once.
#[derive(Debug, Default)]
pub struct Texts {
    known: HashSet<Arc<str>>,
    used: usize,
}

/// So many more than are used may be known.
const SPARE: usize = 1024;

impl Texts {
    pub fn one(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        if self.known.len() > 2 * self.used + SPARE {
            self.known.retain(|text| Arc::strong_count(text) > 1);
            self.used = self.known.len();
        }
        let text: Arc<str> = text.into();
        self.known.insert(text.clone());
        text
    }
}

impl ClusterPod {
    /// `None` of a pod that has no address of its own, or not any more.
    #[must_use]
    pub fn of(pod: &KnownPod, trust_domain: &TrustDomain, texts: &mut Texts) -> Option<Self> {
        let is_there = !pod.host_network && pod.lifetime != Lifetime::Over && !pod.node.is_empty();
        if !is_there || pod.addresses.is_empty() {
            return None;
        }
        let id = spiffe_id(trust_domain, &pod.namespace, &pod.service_account).ok();
        Some(Self {
            namespace: texts.one(&pod.namespace),
            node: texts.one(&pod.node),
            identity: id.map(|id| texts.one(id.as_str())),
            addresses: pod.addresses.clone(),
            wish: pod.wish.clone(),
            is_mirror: pod.is_mirror,
            is_ending: pod.lifetime == Lifetime::Ending,
        })
    }
}
