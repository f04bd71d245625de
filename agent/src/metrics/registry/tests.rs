use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::metrics::{Bounds, Counter, Gauge, Histogram, Label, PerLabel};

#[derive(Clone, Copy, Debug)]
enum Fruit {
    Apple,
    Pear,
}

impl Label for Fruit {
    const NAME: &'static str = "fruit";
    const ALL: &'static [Self] = &[Self::Apple, Self::Pear];

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> &'static str {
        match self {
            Self::Apple => "apple",
            Self::Pear => "pear",
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Size {
    Small,
    Large,
}

impl Label for Size {
    const NAME: &'static str = "size";
    const ALL: &'static [Self] = &[Self::Small, Self::Large];

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
        }
    }
}

/// An owner with a metric of each kind.
struct Orchard {
    visitors: Counter,
    ladders: Gauge,
    picked: PerLabel<(Fruit, Size), Counter>,
    picking: PerLabel<Fruit, Histogram>,
}

impl Orchard {
    fn new() -> Arc<Self> {
        const BOUNDS: Bounds = Bounds::new(&[Duration::from_millis(500), Duration::from_secs(2)]);
        Arc::new(Self {
            visitors: Counter::default(),
            ladders: Gauge::default(),
            picked: PerLabel::default(),
            picking: PerLabel::new(|| Histogram::new(BOUNDS)),
        })
    }

    fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry.register("visitors", "Visitors.", self, |own| &own.visitors).unwrap();
        registry.register("ladders", "Ladders.", self, |own| &own.ladders).unwrap();
        registry.register("picked", "Fruit picked.", self, |own| &own.picked).unwrap();
        registry.register("picking_seconds", "Time to pick.", self, |own| &own.picking).unwrap();
    }
}

fn registry() -> Registry {
    Registry::new(|workload| Some(format!("w{workload}")))
}

#[test]
fn what_is_rendered_twice_is_the_same_and_in_order() {
    let orchard = Orchard::new();
    let mut registry = registry();
    orchard.register(&mut registry);
    let counted = || OfWorkloads { living: vec![(9, 1), (10, 2), (2, 3)], gone: 4 };
    registry.register_by_workload(Scalar::Counter, "eaten", "Fruit eaten.", counted).unwrap();
    orchard.visitors.increment();
    orchard.picked.of((Fruit::Pear, Size::Small)).increment();
    let first = registry.snapshot();
    assert_eq!(first, registry.snapshot());

    let names: Vec<_> = first.0.iter().map(|family| family.name).collect();
    assert_eq!(names, ["visitors", "ladders", "picked", "picking_seconds", "eaten"]);
    let workloads = first.family("eaten").unwrap().series.iter();
    let workloads: Vec<_> = workloads.map(|series| series.labels[WORKLOAD].clone()).collect();
    assert_eq!(workloads, ["w10", "w2", "w9"]);
    assert_eq!((first.total("eaten"), first.labelled("eaten", WORKLOAD, "w10")), (10, 2));
    // Every value of a label is there from the start: a zero is a value, too.
    assert_eq!(first.family("picked").unwrap().series.len(), 4);
}

#[test]
fn a_number_is_counted_for_its_labels_alone() {
    let orchard = Orchard::new();
    let mut registry = registry();
    orchard.register(&mut registry);
    for (count, (fruit, size)) in <(Fruit, Size)>::all().into_iter().enumerate() {
        for _ in 0..count {
            orchard.picked.of((fruit, size)).increment();
        }
    }
    let snapshot = registry.snapshot();
    let picked: Vec<_> = snapshot
        .family("picked")
        .unwrap()
        .series
        .iter()
        .map(|series| {
            let [fruit, size] = ["fruit", "size"].map(|label| series.labels[label].as_str());
            (fruit, size, series.value.count())
        })
        .collect();
    assert_eq!(
        picked,
        [("apple", "large", 1), ("apple", "small", 0), ("pear", "large", 3), ("pear", "small", 2)]
    );
}

#[test]
fn what_would_clash_or_say_nothing_is_refused() {
    let orchard = Orchard::new();
    let mut registry = registry();
    orchard.register(&mut registry);
    let mut add = |name, help| registry.register(name, help, &orchard, |own| &own.visitors);
    assert_eq!(add("visitors", "Others."), Err(RegistryError::Duplicate("visitors")));
    // Whoever registers it, and of whatever kind it is.
    assert_eq!(add("picking_seconds", "Others."), Err(RegistryError::Duplicate("picking_seconds")));
    for name in ["", "Visitors", "2nd", "a-b", "a b", "_a", "all_total", "all_sum", "all_count"] {
        assert_eq!(add(name, "Help."), Err(RegistryError::Name(name)));
    }
    for help in ["", "Without a stop", "Two\nlines."] {
        assert_eq!(add("others", help), Err(RegistryError::Help("others")));
    }
    assert_eq!(add("others", "Others."), Ok(()));

    let unit = registry.register("picking", "Time.", &orchard, |own| &own.picking);
    assert_eq!(unit, Err(RegistryError::Unit("picking")));
    let read = registry.register_read(Scalar::Gauge, "ladders", "Ladders.", || Some(1));
    assert_eq!(read, Err(RegistryError::Duplicate("ladders")));
    let families = registry.snapshot().0.len();
    assert_eq!(families, 5, "what is refused is not registered");
}

