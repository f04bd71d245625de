//! Chooses for the flows of this node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use rustls::crypto::SecureRandom;

use super::affinity::Affinity;
use super::choice::{self, Choice, Client, NoEndpoint, Standing, Tried};
use super::endpoints::Backend;
use super::frontend::{Frontend, Served, Services};

/// Chooses endpoints, by what is published.
#[derive(Debug)]
pub struct Chooser {
    services: Arc<ArcSwap<Services>>,
    affinity: Affinity,
    random: &'static dyn SecureRandom,
}

impl Chooser {
    #[must_use]
    pub fn new(services: Arc<ArcSwap<Services>>, random: &'static dyn SecureRandom) -> Self {
        Self { services, affinity: Affinity::default(), random }
    }

    /// What it chooses by.
    #[must_use]
    pub fn services(&self) -> Arc<ArcSwap<Services>> {
        self.services.clone()
    }

    /// The Service at a destination, if there is one.
    ///
    /// # Errors
    /// If nobody is believed to be there.
    pub fn at(&self, destination: SocketAddr) -> Result<Option<Arc<Served>>, NoEndpoint> {
        match self.services.load().at(destination) {
            None => Ok(None),
            Some(Frontend::Served(served)) => Ok(Some(served.clone())),
            Some(Frontend::Claimed(one, other)) => {
                Err(NoEndpoint::Claimed(one.clone(), other.clone()))
            }
            Some(Frontend::Foreign(service)) => Err(NoEndpoint::Foreign(service.clone())),
            Some(Frontend::NoRoom(service)) => Err(NoEndpoint::NoRoom(service.clone())),
        }
    }

    /// Chooses an endpoint; another one than that which was `tried`.
    ///
    /// # Errors
    /// Why none may be called.
    pub fn choose(
        &self,
        served: &Served,
        client: &Client,
        tried: Tried,
        standing: &dyn Fn(&Backend) -> Standing,
    ) -> Result<Choice, NoEndpoint> {
        let random = || {
            let mut bytes = [0; 8];
            // Without random numbers there is no TLS either; then any endpoint will do.
            let _ = self.random.fill(&mut bytes);
            u64::from_ne_bytes(bytes)
        };
        let now = Instant::now();
        choice::choose(served, client, tried, standing, &self.affinity, random, now)
    }

    /// How many clients are known to have an endpoint of their own.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.affinity.len()
    }
}
