//! The controller issues identities of pods to the agents of their nodes, and to nobody else, whatever they try.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rcgen::PublicKeyData;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use sheath_tests::api_server::{ApiServer, Kind};
use sheath_tests::controller::{self, Caller, Controller, Csr, SPIFFE_ID, token_of};
use sheath_tests::netns::NetNs;
use sheath_tests::wait::{self, GENEROUS};
use tonic::Code;

const SECRET: &str = "sheath-system/sheath-ca";

/// A cluster with an API server, and agents of two nodes.
struct Scene {
    api: ApiServer,
    netns: Arc<NetNs>,
}

impl Scene {
    fn new() -> Self {
        let netns = Arc::new(NetNs::new());
        let api = ApiServer::start(&netns);
        for node in ["node-a", "node-b"] {
            api.know_token(&format!("token of {node}"), token_of(node));
        }
        Self { api, netns }
    }

    fn controller(&self, name: &str) -> Controller {
        Controller::start(&self.api, &self.netns, name, |_| {})
    }

    /// A controller that leads and has its CA.
    #[track_caller]
    fn leader(&self) -> Controller {
        let controller = self.controller("one");
        self.wait_ready(&controller);
        controller
    }

    #[track_caller]
    fn wait_ready(&self, controller: &Controller) {
        controller::wait_leads(&self.api, controller);
        controller::wait_roots(&self.api);
        let agent = self.agent(controller, "token of node-a");
        wait::wait_until("roots are told", GENEROUS, || agent.roots().is_ok());
    }

    #[track_caller]
    fn agent(&self, controller: &Controller, token: &str) -> Caller {
        wait::wait_for("a connection", GENEROUS, || {
            Caller::connect(&self.netns, controller.address(), Some(token)).ok()
        })
    }

    /// A pod on the node a; its uid.
    fn pod(&self, number: u32, change: impl FnOnce(&mut Value)) -> String {
        let uid = format!("00000000-0000-4000-8000-{number:012}");
        let mut pod = json!({
            "metadata": {"namespace": "shop", "name": format!("web-{number}"), "uid": uid},
            "spec": {"nodeName": "node-a", "serviceAccountName": "web", "containers": []},
            "status": {"phase": "Running"},
        });
        change(&mut pod);
        self.api.put(Kind::Pod, pod);
        uid
    }
}

fn has(certificate: &CertificateDer<'_>, bytes: &[u8]) -> bool {
    certificate.windows(bytes.len()).any(|window| window == bytes)
}

#[track_caller]
fn refused(answer: Result<Vec<CertificateDer<'static>>, tonic::Status>, code: Code, words: &str) {
    let status = answer.expect_err(words);
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(words), "{words}: {}", status.message());
}

#[test]
fn a_pod_has_the_identity_of_its_service_account_whatever_is_asked_for() {
    let scene = Scene::new();
    let pod = scene.pod(1, |_| {});
    let controller = scene.leader();
    let agent = scene.agent(&controller, "token of node-a");
    let wanted = "spiffe://example.org/ns/kube-system/sa/admin";
    let csr = Csr::new(Some(wanted));
    let chain = agent.sign(&pod, &csr.der).unwrap();
    assert_eq!(chain.len(), 2, "the leaf and the intermediate");
    assert!(has(&chain[0], b"spiffe://example.org/ns/shop/sa/web"));
    assert!(!has(&chain[0], wanted.as_bytes()));
    assert!(has(&chain[0], &csr.key.subject_public_key_info()));
    // It proves to be the controller, by the same CA.
    assert!(has(&agent.server[0], SPIFFE_ID.as_bytes()));
    assert_eq!(agent.server[1], chain[1]);
    // The Secret has the keys, the ConfigMap only certificates.
    assert!(!controller::wait_roots(&scene.api).contains("PRIVATE"));
    assert_eq!(agent.roots().unwrap().len(), 1);
}