#[test]
fn values_are_of_the_kind_that_their_metric_is_of() {
    let orchard = Orchard::new();
    let mut registry = registry();
    orchard.register(&mut registry);
    registry.register_read(Scalar::Counter, "rain", "Rainy days.", || Some(3)).unwrap();
    registry
        .register_read_by(Scalar::Gauge, "trees", "Trees.", |fruit: Fruit| Some(fruit as u64))
        .unwrap();
    let snapshot = registry.snapshot();
    let kinds: BTreeMap<_, _> =
        snapshot.0.iter().map(|family| (family.name, family.kind)).collect();
    assert_eq!(
        kinds,
        BTreeMap::from([
            ("ladders", Kind::Gauge),
            ("picked", Kind::Counter),
            ("picking_seconds", Kind::Histogram),
            ("rain", Kind::Counter),
            ("trees", Kind::Gauge),
            ("visitors", Kind::Counter),
        ])
    );
    for family in &snapshot.0 {
        for series in &family.series {
            let is_distribution = matches!(series.value, Value::Distribution(_));
            assert_eq!(is_distribution, family.kind == Kind::Histogram, "{}", family.name);
        }
    }
}

#[test]
fn what_cannot_be_read_is_left_out_until_it_can() {
    let is_there = Arc::new(AtomicBool::new(false));
    let mut registry = registry();
    let read = is_there.clone();
    registry
        .register_read(Scalar::Counter, "rain", "Rainy days.", move || {
            read.load(Ordering::Relaxed).then_some(3)
        })
        .unwrap();
    assert_eq!(registry.snapshot(), Snapshot::default());
    is_there.store(true, Ordering::Relaxed);
    assert_eq!(registry.snapshot().total("rain"), 3);
}

#[test]
fn workloads_have_series_up_to_a_limit_and_count_in_the_total_beyond_it() {
    const ALL: u32 = MAX_WORKLOADS as u32 + 10;
    // Of one the name is not known any more.
    let mut registry = Registry::new(|workload| (workload != 5).then(|| format!("w{workload:05}")));
    registry
        .register_by_workload(Scalar::Counter, "eaten", "Fruit eaten.", || OfWorkloads {
            living: (0..ALL).rev().map(|workload| (workload, 1)).collect(),
            gone: 100,
        })
        .unwrap();
    let snapshot = registry.snapshot();
    let eaten = snapshot.family("eaten").unwrap();
    assert_eq!(eaten.series.len(), MAX_WORKLOADS);
    assert_eq!(eaten.total(), u64::from(ALL) + 100);
    let labelled = |workload| snapshot.labelled("eaten", WORKLOAD, &format!("w{workload:05}"));
    // Those that have been here for longest keep theirs.
    assert_eq!(
        (labelled(0), labelled(5), labelled(MAX_WORKLOADS), labelled(1 + MAX_WORKLOADS)),
        (1, 0, 1, 0)
    );
}

/// A snapshot is all that Prometheus' text format takes.
#[test]
fn a_snapshot_has_what_prometheus_wants_to_know() {
    let orchard = Orchard::new();
    let mut registry = registry();
    orchard.register(&mut registry);
    orchard.visitors.increment();
    for millis in [100, 700, 800, 3_000] {
        orchard.picking.of(Fruit::Pear).observe(Duration::from_millis(millis));
    }
    let text = exposition(&registry.snapshot());
    for expected in [
        "# HELP orchard_visitors_total Visitors.\n# TYPE orchard_visitors_total counter\norchard_visitors_total 1\n",
        "# TYPE orchard_ladders gauge\norchard_ladders 0\n",
        "orchard_picked_total{fruit=\"apple\",size=\"large\"} 0\n",
        "# TYPE orchard_picking_seconds histogram\n",
        "orchard_picking_seconds_bucket{fruit=\"pear\",le=\"0.5\"} 1\n\
         orchard_picking_seconds_bucket{fruit=\"pear\",le=\"2\"} 3\n\
         orchard_picking_seconds_bucket{fruit=\"pear\",le=\"+Inf\"} 4\n\
         orchard_picking_seconds_sum{fruit=\"pear\"} 4.6\n\
         orchard_picking_seconds_count{fruit=\"pear\"} 4\n",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

fn exposition(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    for Family { name, kind, help, series, .. } in &snapshot.0 {
        let (name, kind) = match kind {
            Kind::Counter => (format!("orchard_{name}_total"), "counter"),
            Kind::Gauge => (format!("orchard_{name}"), "gauge"),
            Kind::Histogram => (format!("orchard_{name}"), "histogram"),
        };
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}").unwrap();
        for Series { labels, value } in series {
            let with = |more: Option<String>| {
                let own = labels.iter().map(|(label, value)| format!("{label}=\"{value}\""));
                let all = own.chain(more).collect::<Vec<_>>().join(",");
                if all.is_empty() { all } else { format!("{{{all}}}") }
            };
            match value {
                Value::Number(number) => writeln!(out, "{name}{} {number}", with(None)).unwrap(),
                Value::Distribution(read) => {
                    let bounds = read.buckets.iter();
                    let bounds =
                        bounds.map(|bucket| (bucket.le.as_secs_f64().to_string(), bucket.count));
                    for (le, count) in bounds.chain([("+Inf".to_owned(), read.count)]) {
                        let labels = with(Some(format!("le=\"{le}\"")));
                        writeln!(out, "{name}_bucket{labels} {count}").unwrap();
                    }
                    let sum = read.sum.as_secs_f64();
                    writeln!(out, "{name}_sum{} {sum}", with(None)).unwrap();
                    writeln!(out, "{name}_count{} {}", with(None), read.count).unwrap();
                }
            }
        }
    }
    out
}
