//! What is watched of Services and their endpoints.

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::api::discovery::v1::EndpointSlice as EndpointSliceObject;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::feed::Feed;
use crate::controller::watches::Objects;
use crate::kubernetes::{Change, EndpointSlice, Service, ServiceName};
use crate::services::SliceName;

/// Lists that are being read, and where they go.
pub struct Serving {
    feed: Arc<Feed>,
    services: HashSet<ServiceName>,
    slices: HashSet<SliceName>,
}

impl Serving {
    #[must_use]
    pub fn new(feed: Arc<Feed>) -> Self {
        Self { feed, services: HashSet::new(), slices: HashSet::new() }
    }

    pub fn service(&mut self, change: Change<api::Service>) {
        match change {
            Change::Init => self.services.clear(),
            Change::InitApply(object) => {
                self.services.extend(ServiceName::of(&object.metadata));
                self.set_service(&object);
            }
            Change::InitDone => {
                let listed = std::mem::take(&mut self.services);
                self.feed.change(|cluster| cluster.services().0.keep_services(&listed));
                self.feed.listed(Objects::Services);
            }
            Change::Apply(object) => self.set_service(&object),
            Change::Delete(object) => self.remove_service(&object),
        }
    }

    /// One that makes no sense is as it was before.
    fn set_service(&self, object: &api::Service) {
        match Service::of(object) {
            Ok(Some(service)) => self.feed.change(|cluster| {
                let (services, bounds) = cluster.services();
                services.set_service(service, bounds);
            }),
            Ok(None) => self.remove_service(object),
            Err(problem) => told(&problem),
        }
    }

    fn remove_service(&self, object: &api::Service) {
        if let Ok(name) = ServiceName::of(&object.metadata) {
            self.feed.change(|cluster| cluster.services().0.remove_service(&name));
        }
    }

    pub fn slice(&mut self, change: Change<EndpointSliceObject>) {
        match change {
            Change::Init => self.slices.clear(),
            Change::InitApply(object) => {
                self.slices.extend(slice_name(&object.metadata));
                self.set_slice(&object);
            }
            Change::InitDone => {
                let listed = std::mem::take(&mut self.slices);
                self.feed.change(|cluster| cluster.services().0.keep_slices(&listed));
                self.feed.listed(Objects::EndpointSlices);
            }
            Change::Apply(object) => self.set_slice(&object),
            Change::Delete(object) => self.remove_slice(&object),
        }
    }

    fn set_slice(&self, object: &EndpointSliceObject) {
        match EndpointSlice::of(object) {
            Ok(Some(slice)) => self.feed.change(|cluster| {
                let (services, bounds) = cluster.services();
                services.set_slice(slice, bounds);
            }),
            Ok(None) => self.remove_slice(object),
            Err(problem) => told(&problem),
        }
    }

    fn remove_slice(&self, object: &EndpointSliceObject) {
        if let Some(name) = slice_name(&object.metadata) {
            self.feed.change(|cluster| cluster.services().0.remove_slice(&name));
        }
    }
}

fn slice_name(metadata: &ObjectMeta) -> Option<SliceName> {
    let ServiceName { namespace, name } = ServiceName::of(metadata).ok()?;
    Some((namespace, name))
}

fn told(problem: &dyn Display) {
    tracing::warn!(%problem, "not in the directory, or as it was before");
}
