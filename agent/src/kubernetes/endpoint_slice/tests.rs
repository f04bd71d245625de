use super::*;
use serde_json::{Value, json};

const UID: &str = "11111111-2222-3333-4444-555555555555";

fn read(change: impl FnOnce(&mut Value)) -> Result<Option<EndpointSlice>, NotAnEndpointSlice> {
    let mut object = json!({
        "metadata": {"name": "web-x7", "namespace": "shop", "labels": {SERVICE: "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{
            "addresses": ["10.1.0.7"],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": "node-a",
            "zone": "z1",
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-0", "uid": UID},
            "hints": {"forZones": [{"name": "z1"}], "forNodes": [{"name": "node-a"}]},
        }],
    });
    change(&mut object);
    EndpointSlice::of(&serde_json::from_value(object).unwrap())
}

fn endpoint(change: impl FnOnce(&mut Value)) -> Endpoint {
    let slice = read(|object| change(&mut object["endpoints"][0])).unwrap().unwrap();
    slice.endpoints.into_values().next().unwrap()
}

#[test]
fn what_matters_is_read() {
    let slice = read(|_| {}).unwrap().unwrap();
    assert_eq!((&*slice.name, slice.service.to_string()), ("web-x7", "shop/web".to_owned()));
    assert_eq!(slice.ports, [SlicePort { name: "http".into(), port: 8080 }]);
    let (address, endpoint) = slice.endpoints.iter().next().unwrap();
    assert_eq!(address.to_string(), "10.1.0.7");
    assert_eq!(endpoint.pod.unwrap().to_string(), UID);
    assert_eq!(endpoint.node.as_deref(), Some("node-a"));
    assert_eq!(
        (&endpoint.zones, &endpoint.nodes),
        (&["z1".into()].into(), &["node-a".into()].into())
    );
}

#[test]
fn conditions_that_are_not_said_are_those_of_an_endpoint_that_works() {
    for conditions in [Value::Null, json!({})] {
        let endpoint = endpoint(|object| object["conditions"] = conditions);
        let Conditions { is_ready, is_serving, is_terminating } = endpoint.conditions;
        assert!(is_ready && is_serving && !is_terminating);
    }
    let ending = endpoint(|object| {
        object["conditions"] = json!({"ready": false, "serving": true, "terminating": true});
    });
    let Conditions { is_ready, is_serving, is_terminating } = ending.conditions;
    assert!(!is_ready && is_serving && is_terminating);
}

#[test]
fn what_kube_proxy_does_not_look_at_is_none() {
    let unread: [fn(&mut Value); 5] = [
        |object| object["metadata"]["labels"] = Value::Null,
        |object| object["metadata"]["labels"] = json!({SERVICE: ""}),
        |object| object["metadata"]["labels"] = json!({SERVICE: "web", HEADLESS: ""}),
        |object| object["addressType"] = json!("FQDN"),
        |object| {
            object["addressType"] = json!("FQDN");
            object["endpoints"][0]["addresses"] = json!(["db.example.org"]);
        },
    ];
    for (number, change) in unread.into_iter().enumerate() {
        assert_eq!(read(change), Ok(None), "{number}");
    }
}

#[test]
fn ports_without_a_name_or_a_number_and_other_protocols_do_not_count() {
    let slice = read(|object| {
        object["ports"] = json!([
            {"port": 1},
            {"name": "a"},
            {"name": "b", "port": 0},
            {"name": "c", "port": 2, "protocol": "UDP"},
            {"name": "", "port": 3},
        ]);
    });
    assert_eq!(slice.unwrap().unwrap().ports, [SlicePort { name: "".into(), port: 3 }]);
}

