//! What policy says about the other end of an outbound flow: who must answer there, and in which TLS.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::DnsName;
use serde::{Deserialize, Serialize};
use sheath_common::pod_uid::PodUid;

use super::{Expectation, Listed, PresentedCertificate, Profile, Requirement};
use crate::origin::Origin;
use crate::spiffe::{IdPattern, SpiffeId};

/// The other end of an outbound flow.
#[derive(Clone, Debug)]
pub enum Target {
    /// An agent, or a peer that speaks TLS like one.
    Agent(Expectation),
    /// A pod of the cluster, behind the agent of its node.
    Pod { expectation: Expectation, uid: UidHash },
    /// A service without an agent.
    External {
        peer: Arc<ExternalPeer>,
        /// The name to ask for in the ClientHello (SNI, RFC 6066, 3).
        server_name: Option<DnsName<'static>>,
    },
}

/// The uid of a pod, hashed: it tells pods apart that have one address after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UidHash(pub u64);

impl From<PodUid> for UidHash {
    /// Uids are random, so any of their bits are as good as all (the finalizer of MurmurHash3).
    fn from(uid: PodUid) -> Self {
        let uid = u128::from_be_bytes(uid.to_bytes());
        let mix = |value: u64| {
            let value = (value ^ (value >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
            let value = (value ^ (value >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
            value ^ (value >> 33)
        };
        Self(mix((uid >> 64) as u64 ^ mix(uid as u64)))
    }
}

/// A service without an agent, and how to speak with it.
#[derive(Debug)]
pub struct ExternalPeer {
    pub name: String,
    pub expectation: Expectation,
    pub profile: Profile,
    pub certificate: PresentedCertificate,
    pub connect_timeout: Option<Duration>,
}

/// What another process must know of a [`Target`]: the rest is in its own policy. The order of the variants is part of the
/// format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SavedTarget {
    Agent,
    /// Which pod the directory has named, and by which SPIFFE IDs.
    Pod {
        uid: u64,
        ids: Vec<String>,
    },
    /// By the name of the external peer.
    External(String),
}

impl SavedTarget {
    /// A pod, as the directory has named it. `None` if it is no pod, or if its SPIFFE IDs are none.
    #[must_use]
    pub fn pod(&self) -> Option<Target> {
        let Self::Pod { uid, ids } = self else {
            return None;
        };
        let ids = ids.iter().map(|id| id.parse::<SpiffeId>().ok().map(Into::into));
        let ids = Listed::all(ids.collect::<Option<Vec<_>>>()?, &Origin::Directory);
        let requirement = Requirement::Svid { ids, pins: Vec::new() };
        let expectation = Expectation::one(Origin::Directory, requirement);
        Some(Target::Pod { expectation, uid: UidHash(*uid) })
    }
}

impl Target {
    #[must_use]
    pub fn save(&self) -> SavedTarget {
        match self {
            Self::Agent(_) => SavedTarget::Agent,
            Self::Pod { expectation, uid } => {
                SavedTarget::Pod { uid: uid.0, ids: exact_ids(expectation) }
            }
            Self::External { peer, .. } => SavedTarget::External(peer.name.clone()),
        }
    }

    /// Who must answer.
    #[must_use]
    pub fn expectation(&self) -> &Expectation {
        match self {
            Self::Agent(expectation) | Self::Pod { expectation, .. } => expectation,
            Self::External { peer, .. } => &peer.expectation,
        }
    }

    /// The rule that says so.
    #[must_use]
    pub fn rule(&self) -> Option<&Origin> {
        self.expectation().rule()
    }

    /// The name of an external peer.
    #[must_use]
    pub fn external_name(&self) -> Option<&str> {
        match self {
            Self::Agent(_) | Self::Pod { .. } => None,
            Self::External { peer, .. } => Some(&peer.name),
        }
    }

    /// Which pod it is, if the directory says so.
    #[must_use]
    pub fn pod(&self) -> Option<UidHash> {
        match self {
            Self::Pod { uid, .. } => Some(*uid),
            Self::Agent(_) | Self::External { .. } => None,
        }
    }

    /// True if whoever answers must be an agent: it proves itself by mutual TLS, or not at all.
    #[must_use]
    pub fn is_agent(&self) -> bool {
        match self {
            Self::Agent(_) | Self::Pod { .. } => true,
            Self::External { .. } => false,
        }
    }

    /// How long dialling it may take, if that is its own.
    #[must_use]
    pub fn connect_timeout(&self) -> Option<Duration> {
        match self {
            Self::Agent(_) | Self::Pod { .. } => None,
            Self::External { peer, .. } => peer.connect_timeout,
        }
    }
}

/// The SPIFFE IDs that the directory names.
fn exact_ids(expectation: &Expectation) -> Vec<String> {
    let mut exact = Vec::new();
    for alternative in expectation.alternatives() {
        if let Requirement::Svid { ids, .. } = &alternative.requirement {
            exact.extend(ids.iter().filter_map(|listed| match &listed.value {
                IdPattern::Exactly(id) => Some(id.to_string()),
                IdPattern::AnyOf(_) => None,
            }));
        }
    }
    exact
}
