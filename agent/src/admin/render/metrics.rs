//! Metrics as people read them. Those that are zero are left out.

use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use super::{list, text};

/// A line for each metric, with what it means.
pub(super) fn render(out: &mut String, status: &Value) {
    let metrics = list(&status["metrics"]);
    let totals = status["counters"].as_object().into_iter().flatten();
    let totals: Vec<_> = totals.filter(|(_, total)| **total != 0).collect();
    let width = totals.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max(24);
    for (name, total) in totals {
        let help = metrics.iter().find(|metric| metric["name"] == **name);
        let help = help.map_or("", |metric| text(&metric["help"]));
        let line = format!("{name:<width$} {:>12}  {help}", total.to_string());
        let _ = writeln!(out, "{}", line.trim_end());
    }
    for metric in metrics.iter().filter(|metric| metric["kind"] == "histogram") {
        for series in list(&metric["series"]) {
            histogram(out, text(&metric["name"]), series);
        }
    }
}

fn histogram(out: &mut String, name: &str, series: &Value) {
    let distribution = &series["distribution"];
    let count = distribution["count"].as_u64().unwrap_or_default();
    if count == 0 {
        return;
    }
    let labels = series["labels"].as_object().into_iter().flatten().map(|(_, value)| text(value));
    let name = std::iter::once(name).chain(labels).collect::<Vec<_>>().join(" ");
    let mean = shown(distribution["sum"].as_f64().unwrap_or_default() / count as f64);
    let within = |share: f64| match bound(distribution, share * count as f64) {
        Some(seconds) => format!("within {}", shown(seconds)),
        None => "longer".to_owned(),
    };
    let (half, most) = (within(0.5), within(0.99));
    let _ = writeln!(out, "{name:<24} {count:>12}  mean {mean}; half {half}, 99 % {most}");
}

/// The bound of the first bucket that counts at least `least` values.
fn bound(distribution: &Value, least: f64) -> Option<f64> {
    let mut buckets = list(&distribution["buckets"]).iter();
    let bucket = buckets.find(|bucket| bucket["count"].as_f64().is_some_and(|own| own >= least));
    bucket.and_then(|bucket| bucket["le"].as_f64())
}

/// To three digits or so, as `2ms 500us`.
fn shown(seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let step = match duration {
        long if long >= Duration::from_secs(1) => Duration::from_millis(10),
        middling if middling >= Duration::from_millis(10) => Duration::from_micros(100),
        _ => Duration::from_micros(1),
    };
    let steps = duration.as_nanos() / step.as_nanos();
    humantime::format_duration(step.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX)))
        .to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(status: &Value) -> String {
        let mut out = String::new();
        render(&mut out, status);
        out
    }

    #[test]
    fn what_was_counted_is_shown_with_what_it_means() {
        let status = json!({
            "counters": {"connect_protected": 3, "connect_denied": 0, "guard_dropped_loopback_address": 12},
            "metrics": [{"name": "connect_protected", "kind": "counter", "help": "Turned to the agent."}],
        });
        assert_eq!(
            rendered(&status),
            "connect_protected                         3  Turned to the agent.\n\
             guard_dropped_loopback_address           12\n"
        );
    }

    #[test]
    fn a_histogram_is_shown_by_its_mean_and_how_long_most_take() {
        let series = |counts: [u64; 2], count, sum| {
            let buckets =
                json!([{"le": 0.0005, "count": counts[0]}, {"le": 0.0025, "count": counts[1]}]);
            json!({
                "labels": {"direction": "inbound"},
                "distribution": {"count": count, "sum": sum, "buckets": buckets},
            })
        };
        let status = |series: Value| json!({"metrics": [{"name": "handshake_seconds", "kind": "histogram", "help": "x", "series": [series]}]});
        assert_eq!(
            rendered(&status(series([50, 100], 100, 0.1234))),
            "handshake_seconds inbound          100  mean 1ms 234us; half within 500us, 99 % within 2ms 500us\n"
        );
        assert_eq!(
            rendered(&status(series([0, 1], 3, 90.0))),
            "handshake_seconds inbound            3  mean 30s; half longer, 99 % longer\n"
        );
        assert_eq!(rendered(&status(series([0, 0], 0, 0.0))), "");
    }
}