#[test]
fn the_first_address_counts_and_one_without_any_is_left_out() {
    let slice =
        read(|object| object["endpoints"][0]["addresses"] = json!(["10.1.0.8", "10.1.0.9"]));
    let slice = slice.unwrap().unwrap();
    assert_eq!(slice.endpoints.keys().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.0.8"]);
    let none = read(|object| object["endpoints"][0]["addresses"] = json!([]));
    assert!(none.unwrap().unwrap().endpoints.is_empty());
}

#[test]
fn of_two_at_one_address_the_one_that_stays_counts() {
    for is_first in [true, false] {
        let slice = read(|object| {
            let stays = object["endpoints"][0].clone();
            let mut ends = stays.clone();
            ends["conditions"] = json!({"ready": false, "serving": true, "terminating": true});
            ends["targetRef"] = Value::Null;
            object["endpoints"] =
                if is_first { json!([stays, ends]) } else { json!([ends, stays]) };
        });
        let endpoints = slice.unwrap().unwrap().endpoints;
        assert_eq!(endpoints.len(), 1);
        assert!(endpoints.values().all(|endpoint| endpoint.pod.is_some()));
    }
}

#[test]
fn what_is_not_a_pod_of_the_namespace_is_no_pod() {
    for target in [
        Value::Null,
        json!({"kind": "Node", "name": "node-a", "uid": UID}),
        json!({"kind": "Pod", "namespace": "other", "name": "web-0", "uid": UID}),
        json!({"kind": "Pod", "namespace": "shop", "name": "web-0"}),
    ] {
        assert_eq!(endpoint(|object| object["targetRef"] = target.clone()).pod, None, "{target}");
    }
}

/// A change of the object, and what is said of it.
type Refused = (fn(&mut Value), &'static str);

#[test]
fn what_makes_no_sense_is_refused_with_its_name() {
    let refused: [Refused; 11] = [
        (|o| o["metadata"]["name"] = Value::Null, "an EndpointSlice without a name"),
        (|o| o["metadata"]["name"] = json!("A"), "an EndpointSlice has `A` for a name"),
        (
            |o| o["metadata"]["labels"] = json!({SERVICE: "../x"}),
            "the EndpointSlice shop/web-x7 has `../x` for the name of its Service",
        ),
        (
            |o| o["addressType"] = json!("IPv5"),
            "the EndpointSlice shop/web-x7 has `IPv5` for addressType",
        ),
        (
            |o| o["endpoints"][0]["addresses"] = json!(["127.0.0.1"]),
            "the EndpointSlice shop/web-x7 has `127.0.0.1` for an address",
        ),
        // The family is that of the slice.
        (
            |o| o["endpoints"][0]["addresses"] = json!(["fd00::1"]),
            "the EndpointSlice shop/web-x7 has `fd00::1` for an address",
        ),
        (
            |o| o["endpoints"][0]["targetRef"]["uid"] = json!("0"),
            "the EndpointSlice shop/web-x7 has `0` for the uid of a pod",
        ),
        (
            |o| o["endpoints"][0]["nodeName"] = json!("Node A"),
            "the EndpointSlice shop/web-x7 has `Node A` for the name of a node",
        ),
        (
            |o| o["endpoints"][0]["hints"]["forZones"] = json!([{"name": "a b"}]),
            "the EndpointSlice shop/web-x7 has `a b` for the name of a zone",
        ),
        (
            |o| o["ports"][0]["port"] = json!(65536),
            "the EndpointSlice shop/web-x7 has `65536` for a port",
        ),
        (
            |o| o["endpoints"] = vec![o["endpoints"][0].clone(); 1001].into(),
            "the EndpointSlice shop/web-x7 has more than 1000 endpoints",
        ),
    ];
    for (change, said) in refused {
        assert_eq!(read(change).unwrap_err().to_string(), said);
    }
}

#[test]
fn there_is_an_end_to_the_names_in_a_slice() {
    let error = read(|object| {
        let endpoint = |number: u32| {
            let [_, _, high, low] = number.to_be_bytes();
            let node = format!("{number}-{}", "n".repeat(90));
            json!({"addresses": [format!("10.1.{high}.{low}")], "nodeName": node})
        };
        object["endpoints"] = (1..1000).map(endpoint).collect();
    });
    let said =
        "the EndpointSlice shop/web-x7 has more than 65536 bytes of names of nodes and zones";
    assert_eq!(error.unwrap_err().to_string(), said);
}
