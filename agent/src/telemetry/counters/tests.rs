use super::*;
use crate::flow::FlowIds;
use crate::metrics::Snapshot;
use crate::telemetry::{NotTaken, Stayed};

fn counted(counters: &Arc<AgentCounters>) -> Snapshot {
    let mut registry = Registry::new(|workload| Some(format!("w{workload}")));
    counters.register(&mut registry).unwrap();
    registry.snapshot()
}

fn conclude(counters: &Arc<AgentCounters>, direction: Direction, outcome: Outcome, stage: Stage) {
    let address = "192.0.2.1:80".parse().unwrap();
    let record = FlowRecord::new(FlowIds::new(1).next(), direction, address, address);
    let ending = Ending { outcome, stage, reason: String::new(), refused: None };
    counters.open(1, direction).conclude(&record, &ending);
}

#[test]
fn flows_are_counted_by_how_they_end() {
    let counters = Arc::new(AgentCounters::default());
    conclude(&counters, Direction::Outbound, Outcome::Ok, Stage::Relay);
    conclude(&counters, Direction::Inbound, Outcome::Denied, Stage::Tls);
    conclude(&counters, Direction::Inbound, Outcome::Denied, Stage::Tls);
    // As when the agent ends while it is open.
    drop(counters.open(1, Direction::Outbound));
    let counted = counted(&counters);
    let closed: Vec<_> = counted
        .family("flows_closed")
        .unwrap()
        .series
        .iter()
        .filter(|series| series.value.count() > 0)
        .map(|series| {
            let [direction, outcome] = ["direction", "outcome"].map(|name| &*series.labels[name]);
            (direction, outcome, series.value.count())
        })
        .collect();
    let expected = [("inbound", "denied", 2), ("outbound", "ok", 1), ("outbound", "reset", 1)];
    assert_eq!(closed, expected);
    assert_eq!((counters.flows(), counted.total("flows_opened")), (0, 4));
    assert_eq!(counted.labelled("handshakes_failed", "direction", "inbound"), 2);
    assert_eq!(counted.labelled("handshakes_failed", "direction", "outbound"), 0);
    assert_eq!(counted.labelled("flow_seconds", "direction", "inbound"), 2);
}

#[test]
fn a_workload_that_is_gone_is_forgotten_once_none_of_its_flows_is_open() {
    let counters = Arc::new(AgentCounters::default());
    let flow = counters.open(1, Direction::Inbound);
    drop(counters.open(2, Direction::Inbound));
    drop(counters.open(3, Direction::Inbound));
    let workloads = || {
        let counted = counted(&counters);
        let flows = counted.family("flows").unwrap();
        let workloads = flows.series.iter().map(|series| series.labels["workload"].clone());
        workloads.collect::<Vec<_>>()
    };
    counters.retain(|workload| workload == 3);
    assert_eq!(workloads(), ["w1", "w3"]);
    assert_eq!(counters.flows(), 1);
    drop(flow);
    counters.retain(|workload| workload == 3);
    assert_eq!(workloads(), ["w3"]);
    assert_eq!((counters.flows(), counted(&counters).total("flows_closed")), (0, 3));
}

/// What is counted for one value is not counted for another.
#[test]
fn values_of_labels_stand_at_their_indices() {
    fn check<L: Label + PartialEq + std::fmt::Debug>() {
        for (index, value) in L::ALL.iter().enumerate() {
            assert_eq!(Label::index(*value), index, "{value:?}");
        }
    }
    check::<Direction>();
    check::<Outcome>();
    check::<Stayed>();
    check::<NotTaken>();
}

/// It is open in one process after the other, new in the first and closed in the last.
#[test]
fn a_flow_that_moves_is_counted_once() {
    let [before, after] = [(); 2].map(|()| Arc::new(AgentCounters::default()));
    let flow = before.open(1, Direction::Inbound);
    flow.moved();
    let flow = after.take(1, Direction::Inbound);
    assert_eq!((before.flows(), before.flows_of(1)), (0, 0));
    assert_eq!((after.flows(), after.flows_of(1)), (1, 1));
    drop(flow);
    assert_eq!(after.flows(), 0);
    let count = |counters, names: [&str; 4]| {
        let counted = counted(counters);
        names.map(|name| counted.total(name))
    };
    let names = ["flows_opened", "flows_moved", "flows_taken", "flows_closed"];
    assert_eq!(count(&before, names), [1, 1, 0, 0]);
    assert_eq!(count(&after, names), [0, 0, 1, 1]);
}
