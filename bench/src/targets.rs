//! Goals for Sheath, and how near it is.

use crate::contender::{DIRECT, ENVOY, RELAY, SHEATH, SHEATH_FRESH};
use crate::load::idle::{AFTER_CLIENT, AFTER_SERVER, FLOW_CLIENT, FLOW_SERVER};
use crate::load::names::{CPU_CLIENT, CPU_SERVER, P50, P99, RATE};
use crate::load::peers::{
    BESIDE_MANY, BESIDE_ONE, P99_QUIET, P99_RELOAD, PROTECTED_MANY, PROTECTED_ONE,
};
use crate::results::Results;
use crate::statistics::median;

/// A number to reach.
pub struct Target {
    /// As the JSON has it.
    pub key: &'static str,
    pub title: &'static str,
    pub goal: Goal,
    measure: Measure,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    Between(f64, f64),
}

/// How the number is made. Of several quantities the one that is farthest from the goal counts, which for all of
/// these is the largest.
enum Measure {
    /// One contender's figure divided by another's, in the same round.
    Versus {
        one: &'static str,
        other: &'static str,
        load: &'static str,
        quantities: &'static [&'static str],
    },
    /// Sheath's own figure.
    Plain { load: &'static str, quantities: &'static [&'static str] },
    /// Two of Sheath's own figures: the first divided by the second.
    Within { load: &'static str, pairs: &'static [(&'static str, &'static str)] },
}

impl Goal {
    pub fn is_reached(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
            Self::Between(least, most) => (least..=most).contains(&value),
        }
    }

    pub fn describe(self) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {least}"),
            Self::AtMost(most) => format!("≤ {most}"),
            Self::Between(least, most) => format!("{least} to {most}"),
        }
    }
}

impl Target {
    /// The median over all rounds; `None` if the run had not all that it takes.
    pub fn value(&self, results: &Results) -> Option<f64> {
        let largest = |values: Vec<Option<f64>>| {
            let all: Option<Vec<f64>> = values.into_iter().collect();
            all?.into_iter().max_by(f64::total_cmp)
        };
        match self.measure {
            Measure::Versus { one, other, load, quantities } => {
                let ratio = |name: &&'static str| median(&results.ratios(one, other, load, name));
                largest(quantities.iter().map(ratio).collect())
            }
            Measure::Plain { load, quantities } => {
                let value = |name: &&'static str| median(&results.values(SHEATH, load, name));
                largest(quantities.iter().map(value).collect())
            }
            Measure::Within { load, pairs } => {
                let ratio = |(one, other): &(&'static str, &'static str)| {
                    median(&results.ratios_within(SHEATH, load, one, other))
                };
                let ratios: Option<Vec<f64>> = pairs.iter().map(ratio).collect();
                // What is much smaller is as far from "unchanged" as what is much larger.
                ratios?.into_iter().max_by(|a, b| distance(*a).total_cmp(&distance(*b)))
            }
        }
    }
}

fn distance(ratio: f64) -> f64 {
    ratio.ln().abs()
}

const fn versus(other: &'static str, load: &'static str, of: &'static [&'static str]) -> Measure {
    Measure::Versus { one: SHEATH, other, load, quantities: of }
}

/// The targets whose numbers every JSON object has, also a quick run's.
pub const TARGETS: [Target; 10] = [
    Target {
        key: "throughput_1_vs_relay",
        title: "one stream, throughput ÷ two plain relays",
        goal: Goal::AtLeast(0.85),
        measure: versus(RELAY, "throughput_1", &[RATE]),
    },
    Target {
        key: "throughput_1_vs_envoy",
        title: "one stream, throughput ÷ Envoy",
        goal: Goal::AtLeast(1.4),
        measure: versus(ENVOY, "throughput_1", &[RATE]),
    },
    Target {
        key: "throughput_16_vs_envoy",
        title: "16 streams, throughput ÷ Envoy",
        goal: Goal::AtLeast(1.3),
        measure: versus(ENVOY, "throughput_16", &[RATE]),
    },
    Target {
        key: "cpu_per_gb_vs_envoy",
        title: "CPU-seconds per GB, the worse side ÷ Envoy",
        goal: Goal::AtMost(0.7),
        measure: versus(ENVOY, "throughput_1", &[CPU_CLIENT, CPU_SERVER]),
    },
    Target {
        key: "pingpong_p50_vs_envoy",
        title: "round trip of 100 bytes, p50 ÷ Envoy",
        goal: Goal::AtMost(1.0),
        measure: versus(ENVOY, "pingpong_100", &[P50]),
    },
    Target {
        key: "pingpong_p99_vs_envoy",
        title: "round trip of 100 bytes, p99 ÷ Envoy",
        goal: Goal::AtMost(1.0),
        measure: versus(ENVOY, "pingpong_100", &[P99]),
    },
    Target {
        key: "conns_seq_vs_direct",
        title: "new connections, sequential ÷ direct",
        goal: Goal::AtLeast(0.5),
        measure: versus(DIRECT, "connect_1", &[RATE]),
    },
    Target {
        key: "conns_seq_vs_envoy",
        title: "new connections, sequential ÷ Envoy",
        goal: Goal::AtLeast(2.0),
        measure: versus(ENVOY, "connect_1", &[RATE]),
    },
    Target {
        key: "conns_fresh_vs_envoy",
        title: "new connections with a fresh handshake ÷ Envoy",
        goal: Goal::AtLeast(1.2),
        measure: Measure::Versus {
            one: SHEATH_FRESH,
            other: ENVOY,
            load: "connect_1",
            quantities: &[RATE],
        },
    },
    Target {
        key: "rss_per_idle_flow_kib",
        title: "RSS per idle flow, the worse side, KiB",
        goal: Goal::AtMost(5.0),
        measure: Measure::Plain { load: "idle", quantities: &[FLOW_CLIENT, FLOW_SERVER] },
    },
];

