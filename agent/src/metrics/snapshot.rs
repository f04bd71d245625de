//! All metrics as they were at one moment, for every output.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// What a metric's values mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Only goes up, from zero at the start of the agent or the programs.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How values are distributed.
    Histogram,
}

/// All metrics, in the order in which they were registered.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Snapshot(pub Vec<Family>);

impl Snapshot {
    #[must_use]
    pub fn family(&self, name: &str) -> Option<&Family> {
        self.0.iter().find(|family| family.name == name)
    }

    /// The sum over all that a metric counts; zero if it cannot be read.
    #[must_use]
    pub fn total(&self, name: &str) -> u64 {
        self.family(name).map(Family::total).unwrap_or_default()
    }

    /// The value of the series that has this label; zero if there is none.
    #[must_use]
    pub fn labelled(&self, name: &str, label: &str, value: &str) -> u64 {
        let series = self.family(name).into_iter().flat_map(|family| &family.series);
        let mut labelled =
            series.filter(|series| series.labels.get(label).is_some_and(|own| own == value));
        labelled.next().map(|series| series.value.count()).unwrap_or_default()
    }
}

/// A metric, with a value for each combination of labels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
    /// In the order of their labels.
    pub series: Vec<Series>,
    /// What belongs to the total and to no series: it was counted for workloads that are gone, or for which there was no
    /// series left.
    pub rest: u64,
}

impl Family {
    /// The sum over everything that was counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.rest + self.series.iter().map(|series| series.value.count()).sum::<u64>()
    }
}

/// One value, and what it was counted for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    pub labels: BTreeMap<&'static str, String>,
    #[serde(flatten)]
    pub value: Value,
}

impl Series {
    pub(super) fn new(names: &[&'static str], values: &[&str], value: Value) -> Self {
        let values = values.iter().map(|value| (*value).to_owned());
        Self { labels: names.iter().copied().zip(values).collect(), value }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Value {
    /// Of a counter or a gauge.
    #[serde(rename = "value")]
    Number(u64),
    /// Of a histogram.
    Distribution(Distribution),
}

impl Value {
    /// The number itself, or how many values were observed.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            Self::Distribution(distribution) => distribution.count,
        }
    }
}

/// How long things took.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Distribution {
    pub count: u64,
    /// In JSON in seconds, as all durations here.
    #[serde(serialize_with = "seconds")]
    pub sum: Duration,
    /// Each counts what the one before it counts, too. Without the last one, which would count everything.
    pub buckets: Vec<Bucket>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bucket {
    /// The longest that is counted here.
    #[serde(serialize_with = "seconds")]
    pub le: Duration,
    pub count: u64,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
