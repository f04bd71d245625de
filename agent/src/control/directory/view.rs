//! The directory in `sheath status`.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use serde::Serialize;

use crate::directory::{Shared, Standing};
use crate::metrics::{Registry, RegistryError, Scalar};
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
    /// Why the controller is not heard; empty if it is.
    pub problem: String,
}

impl DirectoryViews {
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, link: Arc::default() }
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
            problem: link.problem.clone(),
        }
    }
}
