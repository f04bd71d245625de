//! Any of the kinds, as the API has it.

use std::fmt;
use std::sync::Arc;

use kube::Resource;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::wrong::Wrong;
use super::{AuthorizationPolicy, ExternalPeer, TlsContext, TrustDomain, WorkloadPolicy};
use crate::objects::schema;

/// The kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    WorkloadPolicy,
    AuthorizationPolicy,
    ExternalPeer,
    TlsContext,
    TrustDomain,
}

/// The name of an object. What is not in a namespace has an empty one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// An object that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    WorkloadPolicy(WorkloadPolicy),
    AuthorizationPolicy(AuthorizationPolicy),
    ExternalPeer(ExternalPeer),
    TlsContext(TlsContext),
    TrustDomain(TrustDomain),
}

/// An object that makes none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name}: {wrong}")]
pub struct Malformed {
    pub kind: Kind,
    pub name: ObjectName,
    pub wrong: Wrong,
}

/// Values of `certificate` that are not names of contexts.
const RESERVED: [&str; 2] = ["svid", "none"];
/// The only one.
const ONLY_TRUST_DOMAIN: &str = "default";

impl Object {
    /// Reads an object of the API.
    ///
    /// # Errors
    /// What makes no sense, with the field.
    pub fn read(kind: Kind, value: &Value) -> Result<(ObjectName, Self), Malformed> {
        let name = ObjectName::of(value);
        let with = |wrong: Wrong| Malformed { kind, name: name.clone(), wrong };
        let parsed = match kind {
            Kind::WorkloadPolicy => {
                let spec = typed::<schema::WorkloadPolicy>(value).map_err(with)?.spec;
                WorkloadPolicy::parse(&spec).map(Self::WorkloadPolicy)
            }
            Kind::AuthorizationPolicy => {
                let spec = typed::<schema::AuthorizationPolicy>(value).map_err(with)?.spec;
                AuthorizationPolicy::parse(&spec).map(Self::AuthorizationPolicy)
            }
            Kind::ExternalPeer => {
                let spec = typed::<schema::ExternalPeer>(value).map_err(with)?.spec;
                ExternalPeer::parse(&spec).map(Self::ExternalPeer)
            }
            Kind::TlsContext => {
                let spec = typed::<schema::TlsContext>(value).map_err(with)?.spec;
                TlsContext::parse(&spec).map(Self::TlsContext)
            }
            Kind::TrustDomain => {
                let spec = typed::<schema::TrustDomain>(value).map_err(with)?.spec;
                TrustDomain::parse(&spec).map(Self::TrustDomain)
            }
        };
        check_name(kind, &name).map_err(with)?;
        match parsed {
            Ok(object) => Ok((name, object)),
            Err(wrong) => Err(with(wrong.within("spec"))),
        }
    }

    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::WorkloadPolicy(_) => Kind::WorkloadPolicy,
            Self::AuthorizationPolicy(_) => Kind::AuthorizationPolicy,
            Self::ExternalPeer(_) => Kind::ExternalPeer,
            Self::TlsContext(_) => Kind::TlsContext,
            Self::TrustDomain(_) => Kind::TrustDomain,
        }
    }
}

/// The object by its type, unknown fields refused.
fn typed<K: Resource + DeserializeOwned>(value: &Value) -> Result<K, Wrong> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let wrong = Wrong::new(error.inner());
        match error.path().to_string() {
            path if path == "." => wrong,
            path => wrong.within(&path),
        }
    })
}

fn check_name(kind: Kind, name: &ObjectName) -> Result<(), Wrong> {
    let wrong = match (kind, &*name.name) {
        (_, "") => "is missing",
        (Kind::TlsContext, reserved) if RESERVED.contains(&reserved) => {
            "a TlsContext cannot be called `svid` or `none`, which mean something else"
        }
        (Kind::TrustDomain, other) if other != ONLY_TRUST_DOMAIN => {
            "there is one TrustDomain, called `default`"
        }
        _ => return Ok(()),
    };
    Err(Wrong::new(wrong).within("metadata.name"))
}

impl ObjectName {
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// That of an object of the API.
    #[must_use]
    pub fn of(value: &Value) -> Self {
        let text = |key: &str| value["metadata"][key].as_str().unwrap_or_default();
        Self::new(text("namespace"), text("name"))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.is_empty() {
            true => f.write_str(&self.name),
            false => write!(f, "{}/{}", self.namespace, self.name),
        }
    }
}

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::WorkloadPolicy,
        Self::AuthorizationPolicy,
        Self::ExternalPeer,
        Self::TlsContext,
        Self::TrustDomain,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WorkloadPolicy => "WorkloadPolicy",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::ExternalPeer => "ExternalPeer",
            Self::TlsContext => "TlsContext",
            Self::TrustDomain => "TrustDomain",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
