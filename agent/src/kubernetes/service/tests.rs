use super::*;
use serde_json::{Value, json};

fn read(change: impl FnOnce(&mut Value)) -> Result<Option<Service>, NotAService> {
    let mut object = json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "10.96.0.7",
            "clusterIPs": ["10.96.0.7"],
            "ipFamilies": ["IPv4"],
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"}],
        },
        "status": {"loadBalancer": {}},
    });
    change(&mut object);
    Service::of(&serde_json::from_value(object).unwrap())
}

fn service(change: impl FnOnce(&mut Value)) -> Service {
    read(change).unwrap().unwrap()
}

fn texts<T: ToString>(values: impl IntoIterator<Item = T>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}

#[test]
fn what_matters_is_read() {
    let service = service(|_| {});
    assert_eq!(service.name.to_string(), "shop/web");
    assert_eq!(texts(&service.cluster), ["10.96.0.7"]);
    assert_eq!(service.ports, [ServicePort { port: 80, name: "http".into() }].into());
    assert!(service.external.is_empty() && service.balancers.is_empty());
    assert!(!service.is_node_local && service.affinity.is_none());
    assert_eq!(service.created, 0);
}

#[test]
fn it_is_known_since_when_it_is_there() {
    let of = |time: &str| {
        service(|object| object["metadata"]["creationTimestamp"] = json!(time)).created
    };
    assert_eq!(of("1970-01-01T00:01:00Z"), 60);
    assert_eq!(of("1969-12-31T23:59:00Z"), 0);
}

#[test]
fn what_kube_proxy_does_not_serve_is_none() {
    let unserved: [fn(&mut Value); 6] = [
        // Headless.
        |object| object["spec"]["clusterIP"] = json!("None"),
        // No address yet.
        |object| object["spec"]["clusterIP"] = json!(""),
        |object| object["spec"]["type"] = json!("ExternalName"),
        |object| object["metadata"]["labels"] = json!({PROXY_NAME: "other"}),
        // With an empty value as well.
        |object| object["metadata"]["labels"] = json!({PROXY_NAME: ""}),
        |object| object["spec"]["ports"] = json!([{"port": 53, "protocol": "UDP"}]),
    ];
    for (number, change) in unserved.into_iter().enumerate() {
        let read = read(|object| {
            object["spec"]["clusterIPs"] = Value::Null;
            change(object);
        });
        assert_eq!(read, Ok(None), "{number}");
    }
}

#[test]
fn ports_of_other_protocols_do_not_count() {
    let service = service(|object| {
        object["spec"]["ports"] = json!([
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
            {"name": "sctp", "port": 54, "protocol": "SCTP"},
            {"name": "unsaid", "port": 55},
        ]);
    });
    assert_eq!(
        service.ports.iter().map(|port| &*port.name).collect::<Vec<_>>(),
        ["dns-tcp", "unsaid"]
    );
}

#[test]
fn a_service_may_have_an_address_of_each_family() {
    let service = service(|object| {
        object["spec"]["clusterIPs"] = json!(["10.96.0.7", "fd00::7"]);
    });
    assert_eq!(texts(&service.cluster), ["10.96.0.7", "fd00::7"]);
}

#[test]
fn addresses_from_outside_count_in_the_families_that_are_served() {
    let service = service(|object| {
        object["spec"]["externalIPs"] = json!(["203.0.113.1", "2001:db8::1"]);
        object["spec"]["loadBalancerSourceRanges"] = json!([" 10.1.2.3/16 "]);
        object["status"]["loadBalancer"]["ingress"] = json!([
            {"ip": "198.51.100.1"},
            {"ip": "198.51.100.2", "ipMode": "VIP"},
            {"ip": "198.51.100.3", "ipMode": "Proxy"},
            {"ip": "198.51.100.4", "ipMode": "Unheard"},
            {"ip": "2001:db8::2"},
            {"hostname": "lb.example.org"},
        ]);
    });
    assert_eq!(texts(&service.external), ["203.0.113.1"]);
    assert_eq!(texts(&service.balancers), ["198.51.100.1", "198.51.100.2"]);
    assert_eq!(texts(&service.balancer_clients), ["10.1.0.0/16"]);
}

