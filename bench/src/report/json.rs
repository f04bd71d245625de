//! One JSON object: a key for each target, and the raw figures.

use serde_json::{Map, Value, json};

use super::{measured, played};
use crate::results::Results;
use crate::run::Plan;
use crate::targets::TARGETS;

/// What was not measured is `null`.
pub fn render(plan: &Plan, results: &Results) -> Value {
    let mut object: Map<String, Value> = TARGETS
        .iter()
        .map(|target| (target.key.to_owned(), target.value(results).into()))
        .collect();
    object.insert("raw".to_owned(), raw(plan, results));
    object.into()
}

/// By contender, load and quantity: the median, and the values of all rounds.
fn raw(plan: &Plan, results: &Results) -> Value {
    let mut raw = json!({});
    for load in &plan.loads {
        let name = load.name();
        for entry in played(plan, results, load.as_ref()) {
            for quantity in measured(plan, results, load.as_ref()) {
                if let Some(summary) = results.summary(&entry.name, &name, quantity.name) {
                    raw[&entry.name][&name][quantity.name] = json!({
                        "unit": quantity.unit,
                        "median": summary.median,
                        "rounds": results.values(&entry.name, &name, quantity.name),
                    });
                }
            }
        }
    }
    raw
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    const KEYS: [&str; 10] = [
        "throughput_1_vs_relay",
        "throughput_1_vs_envoy",
        "throughput_16_vs_envoy",
        "cpu_per_gb_vs_envoy",
        "pingpong_p50_vs_envoy",
        "pingpong_p99_vs_envoy",
        "conns_seq_vs_direct",
        "conns_seq_vs_envoy",
        "conns_fresh_vs_envoy",
        "rss_per_idle_flow_kib",
    ];

    #[test]
    fn every_target_has_its_key_and_a_number() {
        let plan = example::plan();
        let object = render(&plan, &example::results(&plan));
        for key in KEYS {
            assert!(object[key].is_number(), "{key}: {}", object[key]);
        }
        assert_eq!(object.as_object().map(Map::len), Some(KEYS.len() + 1));
        let raw = &object["raw"]["envoy"]["throughput_1"]["rate"];
        assert_eq!(raw["rounds"].as_array().map(Vec::len), Some(3));
        assert_eq!((&raw["unit"], raw["median"].is_number()), (&json!("Gbit/s"), true));
    }

    #[test]
    fn what_was_not_measured_is_null() {
        let object = render(&example::plan(), &Results::default());
        for key in KEYS {
            assert_eq!(object.get(key), Some(&Value::Null), "{key}");
        }
        assert_eq!(object["raw"], json!({}));
    }
}
