//! The one list of everything that is counted.

use std::fmt;
use std::sync::Arc;

use sheath_common::workload::WorkloadId;

use super::labels::{Labels, Metric};
use super::snapshot::{Family, Kind, Series, Snapshot, Value};

/// The label that says which workload something was counted for. Its value is the workload's name.
const WORKLOAD: &str = "workload";
/// Workloads that have a series of their own; what is counted for others is in the total alone.
const MAX_WORKLOADS: usize = 1024;

/// Endings that no name may have: they are added where metrics are shown.
const RESERVED_ENDINGS: [&str; 4] = ["_total", "_count", "_sum", "_bucket"];
/// The label that is added to the buckets of histograms.
const BUCKET_LABEL: &str = "le";
/// The ending of every histogram's name.
const HISTOGRAM_ENDING: &str = "_seconds";

/// Why something cannot be registered. The cause is in the code, never in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    #[error("two metrics are called `{0}`")]
    Duplicate(&'static str),
    #[error(
        "`{0}` cannot be the name of a metric or a label: lower-case letters, digits and `_`, and nothing that is added \
         where metrics are shown"
    )]
    Name(&'static str),
    #[error("the histogram `{0}` must say its unit: `..._seconds`")]
    Unit(&'static str),
    #[error("the metric `{0}` needs a help text: one line that ends with a full stop")]
    Help(&'static str),
}

/// The kinds of a number that the owner reads itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    Counter,
    Gauge,
}

impl From<Scalar> for Kind {
    fn from(scalar: Scalar) -> Self {
        match scalar {
            Scalar::Counter => Self::Counter,
            Scalar::Gauge => Self::Gauge,
        }
    }
}

/// What was counted for each workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfWorkloads {
    pub living: Vec<(WorkloadId, u64)>,
    /// For workloads that are gone. Only of counters: their total must not go down.
    pub gone: u64,
}

/// Every metric there is, with the way to read it. Complete before anybody reads it.
pub struct Registry {
    registered: Vec<Registered>,
    workload_name: Box<WorkloadName>,
}

type WorkloadName = dyn Fn(WorkloadId) -> Option<String> + Send + Sync;

struct Registered {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    read: Box<Read>,
}

/// `None` if it cannot be read at present.
type Read = dyn Fn(&WorkloadName) -> Option<Reading> + Send + Sync;

#[derive(Default)]
struct Reading {
    series: Vec<Series>,
    rest: u64,
}

impl From<Vec<Series>> for Reading {
    fn from(series: Vec<Series>) -> Self {
        Self { series, rest: 0 }
    }
}

impl Registry {
    /// `workload_name` knows the workloads that there are.
    #[must_use]
    pub fn new(
        workload_name: impl Fn(WorkloadId) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self { registered: Vec::new(), workload_name: Box::new(workload_name) }
    }

    /// Registers a number that `owner` keeps.
    ///
    /// # Errors
    /// If the name is taken, or if the name or the help text is not in order ([`RegistryError`]).
    pub fn register<T, M>(
        &mut self,
        name: &'static str,
        help: &'static str,
        owner: &Arc<T>,
        metric: fn(&T) -> &M,
    ) -> Result<(), RegistryError>
    where
        T: Send + Sync + 'static,
        M: Metric,
    {
        let owner = owner.clone();
        self.add(name, help, M::KIND, M::LABELS, move |_| Some(metric(&owner).series().into()))
    }

    /// Registers a number that is read when somebody asks for it. Where `read` returns `None`, the metric is left out.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub fn register_read(
        &mut self,
        kind: Scalar,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> Option<u64> + Send + Sync + 'static,
    ) -> Result<(), RegistryError> {
        let read = move |_: &WorkloadName| {
            Some(vec![Series::new(&[], &[], Value::Number(read()?))].into())
        };
        self.add(name, help, kind.into(), &[], read)
    }

    /// The same with a number for each value of labels. Where `read` returns `None`, that value is left out.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub fn register_read_by<L: Labels>(
        &mut self,
        kind: Scalar,
        name: &'static str,
        help: &'static str,
        read: impl Fn(L) -> Option<u64> + Send + Sync + 'static,
    ) -> Result<(), RegistryError> {
        let series = move |labels: L| {
            let value = Value::Number(read(labels)?);
            Some(Series::new(L::NAMES, &labels.values(), value))
        };
        let read = move |_: &WorkloadName| {
            let series: Vec<_> = L::all().into_iter().filter_map(&series).collect();
            Some(series.into())
        };
        self.add(name, help, kind.into(), L::NAMES, read)
    }

    /// The same with a number for each workload.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub fn register_by_workload(
        &mut self,
        kind: Scalar,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> OfWorkloads + Send + Sync + 'static,
    ) -> Result<(), RegistryError> {
        let read = move |workload_name: &WorkloadName| Some(by_workload(read(), workload_name));
        self.add(name, help, kind.into(), &[WORKLOAD], read)
    }

    fn add(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        labels: &[&'static str],
        read: impl Fn(&WorkloadName) -> Option<Reading> + Send + Sync + 'static,
    ) -> Result<(), RegistryError> {
        if self.registered.iter().any(|other| other.name == name) {
            return Err(RegistryError::Duplicate(name));
        }
        if RESERVED_ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            return Err(RegistryError::Name(name));
        }
        if let Some(wrong) = [name].iter().chain(labels).find(|name| !is_name(name)) {
            return Err(RegistryError::Name(wrong));
        }
        if labels.contains(&BUCKET_LABEL) {
            return Err(RegistryError::Name(BUCKET_LABEL));
        }
        if kind == Kind::Histogram && !name.ends_with(HISTOGRAM_ENDING) {
            return Err(RegistryError::Unit(name));
        }
        if !help.ends_with('.') || help.contains(char::is_control) {
            return Err(RegistryError::Help(name));
        }
        self.registered.push(Registered { name, help, kind, read: Box::new(read) });
        Ok(())
    }

    /// Reads everything.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let families = self.registered.iter().filter_map(|registered| {
            let Registered { name, help, kind, ref read } = *registered;
            let Reading { mut series, rest } = read(&*self.workload_name)?;
            series.sort_by(|a, b| a.labels.cmp(&b.labels));
            Some(Family { name, kind, help, series, rest })
        });
        Snapshot(families.collect())
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.registered.iter().map(|registered| registered.name);
        f.debug_list().entries(names).finish()
    }
}

fn is_name(name: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(is_inner)
}

/// A series for each workload that has a name, for as many as there may be: those with the smallest ids, which have them for
/// longest.
fn by_workload(counted: OfWorkloads, workload_name: &WorkloadName) -> Reading {
    let OfWorkloads { mut living, gone } = counted;
    living.sort_unstable();
    let mut reading = Reading { series: Vec::new(), rest: gone };
    for (workload, value) in living {
        match workload_name(workload) {
            Some(name) if reading.series.len() < MAX_WORKLOADS => {
                reading.series.push(Series::new(&[WORKLOAD], &[&name], Value::Number(value)));
            }
            _ => reading.rest += value,
        }
    }
    reading
}

#[cfg(test)]
mod tests;