/// Targets that only a whole run has numbers for.
pub const FURTHER: [Target; 6] = [
    Target {
        key: "http_500_p99_vs_envoy",
        title: "500 HTTP clients, p99 ÷ Envoy",
        goal: Goal::AtMost(1.0),
        measure: versus(ENVOY, "http_500", &[P99]),
    },
    Target {
        key: "small_buffers_vs_relay",
        title: "socket buffers of 16K, throughput ÷ two plain relays",
        goal: Goal::AtLeast(0.5),
        measure: versus(RELAY, "small_buffers", &[RATE]),
    },
    Target {
        key: "small_buffers_reverse_vs_relay",
        title: "the same from server to client",
        goal: Goal::AtLeast(0.5),
        measure: versus(RELAY, "small_buffers_reverse", &[RATE]),
    },
    Target {
        key: "rss_after_close",
        title: "RSS after all flows have closed, the worse side ÷ before",
        goal: Goal::AtMost(1.1),
        measure: Measure::Plain { load: "idle", quantities: &[AFTER_CLIENT, AFTER_SERVER] },
    },
    Target {
        key: "peers_connect",
        title: "connect() with 100 000 peers ÷ with one",
        goal: Goal::Between(0.9, 1.1),
        measure: Measure::Within {
            load: "peers",
            pairs: &[(PROTECTED_MANY, PROTECTED_ONE), (BESIDE_MANY, BESIDE_ONE)],
        },
    },
    Target {
        key: "peers_reload_p99",
        title: "round trip p99 while 100 000 peers are reloaded ÷ quiet",
        goal: Goal::AtMost(2.0),
        measure: Measure::Within { load: "peers", pairs: &[(P99_RELOAD, P99_QUIET)] },
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load;

    fn target(key: &str) -> &'static Target {
        TARGETS.iter().chain(&FURTHER).find(|target| target.key == key).unwrap()
    }

    /// A typo would read as "not measured".
    #[test]
    fn every_target_is_about_quantities_that_a_load_measures() {
        let all = load::all();
        let measures = |load: &str, quantity: &str| {
            let load = all.iter().find(|other| other.name() == load);
            load.is_some_and(|load| load.quantities().iter().any(|other| other.name == quantity))
        };
        for target in TARGETS.iter().chain(&FURTHER) {
            let (load, quantities) = match target.measure {
                Measure::Versus { load, quantities, .. } | Measure::Plain { load, quantities } => {
                    (load, quantities.to_vec())
                }
                Measure::Within { load, pairs } => {
                    (load, pairs.iter().flat_map(|&(one, other)| [one, other]).collect())
                }
            };
            for quantity in quantities {
                assert!(measures(load, quantity), "{}: {quantity} of {load}", target.key);
            }
        }
    }

    #[test]
    fn of_two_sides_the_worse_one_counts() {
        let mut results = Results::default();
        for (contender, client, server) in [(SHEATH, 0.3, 0.5), (ENVOY, 1.0, 1.0)] {
            results.record(contender, "throughput_1", CPU_CLIENT, 1, client);
            results.record(contender, "throughput_1", CPU_SERVER, 1, server);
        }
        assert_eq!(target("cpu_per_gb_vs_envoy").value(&results), Some(0.5));
    }

    #[test]
    fn a_target_without_all_its_figures_has_no_value() {
        let mut results = Results::default();
        results.record(SHEATH, "idle", FLOW_CLIENT, 1, 4.0);
        assert_eq!(target("rss_per_idle_flow_kib").value(&results), None);
        results.record(SHEATH, "idle", FLOW_SERVER, 1, 3.0);
        assert_eq!(target("rss_per_idle_flow_kib").value(&results), Some(4.0));
    }

    #[test]
    fn fresh_handshakes_are_those_of_the_contender_that_has_only_such() {
        let mut results = Results::default();
        results.record(SHEATH, "connect_1", RATE, 1, 900.0);
        results.record(ENVOY, "connect_1", RATE, 1, 300.0);
        assert_eq!(target("conns_fresh_vs_envoy").value(&results), None);
        results.record(SHEATH_FRESH, "connect_1", RATE, 1, 360.0);
        assert_eq!(target("conns_fresh_vs_envoy").value(&results), Some(1.2));
        assert_eq!(target("conns_seq_vs_envoy").value(&results), Some(3.0));
    }

    #[test]
    fn unchanged_is_missed_on_both_sides() {
        let goal = target("peers_connect").goal;
        assert!(goal.is_reached(1.0) && !goal.is_reached(0.8) && !goal.is_reached(1.2));
        let mut results = Results::default();
        for (quantity, value) in
            [(PROTECTED_ONE, 10.0), (PROTECTED_MANY, 5.0), (BESIDE_ONE, 10.0), (BESIDE_MANY, 11.0)]
        {
            results.record(SHEATH, "peers", quantity, 1, value);
        }
        assert_eq!(target("peers_connect").value(&results), Some(0.5));
    }
}
