//! Namespaces, as far as they matter here.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as api;
use kube::ResourceExt;
use kube::core::PartialObjectMeta;
use serde::{Deserialize, Serialize};

use super::Wish;

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    pub name: Arc<str>,
    /// What its label asks for.
    pub wish: Wish,
}

impl Namespace {
    /// `None` if it has no name, which no API server sends.
    #[must_use]
    pub fn of(object: &PartialObjectMeta<api::Namespace>) -> Option<Self> {
        let name = object.metadata.name.as_deref()?;
        Some(Self { name: name.into(), wish: Wish::of(Some(object.labels())) })
    }
}