#[test]
fn whoever_is_no_agent_is_refused_with_the_reason() {
    let scene = Scene::new();
    let pod = scene.pod(1, |_| {});
    let controller = scene.leader();
    let csr = Csr::new(None);
    let spoilt = |change: &dyn Fn(&mut Value)| {
        let mut status = token_of("node-a");
        change(&mut status);
        status
    };
    for (name, status, code, words) in [
        (
            "another audience",
            spoilt(&|status| status["audiences"] = json!(["https://kubernetes.default.svc"])),
            Code::Unauthenticated,
            "does not accept the token",
        ),
        (
            "an audience that nobody checks",
            spoilt(&|status| drop(status.as_object_mut().unwrap().remove("audiences"))),
            Code::Unauthenticated,
            "not for the audience sheath-controller",
        ),
        (
            "another account",
            spoilt(&|status| {
                status["user"]["username"] = json!("system:serviceaccount:shop:sheath-agent");
            }),
            Code::PermissionDenied,
            "is of system:serviceaccount:shop:sheath-agent",
        ),
        (
            "a person",
            spoilt(&|status| status["user"]["username"] = json!("kubernetes-admin")),
            Code::PermissionDenied,
            "is of kubernetes-admin",
        ),
        (
            "no node",
            spoilt(&|status| status["user"]["extra"] = json!({})),
            Code::PermissionDenied,
            "does not say on which node",
        ),
        (
            "expired",
            json!({"authenticated": false, "error": "token has expired"}),
            Code::Unauthenticated,
            "token has expired",
        ),
    ] {
        scene.api.know_token(name, status);
        let caller = scene.agent(&controller, name);
        refused(caller.sign(&pod, &csr.der), code, words);
        refused(caller.roots(), code, words);
    }
    let stranger = scene.agent(&controller, "a token that nobody knows");
    refused(stranger.sign(&pod, &csr.der), Code::Unauthenticated, "invalid bearer token");
    let nobody = Caller::connect(&scene.netns, controller.address(), None).unwrap();
    refused(nobody.sign(&pod, &csr.der), Code::Unauthenticated, "there is no token");
    let long = scene.agent(&controller, &"x".repeat(20_000));
    refused(long.sign(&pod, &csr.der), Code::Unauthenticated, "longer than any");
}

/// A token is looked at again soon: that of an agent that is gone is of no use for long.
#[test]
fn a_token_that_expires_is_refused_soon_on_the_same_connection() {
    let scene = Scene::new();
    let pod = scene.pod(1, |_| {});
    let controller = scene.leader();
    let agent = scene.agent(&controller, "token of node-a");
    let csr = Csr::new(None);
    agent.sign(&pod, &csr.der).unwrap();
    let asked = scene.api.reviews();
    agent.sign(&pod, &csr.der).unwrap();
    assert_eq!(scene.api.reviews(), asked, "it is not asked about each time");
    let expired = json!({"authenticated": false, "error": "token has expired"});
    scene.api.know_token("token of node-a", expired);
    wait::wait_until("the token is refused", GENEROUS, || {
        agent.sign(&pod, &csr.der).is_err_and(|status| status.code() == Code::Unauthenticated)
    });
}

#[test]
fn an_agent_gets_identities_of_live_pods_of_its_own_node_alone() {
    let scene = Scene::new();
    let time = |back: u64| {
        let then = SystemTime::now() - Duration::from_secs(back);
        let then: time::OffsetDateTime = then.into();
        json!(then.format(&time::format_description::well_known::Rfc3339).unwrap())
    };
    let live = scene.pod(1, |_| {});
    let ending = scene.pod(2, |pod| pod["metadata"]["deletionTimestamp"] = time(0));
    let elsewhere = scene.pod(3, |pod| pod["spec"]["nodeName"] = json!("node-b"));
    let unbound = scene.pod(4, |pod| pod["spec"]["nodeName"] = Value::Null);
    let mirror = scene.pod(5, |pod| {
        pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    });
    let done = scene.pod(6, |pod| pod["status"]["phase"] = json!("Succeeded"));
    let failed = scene.pod(7, |pod| pod["status"]["phase"] = json!("Failed"));
    let stuck = scene.pod(8, |pod| pod["metadata"]["deletionTimestamp"] = time(600));
    let controller = scene.leader();
    let csr = Csr::new(None);
    let agent = scene.agent(&controller, "token of node-a");
    for pod in [&live, &ending] {
        agent.sign(pod, &csr.der).unwrap();
    }
    let none = "ffffffff-0000-4000-8000-000000000000".to_owned();
    for (pod, code, words) in [
        (&elsewhere, Code::NotFound, "no pod with the uid"),
        (&unbound, Code::NotFound, "no pod with the uid"),
        (&none, Code::NotFound, "no pod with the uid"),
        (&mirror, Code::FailedPrecondition, "image of a static pod"),
        (&done, Code::FailedPrecondition, "is over"),
        (&failed, Code::FailedPrecondition, "is over"),
        (&stuck, Code::FailedPrecondition, "the grace of the deleted pod"),
    ] {
        refused(agent.sign(pod, &csr.der), code, words);
    }
    for text in ["", "../../etc", &live.to_uppercase().replace('0', "A"), &"x".repeat(3000)] {
        refused(agent.sign(text, &csr.der), Code::InvalidArgument, "is no uid of a pod");
    }
    // The agent of the other node has its own view, and so has whoever steals its token.
    let other = scene.agent(&controller, "token of node-b");
    other.sign(&elsewhere, &csr.der).unwrap();
    refused(other.sign(&live, &csr.der), Code::NotFound, "no pod with the uid");
    // A pod that is gone gets nothing more.
    scene.api.delete(Kind::Pod, "shop/web-1");
    wait::wait_until("the pod is gone", GENEROUS, || {
        agent.sign(&live, &csr.der).is_err_and(|status| status.code() == Code::NotFound)
    });
}

