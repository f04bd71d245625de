//! What the controller answers about its health, and what it counts.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;
use sheath_tests::api_server::Kind;
use sheath_tests::controller::{self, Controller, Csr, Scene};
use sheath_tests::netns::NetNs;
use sheath_tests::wait::{self, GENEROUS};

fn connect(netns: &NetNs, address: SocketAddr) -> TcpStream {
    let stream = netns.run(|| TcpStream::connect(address)).unwrap();
    stream.set_read_timeout(Some(GENEROUS)).unwrap();
    stream
}

/// The status of an answer, and the answer.
fn sent(netns: &NetNs, address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = connect(netns, address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    // It may be closed before all of a long request was read.
    let _ = stream.read_to_string(&mut answer);
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    (status, body.unwrap_or_default())
}

fn page(netns: &NetNs, address: SocketAddr, path: &str) -> (u16, String) {
    sent(netns, address, &format!("GET {path} HTTP/1.1\r\nHost: it\r\n\r\n"))
}

fn with_pages(scene: &Scene, name: &str) -> Controller {
    Controller::start(&scene.api, &scene.netns, name, |settings| {
        settings["health"] = json!({"listen": "127.0.0.1:0"});
        settings["metrics"] = json!({"listen": "127.0.0.1:0"});
    })
}

/// The value of a series.
fn value(metrics: &str, series: &str) -> Option<u64> {
    let of = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
    metrics.lines().find_map(of)
}

#[test]
fn what_is_served_and_refused_is_counted() {
    let scene = Scene::new();
    let pod = scene.pod(1, |_| {});
    let controller = with_pages(&scene, "one");
    scene.wait_ready(&controller);
    let agent = scene.agent(&controller, "token of node-a");
    let csr = Csr::new(None);
    agent.sign(&pod, &csr.der).unwrap();
    agent.sign("no uid", &csr.der).unwrap_err();
    scene.agent(&controller, "rubbish").sign(&pod, &csr.der).unwrap_err();
    let mut following = agent.follow().unwrap();
    following.next(GENEROUS).unwrap();
    let (status, metrics) = page(&scene.netns, controller.pages(), "/metrics");
    assert_eq!(status, 200);
    let of = |series: &str| value(&metrics, &format!("sheath_controller_{series}"));
    for (series, expected) in [
        ("leads", 1),
        ("ready", 1),
        ("ca_problem", 0),
        ("ca_roots", 1),
        ("svids_issued_total", 1),
        ("svids_refused_total{reason=\"bad_request\"}", 1),
        ("svids_refused_total{reason=\"no_such_pod\"}", 0),
        ("calls_refused_total{reason=\"bad_token\"}", 1),
        ("directory_streams", 1),
        ("directory_nodes", 1),
        ("directory_entries{state=\"pending\"}", 0),
    ] {
        assert_eq!(of(series), Some(expected), "{series}: {metrics}");
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let [root, intermediate] = ["root", "intermediate"]
        .map(|of_what| of(&format!("ca_end_timestamp_seconds{{of=\"{of_what}\"}}")).unwrap());
    assert!(now < intermediate && intermediate < root, "{metrics}");
    for watched in ["pods", "namespaces", "nodes", "services", "endpointslices"] {
        assert!(of(&format!("watch_age_seconds{{of=\"{watched}\"}}")).is_some(), "{watched}");
    }
    assert!(of("directory_sequence").is_some() && of("api_server_age_seconds").is_some());
    assert!(!metrics.contains("token of"), "{metrics}");
}

#[test]
fn a_replica_is_ready_that_leads_with_a_ca_or_knows_who_leads() {
    let scene = Scene::new();
    // Somebody else's: the CA cannot be made.
    let other = json!({"metadata": {"namespace": "sheath-system", "name": "sheath-ca"}, "data": {"x": "eA=="}});
    scene.api.put(Kind::Secret, other);
    let one = Controller::start(&scene.api, &scene.netns, "one", |settings| {
        settings["health"] = json!({"listen": "127.0.0.1:0"});
    });
    controller::wait_leads(&scene.api, &one);
    let health = |controller: &Controller, path: &str| page(&scene.netns, controller.pages(), path);
    wait::wait_until("it says what it lacks", GENEROUS, || {
        let (status, why) = health(&one, "/readyz");
        status == 503 && why.contains("has no CA yet") && why.contains("other entries")
    });
    assert_eq!(health(&one, "/livez"), (200, "ok\n".to_owned()));
    assert_eq!(health(&one, "/metrics").0, 404, "they were not asked for");
    scene.api.delete(Kind::Secret, "sheath-system/sheath-ca");
    wait::wait_until("it is ready", GENEROUS, || health(&one, "/readyz").0 == 200);
    let two = Controller::start(&scene.api, &scene.netns, "two", |settings| {
        settings["health"] = json!({"listen": "127.0.0.1:0"});
    });
    wait::wait_until("the other knows who leads", GENEROUS, || {
        let (status, said) = health(&two, "/readyz");
        status == 200 && said.contains(&one.address().to_string())
    });
    // Without an API server nobody leads for long; alive they are.
    scene.api.behave(|behaviour| behaviour.is_mute = true);
    wait::wait_until("nobody leads", GENEROUS, || health(&one, "/readyz").0 == 503);
    assert_eq!(health(&one, "/livez").0, 200);
}

#[test]
fn whoever_misuses_the_pages_is_turned_away_and_agents_notice_nothing() {
    let scene = Scene::new();
    let pod = scene.pod(1, |_| {});
    let controller = with_pages(&scene, "one");
    scene.wait_ready(&controller);
    let (netns, at) = (&scene.netns, controller.pages());
    for (request, code) in [
        ("POST /metrics HTTP/1.1\r\nHost: it\r\nContent-Length: 0\r\n\r\n".to_owned(), 405),
        ("GET /../etc/passwd HTTP/1.1\r\nHost: it\r\n\r\n".to_owned(), 404),
        (format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(20_000)), 431),
        (format!("GET /metrics HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100)), 431),
        ("rubbish\r\n\r\n".to_owned(), 400),
    ] {
        let (status, _) = sent(netns, at, &request);
        // The answer may be lost where the connection is closed before all of the request was read.
        let is_reset = status == 0 && request.len() > 8192;
        assert!(status == code || is_reset, "{status}: {}", &request[..request.len().min(60)]);
    }
    // Those who say nothing have few places and not for long; whoever comes beyond that is closed at once.
    let begun = Instant::now();
    let silent: Vec<_> = (0..50).map(|_| connect(netns, at)).collect();
    let csr = Csr::new(None);
    scene.agent(&controller, "token of node-a").sign(&pod, &csr.der).unwrap();
    for mut stream in silent {
        let _ = stream.read(&mut [0]);
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(page(netns, at, "/metrics").0, 200);
}
