//! The directory in `sheath status`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use serde::Serialize;

use crate::directory::{Shared, Standing};
use crate::metrics::{Registry, RegistryError, Scalar};
use crate::services::{Frontend, Notes, Services};
use crate::telemetry::rfc3339;

/// The stream of the controller, as it is.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// The controller is heard.
    pub is_open: bool,
    /// When it was heard last.
    pub heard: Option<SystemTime>,
    /// Why it is not heard; empty if it is.
    pub problem: String,
}

/// Where the parts of a view come from.
#[derive(Clone, Debug)]
pub struct DirectoryViews {
    pub(super) shared: Arc<Shared>,
    services: Arc<ArcSwap<Services>>,
    pub(super) link: Arc<ArcSwap<Link>>,
}

/// The directory, as it is known.
#[derive(Clone, Debug, Serialize)]
pub struct DirectoryView {
    /// False as long as nothing is known.
    pub known: bool,
    pub epoch: u64,
    pub sequence: u64,
    /// What is known is what the controller knows.
    pub current: bool,
    /// When the controller was heard last (RFC 3339); empty if never by this run of the agent.
    pub heard: String,
    pub entries: usize,
    pub plain: usize,
    pub pending: usize,
    pub protected: usize,
    /// Addresses that only the directory can tell of.
    pub ranges: Vec<String>,
    pub services: ServicesView,
    /// Why the controller is not heard; empty if it is.
    pub problem: String,
}

/// What is known of Services.
#[derive(Clone, Debug, Serialize)]
pub struct ServicesView {
    /// Those that are bypassed by their names.
    pub bypassed: Vec<BypassedView>,
    /// Addresses that a Service says it has, and that are another's or the cluster's own: some of them, with the reason.
    pub closed: BTreeMap<IpAddr, String>,
    /// How many of these there are.
    pub closed_addresses: usize,
    /// Services for which there is no room: some of them. Their addresses are refused.
    pub without_room: Vec<String>,
    /// How many of these there are.
    pub services_without_room: usize,
}

/// A Service that is bypassed by its name.
#[derive(Clone, Debug, Serialize)]
pub struct BypassedView {
    pub service: String,
    /// Where it is. Nowhere: there is no such Service, or no such port, and nothing is bypassed.
    pub at: Vec<SocketAddr>,
}

/// So many of a kind are named.
const MOST_NAMED: usize = 20;

impl ServicesView {
    fn of(services: &Services) -> Self {
        let Notes { bypassed, closed, without_room } = services.notes();
        let reason = |frontend: &Frontend| match frontend {
            Frontend::Claimed(one, other) => format!("{one} and {other} say that they have it"),
            other => format!("{} says that it has it, and it is the cluster's", other.service()),
        };
        let closed_ones = closed.iter().take(MOST_NAMED);
        Self {
            bypassed: bypassed
                .iter()
                .map(|(service, at)| BypassedView { service: service.to_string(), at: at.clone() })
                .collect(),
            closed: closed_ones.map(|(address, of)| (*address, reason(of))).collect(),
            closed_addresses: closed.len(),
            without_room: without_room.iter().take(MOST_NAMED).map(ToString::to_string).collect(),
            services_without_room: without_room.len(),
        }
    }
}

impl DirectoryViews {
    #[must_use]
    pub fn new(shared: Arc<Shared>, services: Arc<ArcSwap<Services>>) -> Self {
        Self { shared, services, link: Arc::default() }
    }

    /// Registers what is known.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn register(&self, registry: &mut Registry) -> Result<(), RegistryError> {
        let shared = self.shared.clone();
        registry.register_read(
            Scalar::Gauge,
            "directory_entries",
            "Addresses of the cluster that the controller's directory has told of.",
            move || Some(shared.load().len() as u64),
        )?;
        let services = self.services.clone();
        registry.register_read(
            Scalar::Gauge,
            "services_without_room",
            "Services that are refused, as their namespaces have more ports or endpoints of Services than their share.",
            move || Some(services.load().notes().without_room.len() as u64),
        )?;
        let services = self.services.clone();
        registry.register_read(
            Scalar::Gauge,
            "service_addresses_closed",
            "Addresses that a Service says it has, and that are another's or the cluster's own.",
            move || Some(services.load().notes().closed.len() as u64),
        )?;
        let link = self.link.clone();
        registry.register_read(
            Scalar::Gauge,
            "directory_current",
            "1 while the controller's directory is followed.",
            move || Some(link.load().is_open.into()),
        )
    }

    #[must_use]
    pub fn view(&self) -> DirectoryView {
        let (directory, link) = (self.shared.load(), self.link.load());
        let (mut plain, mut pending, mut protected) = (0, 0, 0);
        for (_, entry) in directory.entries() {
            match entry.standing {
                Standing::Plain => plain += 1,
                Standing::Pending { .. } => pending += 1,
                Standing::Protected { .. } => protected += 1,
            }
        }
        let position = directory.position();
        DirectoryView {
            known: position.is_some(),
            epoch: position.map_or(0, |position| position.epoch),
            sequence: position.map_or(0, |position| position.sequence),
            current: link.is_open,
            heard: link.heard.map(rfc3339).unwrap_or_default(),
            entries: directory.len(),
            plain,
            pending,
            protected,
            ranges: directory.ranges().iter().map(ToString::to_string).collect(),
            services: ServicesView::of(&self.services.load()),
            problem: link.problem.clone(),
        }
    }
}