#[test]
fn a_pod_that_is_too_new_for_the_watch_is_asked_for() {
    let scene = Scene::new();
    let controller = scene.leader();
    scene.api.wait_watched(Kind::Pod, 1);
    scene.api.behave(|behaviour| behaviour.is_frozen = true);
    let pod = scene.pod(1, |_| {});
    let agent = scene.agent(&controller, "token of node-a");
    agent.sign(&pod, &Csr::new(None).der).unwrap();
    let other = scene.agent(&controller, "token of node-b");
    let answer = other.sign(&pod, &Csr::new(None).der);
    refused(answer, Code::NotFound, "no pod with the uid");
}

#[test]
fn requests_that_are_none_are_refused_and_cost_little() {
    let scene = Scene::new();
    let pod = scene.pod(1, |_| {});
    let controller = scene.leader();
    let agent = scene.agent(&controller, "token of node-a");
    let [mine, other] = [(); 2].map(|()| Csr::new(None));
    for (csr, words) in [
        (vec![], "no PKCS #10"),
        (vec![0x30; 4000], "no PKCS #10"),
        (vec![0; 5000], "longer than 4096 bytes"),
        ([&mine.der[..], b"more"].concat(), "no PKCS #10"),
    ] {
        refused(agent.sign(&pod, &csr), Code::InvalidArgument, words);
    }
    // The key of another in one's own request.
    let (own, others) = (mine.key.subject_public_key_info(), other.key.subject_public_key_info());
    let at = mine.der.windows(own.len()).position(|window| window == own).unwrap();
    let mut stolen = mine.der.clone();
    stolen[at..at + own.len()].copy_from_slice(&others);
    refused(agent.sign(&pod, &stolen), Code::InvalidArgument, "not signed with its own key");
    let huge = agent.sign(&pod, &vec![0; 1 << 20]).unwrap_err();
    assert!(matches!(huge.code(), Code::OutOfRange | Code::ResourceExhausted), "{huge:?}");
    // It is as it was.
    agent.sign(&pod, &mine.der).unwrap();
}

#[test]
fn a_replica_that_does_not_lead_says_who_does_and_leads_when_that_has_ended() {
    let scene = Scene::new();
    let pod = scene.pod(1, |_| {});
    let mut one = scene.leader();
    let two = scene.controller("two");
    let csr = Csr::new(None);
    let agent = scene.agent(&two, "token of node-a");
    wait::wait_until("the leader is named", GENEROUS, || {
        let status = agent.sign(&pod, &csr.der).unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        let leader = status.metadata().get("sheath-leader").expect("who leads");
        leader.to_str().unwrap() == one.address().to_string()
    });
    let roots = controller::wait_roots(&scene.api);
    let started = Instant::now();
    one.terminate();
    wait::wait_until("the other signs", GENEROUS, || agent.sign(&pod, &csr.der).is_ok());
    assert!(started.elapsed() < Duration::from_secs(10), "the Lease was given back");
    assert_eq!(controller::wait_roots(&scene.api), roots, "it is the same CA");
    // Killed, it gives nothing back: the Lease has to run out.
    one.launch();
    let mut two = two;
    two.kill();
    let agent = scene.agent(&one, "token of node-a");
    wait::wait_until("the first signs again", GENEROUS, || agent.sign(&pod, &csr.der).is_ok());
    assert_eq!(controller::wait_roots(&scene.api), roots, "it is the same CA");
}

/// A leader that hears nothing of the API server any more cannot know whether another leads, and ends before one can.
#[test]
fn a_leader_that_is_cut_off_signs_nothing_once_another_leads() {
    let scene = Scene::new();
    let pod = scene.pod(1, |_| {});
    let one = scene.leader();
    let two = scene.controller("two");
    let agent = scene.agent(&one, "token of node-a");
    let csr = Csr::new(None);
    agent.sign(&pod, &csr.der).unwrap();
    let follower = scene.agent(&one, "token of node-a");
    let following = std::thread::spawn(move || follower.follow_to_the_end());
    let cut = Instant::now();
    scene.api.behave(|behaviour| behaviour.shut_out = vec!["one".to_owned()]);
    let mut last = cut;
    let taken = wait::wait_for("another leads", GENEROUS, || {
        // The order matters: what is signed after another leads is wrong.
        let taken = controller::holder(&scene.api) == Some(two.identity());
        match agent.sign(&pod, &csr.der) {
            Ok(_) => {
                assert!(!taken, "the old leader signs though another leads");
                last = Instant::now();
            }
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        }
        taken.then(Instant::now)
    });
    assert!(taken - last > Duration::from_secs(1), "it had ended before");
    let streams = following.join().unwrap();
    assert!(streams.is_ok_and(|told| told == 1), "streams of the old leader end");
    let agent = scene.agent(&two, "token of node-a");
    wait::wait_until("the other signs", GENEROUS, || agent.sign(&pod, &csr.der).is_ok());
}

