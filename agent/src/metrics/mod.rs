//! What the agent counts.
//!
//! The owner of a number keeps it: a [`Counter`], a [`Gauge`], a [`Histogram`], or a [`PerLabel`] of these. Counting is one
//! atomic instruction there, without a lock, a lookup or an allocation. When the agent starts, each owner registers its numbers
//! with the [`Registry`], which gives them names and help texts, refuses names that clash, and reads them on request.
//! For a number that is not kept in this way (a map of the kernel, a sum over workloads), the owner registers a function.
//!
//! `sheath status` shows a [`Snapshot`], and [`exposition`] makes a text of it that Prometheus reads. Any other output of metrics needs
//! no more than that.
//!
//! This module imports nothing of the agent, so that everything may count.

mod exposition;
mod instruments;
mod labels;
mod registry;
mod snapshot;

pub use exposition::{CONTENT_TYPE, exposition};
pub use instruments::{Bounds, Counter, Gauge, Histogram};
pub use labels::{Label, Labels, PerLabel};
pub use registry::{OfWorkloads, Registry, RegistryError, Scalar};
pub use snapshot::{Bucket, Distribution, Family, Kind, Series, Snapshot, Value};