#[test]
fn policy_and_affinity_are_read() {
    let of = |change: fn(&mut Value)| {
        let service = service(change);
        (service.is_node_local, service.affinity.map(|time| time.as_secs()))
    };
    assert_eq!(of(|object| object["spec"]["internalTrafficPolicy"] = json!("Local")), (true, None));
    assert_eq!(
        of(|object| object["spec"]["sessionAffinity"] = json!("ClientIP")),
        (false, Some(10_800))
    );
    assert_eq!(
        of(|object| {
            object["spec"]["sessionAffinity"] = json!("ClientIP");
            object["spec"]["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 60}});
        }),
        (false, Some(60))
    );
}

/// A change of the object, and what is said of it.
type Refused = (fn(&mut Value), &'static str);

#[test]
fn what_makes_no_sense_is_refused_with_its_name() {
    let refused: [Refused; 14] = [
        (|o| o["metadata"]["name"] = Value::Null, "a Service without a name"),
        (|o| o["metadata"]["namespace"] = Value::Null, "a Service without a namespace"),
        (|o| o["spec"] = Value::Null, "a Service without a specification"),
        (|o| o["metadata"]["name"] = json!("a\nb"), "a Service has `a\\nb` for a name"),
        (
            |o| o["spec"]["clusterIP"] = json!("127.0.0.1"),
            "the Service shop/web has `127.0.0.1` for a cluster address",
        ),
        (
            |o| o["spec"]["clusterIPs"] = json!(["10.96.0.8"]),
            "the Service shop/web has two cluster addresses of one family",
        ),
        (
            |o| o["spec"]["externalIPs"] = json!(["::ffff:10.0.0.1"]),
            "the Service shop/web has `::ffff:10.0.0.1` for an external address",
        ),
        (
            |o| o["status"]["loadBalancer"]["ingress"] = json!([{"ip": "0.0.0.0"}]),
            "the Service shop/web has `0.0.0.0` for a load balancer's address",
        ),
        (
            |o| o["spec"]["loadBalancerSourceRanges"] = json!(["10.0.0.0"]),
            "the Service shop/web has `10.0.0.0` for a source range",
        ),
        (|o| o["spec"]["ports"] = json!([{"port": 0}]), "the Service shop/web has `0` for a port"),
        (
            |o| o["spec"]["ports"] = json!([{"name": "a", "port": 1}, {"name": "b", "port": 1}]),
            "the Service shop/web has the port 1 twice",
        ),
        (
            |o| o["spec"]["ports"] = json!([{"name": "a", "port": 1}, {"name": "a", "port": 2}]),
            "the Service shop/web has the name of a port `a` twice",
        ),
        (
            |o| o["spec"]["internalTrafficPolicy"] = json!("Zone"),
            "the Service shop/web has `Zone` for internalTrafficPolicy",
        ),
        (
            |o| {
                o["spec"]["sessionAffinity"] = json!("ClientIP");
                o["spec"]["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 0}});
            },
            "the Service shop/web has `0` for timeoutSeconds",
        ),
    ];
    for (change, said) in refused {
        assert_eq!(read(change).unwrap_err().to_string(), said);
    }
}

#[test]
fn there_is_an_end_to_what_a_service_may_have() {
    let ports = read(|object| {
        let all = (1..=1001).map(|port| json!({"name": format!("p{port}"), "port": port}));
        object["spec"]["ports"] = all.collect();
    });
    assert_eq!(ports.unwrap_err().to_string(), "the Service shop/web has more than 1000 ports");
    let addresses = read(|object| {
        object["spec"]["externalIPs"] = (1..=65).map(|n| json!(format!("203.0.113.{n}"))).collect();
    });
    assert_eq!(
        addresses.unwrap_err().to_string(),
        "the Service shop/web has more than 64 addresses"
    );
}
