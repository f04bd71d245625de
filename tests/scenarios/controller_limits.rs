//! What strangers and agents in bad hands can do to the controller, and to those who need it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use sheath_tests::api_server::Kind;
use sheath_tests::controller::{Caller, Csr, Scene};
use sheath_tests::wait::{self, GENEROUS};
use tonic::Code;

const AGENTS_POD: &str = "sheath-system/sheath-agent-node-a";

#[test]
fn a_token_of_an_agents_pod_that_is_gone_is_of_no_use() {
    let scene = Scene::new();
    let pod = scene.pod(1, |_| {});
    let controller = scene.leader();
    let agent = scene.agent(&controller, "token of node-a");
    let csr = Csr::new(None);
    agent.sign(&pod, &csr.der).unwrap();
    let follower = scene.agent(&controller, "token of node-a");
    let mut following = follower.follow().unwrap();
    let whole = scene.api.get(Kind::Pod, AGENTS_POD).unwrap();
    // The API server would say so of the token as well. This is sooner.
    let reviews = scene.api.reviews();
    scene.api.delete(Kind::Pod, AGENTS_POD);
    let refused = |words: &str| {
        wait::wait_until(words, GENEROUS, || {
            let answer = agent.sign(&pod, &csr.der);
            answer.is_err_and(|status| status.message().contains(words))
        });
    };
    refused("is not on this node any more");
    assert_eq!(scene.api.reviews(), reviews, "it is the controller's own finding");
    // What was begun with it ends as well.
    wait::wait_until("the stream ends", GENEROUS, || {
        following.next(Duration::from_secs(1)).is_err()
    });
    for ((part, key, value), words) in [
        (("spec", "nodeName", json!("node-b")), "is not on this node any more"),
        (("spec", "serviceAccountName", json!("web")), "is no agent's"),
        (("status", "phase", json!("Failed")), "is not on this node any more"),
    ] {
        let mut other = whole.clone();
        other[part][key] = value;
        scene.api.put(Kind::Pod, other);
        refused(words);
    }
    // Another pod of the same name.
    scene.api.put(Kind::Pod, whole.clone());
    wait::wait_until("it is served again", GENEROUS, || agent.sign(&pod, &csr.der).is_ok());
    scene.api.delete(Kind::Pod, AGENTS_POD);
    let mut other = whole.clone();
    other["metadata"]["uid"] = json!("00000000-0000-4000-9000-000000000000");
    scene.api.put(Kind::Pod, other);
    refused("is not on this node any more");
    scene.api.put(Kind::Pod, whole);
    wait::wait_until("it is served again", GENEROUS, || agent.sign(&pod, &csr.der).is_ok());
}

/// Each review takes a second, and many strangers ask for one. The agent's token is to be asked about again meanwhile.
#[test]
fn strangers_who_show_rubbish_keep_no_agent_waiting() {
    let scene = Scene::new();
    let pod = scene.pod(1, |_| {});
    let controller = scene.leader();
    let agent = scene.agent(&controller, "token of node-a");
    let csr = Csr::new(None);
    agent.sign(&pod, &csr.der).unwrap();
    thread::sleep(Duration::from_secs(17));
    scene.api.behave(|behaviour| behaviour.delay = Duration::from_secs(1));
    let is_over = AtomicBool::new(false);
    let asked = scene.api.reviews();
    thread::scope(|scope| {
        for number in 0..12_u8 {
            let source = IpAddr::from(Ipv4Addr::new(127, 0, 1, number + 1));
            for line in 0..10 {
                let (scene, controller, pod) = (&scene, &controller, &pod);
                let (is_over, der) = (&is_over, &csr.der);
                scope.spawn(move || {
                    let address = controller.address();
                    let mut stranger =
                        Caller::connect_from(source, &scene.netns, address, Some("?")).unwrap();
                    let mut tries = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        stranger.show(&format!("rubbish {number} {line} {tries}"));
                        tries += 1;
                        stranger.sign(pod, der).unwrap_err();
                        thread::sleep(Duration::from_millis(50));
                    }
                });
            }
        }
        let begun = Instant::now();
        let mut longest = Duration::ZERO;
        while begun.elapsed() < Duration::from_secs(8) {
            let asked = Instant::now();
            let answer = agent.sign(&pod, &csr.der);
            longest = longest.max(asked.elapsed());
            if let Err(status) = answer {
                is_over.store(true, Ordering::Relaxed);
                panic!("{status:?}");
            }
            thread::sleep(Duration::from_millis(100));
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(longest < Duration::from_secs(4), "it waited for {longest:?}");
    });
    let asked = scene.api.reviews() - asked;
    assert!(asked > 20, "nobody was in the way: {asked} reviews");
}

