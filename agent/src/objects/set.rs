//! All objects that there are, whatever the order in which they came.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::model::{
    AuthorizationPolicy, ExternalPeer, IdentityTemplate, Kind, Malformed, Object, ObjectName,
    TlsContext, TrustDomain, WorkloadPolicy,
};
use crate::spiffe;

/// All objects that there are. Nothing depends on the order in which they came, and one that is removed leaves nothing
/// behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    pub(super) workload_policies: Kept<WorkloadPolicy>,
    pub(super) authorization_policies: Kept<AuthorizationPolicy>,
    pub(super) external_peers: Kept<ExternalPeer>,
    pub(super) tls_contexts: Kept<TlsContext>,
    pub(super) trust_domains: Kept<TrustDomain>,
}

/// The objects of a kind. `None` is one that was never readable: nobody knows what it is about.
pub(super) type Kept<T> = BTreeMap<ObjectName, Option<T>>;

/// What is the same for all pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The trust domain of all pods.
    pub domain: spiffe::TrustDomain,
    /// The SPIFFE ID of each.
    pub template: IdentityTemplate,
    /// The namespace that Sheath is installed in.
    pub system_namespace: Arc<str>,
}

impl Objects {
    /// Takes an object that is new or has changed.
    pub fn put(&mut self, name: ObjectName, object: Object) {
        match object {
            Object::WorkloadPolicy(policy) => {
                self.workload_policies.insert(name, Some(policy));
            }
            Object::AuthorizationPolicy(policy) => {
                self.authorization_policies.insert(name, Some(policy));
            }
            Object::ExternalPeer(peer) => {
                self.external_peers.insert(name, Some(peer));
            }
            Object::TlsContext(context) => {
                self.tls_contexts.insert(name, Some(context));
            }
            Object::TrustDomain(domain) => {
                self.trust_domains.insert(name, Some(domain));
            }
        }
    }

    /// Takes an object that makes no sense. What it said before stays in force, if it ever made sense.
    pub fn put_malformed(&mut self, malformed: &Malformed) {
        let name = malformed.name.clone();
        match malformed.kind {
            Kind::WorkloadPolicy => {
                self.workload_policies.entry(name).or_default();
            }
            Kind::AuthorizationPolicy => {
                self.authorization_policies.entry(name).or_default();
            }
            Kind::ExternalPeer => {
                self.external_peers.entry(name).or_default();
            }
            Kind::TlsContext => {
                self.tls_contexts.entry(name).or_default();
            }
            Kind::TrustDomain => {
                self.trust_domains.entry(name).or_default();
            }
        }
    }

    /// Forgets an object that is gone.
    pub fn remove(&mut self, kind: Kind, name: &ObjectName) {
        match kind {
            Kind::WorkloadPolicy => drop(self.workload_policies.remove(name)),
            Kind::AuthorizationPolicy => drop(self.authorization_policies.remove(name)),
            Kind::ExternalPeer => drop(self.external_peers.remove(name)),
            Kind::TlsContext => drop(self.tls_contexts.remove(name)),
            Kind::TrustDomain => drop(self.trust_domains.remove(name)),
        }
    }

    /// The TrustDomain, if there is one and it makes sense.
    #[must_use]
    pub fn trust_domain(&self) -> Option<&TrustDomain> {
        self.trust_domains.values().find_map(Option::as_ref)
    }

    /// True if a trust domain is the cluster's, or one that its TrustDomain federates with.
    #[must_use]
    pub fn believes(&self, cluster: &Cluster, domain: &spiffe::TrustDomain) -> bool {
        let federates = |own: &TrustDomain| own.federated.contains_key(domain);
        cluster.domain == *domain || self.trust_domain().is_some_and(federates)
    }
}

/// Those of a namespace.
pub(super) fn within<'o, T>(
    objects: &'o Kept<T>,
    namespace: &'o str,
) -> impl Iterator<Item = (&'o ObjectName, Option<&'o T>)> {
    let is_there = move |(name, _): &(&ObjectName, _)| *name.namespace == *namespace;
    objects.iter().map(|(name, object)| (name, object.as_ref())).filter(is_there)
}
