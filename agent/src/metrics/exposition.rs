//! Metrics in the text format of Prometheus (version 0.0.4; https://prometheus.io/docs/instrumenting/exposition_formats/).

use std::collections::BTreeMap;
use std::fmt::Write;

use super::snapshot::{Distribution, Family, Kind, Snapshot, Value};

/// What such a text is, for `content-type`.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

type Labels = BTreeMap<&'static str, String>;

/// All metrics. Their names begin with `prefix`, and those of counters end with `_total`.
#[must_use]
pub fn exposition(snapshot: &Snapshot, prefix: &str) -> String {
    let mut out = String::new();
    for family in &snapshot.0 {
        let _ = write_family(&mut out, family, prefix);
    }
    out
}

fn write_family(out: &mut String, family: &Family, prefix: &str) -> std::fmt::Result {
    let ending = if family.kind == Kind::Counter { "_total" } else { "" };
    let name = format!("{prefix}{}{ending}", family.name);
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    writeln!(out, "# HELP {name} {}", family.help.replace('\\', r"\\").replace('\n', r"\n"))?;
    writeln!(out, "# TYPE {name} {kind}")?;
    for series in &family.series {
        match &series.value {
            Value::Number(number) => {
                writeln!(out, "{name}{} {number}", labels(&series.labels, None))?;
            }
            Value::Distribution(distribution) => {
                write_distribution(out, &name, &series.labels, distribution)?;
            }
        }
    }
    // What belongs to nobody who is there still.
    if family.rest != 0 {
        writeln!(out, "{name} {}", family.rest)?;
    }
    Ok(())
}

fn write_distribution(
    out: &mut String,
    name: &str,
    of: &Labels,
    Distribution { count, sum, buckets }: &Distribution,
) -> std::fmt::Result {
    for bucket in buckets {
        let le = bucket.le.as_secs_f64().to_string();
        writeln!(out, "{name}_bucket{} {}", labels(of, Some(&le)), bucket.count)?;
    }
    writeln!(out, "{name}_bucket{} {count}", labels(of, Some("+Inf")))?;
    writeln!(out, "{name}_sum{} {}", labels(of, None), sum.as_secs_f64())?;
    writeln!(out, "{name}_count{} {count}", labels(of, None))
}

fn labels(of: &Labels, le: Option<&str>) -> String {
    let bucket = le.map(|le| ("le", le));
    let all = of.iter().map(|(name, value)| (*name, value.as_str())).chain(bucket);
    let all: Vec<_> = all.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::snapshot::{Bucket, Series};
    use super::*;

    fn family(kind: Kind, series: Vec<Series>) -> Snapshot {
        Snapshot(vec![Family { name: "flows", kind, help: "Flows.", series, rest: 0 }])
    }

    #[test]
    fn numbers_have_their_labels_and_counters_their_ending() {
        let series = vec![
            Series::new(&[], &[], Value::Number(3)),
            Series::new(&["a", "b"], &["x", "\"y\"\\\n"], Value::Number(4)),
        ];
        assert_eq!(
            exposition(&family(Kind::Counter, series.clone()), "sheath_"),
            "# HELP sheath_flows_total Flows.\n# TYPE sheath_flows_total counter\n\
             sheath_flows_total 3\nsheath_flows_total{a=\"x\",b=\"\\\"y\\\"\\\\\\n\"} 4\n"
        );
        let gauge = exposition(&family(Kind::Gauge, series), "");
        assert!(gauge.starts_with("# HELP flows Flows.\n# TYPE flows gauge\nflows 3\n"), "{gauge}");
    }

    #[test]
    fn a_histogram_has_all_its_buckets() {
        let bucket = |millis, count| Bucket { le: Duration::from_millis(millis), count };
        let buckets = vec![bucket(5, 1), bucket(2500, 3)];
        let distribution = Distribution { count: 4, sum: Duration::from_millis(9100), buckets };
        let series = vec![Series::new(&["of"], &["x"], Value::Distribution(distribution))];
        assert_eq!(
            exposition(&family(Kind::Histogram, series), ""),
            "# HELP flows Flows.\n# TYPE flows histogram\n\
             flows_bucket{of=\"x\",le=\"0.005\"} 1\nflows_bucket{of=\"x\",le=\"2.5\"} 3\n\
             flows_bucket{of=\"x\",le=\"+Inf\"} 4\nflows_sum{of=\"x\"} 9.1\nflows_count{of=\"x\"} 4\n"
        );
    }
}