#[test]
fn an_address_that_shows_one_token_after_the_other_has_to_wait() {
    let scene = Scene::new();
    let pod = scene.pod(1, |_| {});
    let controller = scene.leader();
    let csr = Csr::new(None);
    let source = IpAddr::from([127, 0, 0, 9]);
    let mut stranger =
        Caller::connect_from(source, &scene.netns, controller.address(), Some("?")).unwrap();
    let before = scene.api.reviews();
    let mut codes = Vec::new();
    for number in 0..60 {
        stranger.show(&format!("rubbish {number}"));
        codes.push(stranger.sign(&pod, &csr.der).unwrap_err().code());
    }
    assert_eq!(codes.first(), Some(&Code::Unauthenticated));
    assert_eq!(codes.last(), Some(&Code::ResourceExhausted), "{codes:?}");
    let asked = scene.api.reviews() - before;
    assert!((15..40).contains(&asked), "{asked} reviews");
    // Others are nobody's business.
    scene.agent(&controller, "token of node-a").sign(&pod, &csr.der).unwrap();
}

#[test]
fn a_connection_by_which_no_agent_calls_is_closed_and_others_stay() {
    let scene = Scene::new();
    let pod = scene.pod(1, |_| {});
    let controller = scene.leader();
    let csr = Csr::new(None);
    let used = scene.agent(&controller, "token of node-a");
    used.sign(&pod, &csr.der).unwrap();
    let idle = scene.agent(&controller, "token of node-a");
    let rubbish = scene.agent(&controller, "rubbish");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(34) {
        let _ = rubbish.sign(&pod, &csr.der);
        thread::sleep(Duration::from_secs(1));
    }
    used.sign(&pod, &csr.der).unwrap();
    for closed in [idle, rubbish] {
        let status = closed.sign(&pod, &csr.der).unwrap_err();
        assert!(matches!(status.code(), Code::Unknown | Code::Unavailable), "{status:?}");
    }
}

/// A node whose agent changes its mind about its pods without end: others are told so much of it and no more.
#[test]
fn a_node_that_says_too_much_is_heard_later_and_others_at_once() {
    let scene = Scene::new();
    let protect = json!({"sheath.dev/protect": "require"});
    scene
        .api
        .put(Kind::Namespace, json!({"metadata": {"name": "shop", "labels": protect.clone()}}));
    for node in ["node-a", "node-b"] {
        scene.api.put(Kind::Node, json!({"metadata": {"name": node}}));
    }
    let uids: Vec<_> = (1..=200)
        .map(|number| {
            scene.pod(number, |pod| {
                pod["status"]["podIP"] = json!(format!("10.1.0.{number}"));
            })
        })
        .collect();
    let other = scene.pod(300, |pod| {
        pod["spec"]["nodeName"] = json!("node-b");
        pod["status"]["podIP"] = json!("10.1.1.1");
    });
    let controller = scene.leader();
    let [bad, good] =
        ["node-a", "node-b"].map(|node| scene.agent(&controller, &format!("token of {node}")));
    let bad = bad.follow().unwrap();
    let mut good = good.follow().unwrap();
    let silence = Duration::from_millis(1500);
    wait::wait_until("all is known", GENEROUS, || good.changes(silence).unwrap() == 0);
    let begun = Instant::now();
    let mut seen = 0;
    while begun.elapsed() < Duration::from_secs(8) {
        bad.say(&uids, &[]);
        bad.say(&[], &uids);
        seen += good.changes(Duration::from_millis(100)).unwrap();
    }
    assert!(seen >= 1000, "as much as many pods that start at once is heard: {seen}");
    assert!(seen <= 2000 + 20 * 10 + 400, "{seen} changes were told to everybody");
    good.say(&[other], &[]);
    wait::wait_until("the other node is heard", Duration::from_secs(2), || {
        good.changes(Duration::from_millis(200)).unwrap() > 0
    });
}

#[test]
fn a_node_has_one_stream_and_two_agents_do_not_take_turns() {
    let scene = Scene::new();
    let controller = scene.leader();
    let old = scene.agent(&controller, "token of node-a");
    let mut old_stream = old.follow().unwrap();
    // Another pod of the same node.
    let mut pod = scene.api.get(Kind::Pod, AGENTS_POD).unwrap();
    let uid = "00000000-0000-4000-9000-000000000001";
    pod["metadata"]["uid"] = json!(uid);
    pod["metadata"]["name"] = json!("sheath-agent-new");
    scene.api.put(Kind::Pod, pod);
    let mut token = sheath_tests::controller::token_of("node-a");
    token["user"]["extra"]["authentication.kubernetes.io/pod-uid"] = json!([uid]);
    scene.api.know_token("new", token);
    let new = scene.agent(&controller, "new");
    let mut new_stream = new.follow().unwrap();
    wait::wait_until("the older stream ends", GENEROUS, || {
        old_stream.next(Duration::from_millis(500)).is_err_and(|status| {
            assert_eq!(status.code(), Code::Aborted, "{status:?}");
            true
        })
    });
    for _ in 0..3 {
        let status = old.follow().err().expect("it has been replaced");
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    }
    assert!(new_stream.next(Duration::from_secs(1)).is_ok(), "the newer one goes on");
    drop(new_stream);
    drop(new);
    wait::wait_until("the older may follow again", GENEROUS, || old.follow().is_ok());
}
