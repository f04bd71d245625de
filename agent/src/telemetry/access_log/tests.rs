use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::*;
use crate::flow::{Direction, FlowIds, Reached};

/// The lines of a log.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The only line that is logged meanwhile.
fn logged(log: impl FnOnce()) -> BTreeMap<String, Value> {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, log);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn names(line: &BTreeMap<String, Value>) -> Vec<&str> {
    line.keys().map(String::as_str).collect()
}

#[test]
fn a_connection_that_the_kernel_refused_has_the_fields_of_any_other_and_the_process() {
    let [source, destination] =
        ["192.0.2.1:4000", "192.0.2.2:80"].map(|text| text.parse().unwrap());
    let mut record =
        FlowRecord::new(FlowIds::new(0xab).next(), Direction::Inbound, source, destination);
    record.workload = "web".to_owned();
    let rule = Origin::named(&Path::new("test.yaml").into(), "workloads", 0, "web");
    record.rule = Some(rule.field("inbound.allow"));
    let ending =
        Ending { outcome: Outcome::Ok, stage: Stage::Relay, reason: String::new(), refused: None };
    let flow = logged(|| log_flow(&record, Duration::from_millis(1_500), &ending));
    for (name, expected) in [
        ("target", Value::from("sheath::access")),
        ("flow", "000000ab-1".into()),
        ("direction", "inbound".into()),
        ("workload", "web".into()),
        ("local_id", "".into()),
        ("source", "192.0.2.1:4000".into()),
        ("destination", "192.0.2.2:80".into()),
        ("rule", "workloads[web].inbound.allow".into()),
        ("duration_ms", 1_500.into()),
        ("protection", "none".into()),
        ("reused", false.into()),
        ("outcome", "ok".into()),
        ("stage", "relay".into()),
        ("reason", "".into()),
    ] {
        assert_eq!(flow[name], expected, "{name}");
    }

    assert_eq!((&flow["service"], &flow["endpoint"]), (&"".into(), &"".into()));
    record.reached = Some(Reached {
        service: "shop/web".to_owned(),
        endpoint: "10.1.0.7:8080".parse().unwrap(),
    });
    let served = logged(|| log_flow(&record, Duration::ZERO, &ending));
    let fields = ["destination", "service", "endpoint"].map(|name| &served[name]);
    assert_eq!(fields, ["192.0.2.2:80", "shop/web", "10.1.0.7:8080"]);

    let denied = logged(|| log_denied_connect("web", destination, 42, None, "because"));
    for (name, expected) in [
        ("flow", Value::from("")),
        ("direction", "outbound".into()),
        ("workload", "web".into()),
        ("source", "".into()),
        ("destination", "192.0.2.2:80".into()),
        ("rule", "".into()),
        ("duration_ms", 0.into()),
        ("outcome", "denied".into()),
        ("stage", "capture".into()),
        ("reason", "because".into()),
        ("pid", 42.into()),
    ] {
        assert_eq!(denied[name], expected, "{name}");
    }
    let mut with_process = names(&flow);
    with_process.push("pid");
    with_process.sort_unstable();
    assert_eq!(names(&denied), with_process);
}