#[test]
fn a_secret_that_is_damaged_is_never_overwritten_and_who_knew_it_goes_on() {
    let scene = Scene::new();
    let pod = scene.pod(1, |_| {});
    let mut one = scene.leader();
    let whole = scene.api.get(Kind::Secret, SECRET).unwrap();
    let mut damaged = whole.clone();
    damaged["data"]["ca.json"] = json!("bm9uc2Vuc2U=");
    scene.api.put(Kind::Secret, damaged);
    one.wait_for_log("holds no CA that can be used");
    let csr = Csr::new(None);
    let agent = scene.agent(&one, "token of node-a");
    let before = agent.sign(&pod, &csr.der).unwrap();
    // One that begins now knows nothing, and makes nothing up.
    one.kill();
    one.launch();
    controller::wait_leads(&scene.api, &one);
    wait::wait_until("it says so", GENEROUS, || {
        let lines = one.log_lines();
        lines.iter().filter(|line| line.to_string().contains("holds no CA")).count() >= 2
    });
    assert!(Caller::connect(&scene.netns, one.address(), None).is_err(), "it has no certificate");
    let stored = scene.api.get(Kind::Secret, SECRET).unwrap();
    assert_eq!(stored["data"]["ca.json"], json!("bm9uc2Vuc2U="), "it was overwritten");
    // Restored, it is the same CA as before.
    scene.api.put(Kind::Secret, whole);
    let agent = scene.agent(&one, "token of node-a");
    wait::wait_until("it signs", GENEROUS, || {
        agent.sign(&pod, &csr.der).is_ok_and(|chain| chain[1] == before[1])
    });
}

#[test]
fn a_secret_that_is_gone_is_no_reason_for_a_new_ca() {
    let scene = Scene::new();
    let mut one = scene.leader();
    scene.api.delete(Kind::Secret, SECRET);
    one.wait_for_log("the Secret sheath-ca is gone");
    one.kill();
    one.launch();
    one.wait_for_log("there was a CA");
    assert!(scene.api.get(Kind::Secret, SECRET).is_none());
    // Whoever really wants another one says so.
    scene.api.delete(Kind::ConfigMap, "sheath-system/sheath-roots");
    wait::wait_until("a new CA", GENEROUS, || scene.api.get(Kind::Secret, SECRET).is_some());
}

#[test]
fn an_empty_secret_that_the_chart_has_made_is_filled() {
    let scene = Scene::new();
    let empty = |name: &str| json!({"metadata": {"namespace": "sheath-system", "name": name}});
    scene.api.put(Kind::Secret, empty("sheath-ca"));
    scene.api.put(Kind::ConfigMap, empty("sheath-roots"));
    let _leader = scene.leader();
    assert!(scene.api.get(Kind::Secret, SECRET).unwrap()["data"]["ca.json"].is_string());
}

/// The new root is told at once, and signs when that was long enough ago.
#[test]
fn a_root_that_somebody_asks_for_is_told_before_it_signs() {
    let scene = Scene::new();
    let pod = scene.pod(1, |_| {});
    let one = Controller::start(&scene.api, &scene.netns, "one", |settings| {
        settings["identity"]["distribute"] = json!("10s");
    });
    scene.wait_ready(&one);
    let agent = scene.agent(&one, "token of node-a");
    let csr = Csr::new(None);
    let first = agent.sign(&pod, &csr.der).unwrap();
    let mut secret = scene.api.get(Kind::Secret, SECRET).unwrap();
    secret["metadata"]["annotations"] = json!({"sheath.dev/rotate-root": "because"});
    scene.api.put(Kind::Secret, secret);
    wait::wait_until("two roots", GENEROUS, || agent.roots().is_ok_and(|roots| roots.len() == 2));
    let told = Instant::now();
    let pem = controller::wait_roots(&scene.api);
    assert_eq!(pem.matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(agent.sign(&pod, &csr.der).unwrap()[1], first[1], "the old root signs still");
    wait::wait_until("another intermediate", GENEROUS, || {
        agent.sign(&pod, &csr.der).is_ok_and(|chain| chain[1] != first[1])
    });
    assert!(told.elapsed() > Duration::from_secs(5), "it was told for long enough");
    let secret = scene.api.get(Kind::Secret, SECRET).unwrap();
    assert_eq!(secret["metadata"]["annotations"], json!({}), "the wish is fulfilled");
    assert_eq!(agent.roots().unwrap().len(), 2, "the old root stays while what it signed lives");
}
