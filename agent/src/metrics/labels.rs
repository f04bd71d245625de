//! Labels whose values are known when the agent is built.

use super::instruments::{Counter, Gauge, Histogram};
use super::snapshot::{Kind, Series, Value};

/// An enum whose variants are the values of a label.
pub trait Label: Copy + 'static {
    const NAME: &'static str;
    /// All variants, each at its [`index`](Self::index).
    const ALL: &'static [Self];

    fn index(self) -> usize;
    fn value(self) -> &'static str;
}

/// The labels of a metric: one, or two.
pub trait Labels: Copy + 'static {
    const NAMES: &'static [&'static str];

    /// Each combination of values, at its index.
    fn all() -> Vec<Self>;
    fn index(self) -> usize;
    /// In the order of the names.
    fn values(self) -> Vec<&'static str>;
}

impl<L: Label> Labels for L {
    const NAMES: &'static [&'static str] = &[L::NAME];

    fn all() -> Vec<Self> {
        L::ALL.to_vec()
    }

    fn index(self) -> usize {
        Label::index(self)
    }

    fn values(self) -> Vec<&'static str> {
        vec![self.value()]
    }
}

impl<A: Label, B: Label> Labels for (A, B) {
    const NAMES: &'static [&'static str] = &[A::NAME, B::NAME];

    fn all() -> Vec<Self> {
        A::ALL.iter().flat_map(|a| B::ALL.iter().map(|b| (*a, *b))).collect()
    }

    fn index(self) -> usize {
        self.0.index() * B::ALL.len() + self.1.index()
    }

    fn values(self) -> Vec<&'static str> {
        vec![self.0.value(), self.1.value()]
    }
}

/// One number for each value of the labels, all of them from the start.
#[derive(Debug)]
pub struct PerLabel<L, I> {
    instruments: Box<[I]>,
    labels: std::marker::PhantomData<fn(L)>,
}

impl<L: Labels, I> PerLabel<L, I> {
    #[must_use]
    pub fn new(make: impl Fn() -> I) -> Self {
        let instruments = L::all().iter().map(|_| make()).collect();
        Self { instruments, labels: std::marker::PhantomData }
    }

    #[must_use]
    pub fn of(&self, labels: L) -> &I {
        &self.instruments[labels.index()]
    }

    pub fn iter(&self) -> impl Iterator<Item = &I> {
        self.instruments.iter()
    }
}

impl<L: Labels, I: Default> Default for PerLabel<L, I> {
    fn default() -> Self {
        Self::new(I::default)
    }
}

/// A number that can be read.
pub trait Instrument: Send + Sync + 'static {
    const KIND: Kind;

    fn value(&self) -> Value;
}

impl Instrument for Counter {
    const KIND: Kind = Kind::Counter;

    fn value(&self) -> Value {
        Value::Number(self.get())
    }
}

impl Instrument for Gauge {
    const KIND: Kind = Kind::Gauge;

    fn value(&self) -> Value {
        Value::Number(self.get())
    }
}

impl Instrument for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn value(&self) -> Value {
        Value::Distribution(self.read())
    }
}

/// What an owner can register: a number, or one for each value of labels.
pub trait Metric: Send + Sync + 'static {
    const KIND: Kind;
    const LABELS: &'static [&'static str];

    fn series(&self) -> Vec<Series>;
}

impl<I: Instrument> Metric for I {
    const KIND: Kind = I::KIND;
    const LABELS: &'static [&'static str] = &[];

    fn series(&self) -> Vec<Series> {
        vec![Series::new(&[], &[], self.value())]
    }
}

impl<L: Labels, I: Instrument> Metric for PerLabel<L, I> {
    const KIND: Kind = I::KIND;
    const LABELS: &'static [&'static str] = L::NAMES;

    fn series(&self) -> Vec<Series> {
        L::all()
            .into_iter()
            .map(|labels| Series::new(L::NAMES, &labels.values(), self.of(labels).value()))
            .collect()
    }
}
