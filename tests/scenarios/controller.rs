//! The controller issues identities of pods to the agents of their nodes, and to nobody else, whatever they try.

use std::time::{Duration, Instant, SystemTime};

use rcgen::PublicKeyData;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use sheath_tests::api_server::Kind;
use sheath_tests::controller::{self, Caller, Csr, SPIFFE_ID, Scene, token_of};
use sheath_tests::wait::{self, GENEROUS};
use tonic::Code;

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
fn it_takes_no_privileges_and_writes_no_files() {
    let scene = Scene::new();
    let pod = scene.pod(1, |_| {});
    let mut controller = scene.leader();
    controller.relaunch_as_nobody();
    let agent = scene.agent(&controller, "token of node-a");
    let csr = Csr::new(None);
    wait::wait_until("it signs", GENEROUS, || agent.sign(&pod, &csr.der).is_ok());
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
    // On the node where the controller runs, its own identity is in reach of no agent.
    let own = scene.pod(9, |pod| {
        pod["metadata"]["namespace"] = json!("sheath-system");
        pod["spec"]["serviceAccountName"] = json!("sheath-controller");
    });
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
        (&own, Code::FailedPrecondition, "pods of the namespace sheath-system"),
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
fn a_node_that_asks_without_end_has_to_wait_and_others_need_not() {
    let scene = Scene::new();
    let pod = scene.pod(1, |_| {});
    let elsewhere = scene.pod(2, |pod| pod["spec"]["nodeName"] = json!("node-b"));
    let controller = scene.leader();
    let agent = scene.agent(&controller, "token of node-a");
    let csr = Csr::new(None);
    let started = Instant::now();
    let mut issued = 0;
    let status = loop {
        match agent.sign(&pod, &csr.der) {
            Ok(_) => issued += 1,
            Err(status) => break status,
        }
        assert!(started.elapsed() < GENEROUS, "nobody holds it up");
    };
    let took = started.elapsed();
    println!("{issued} identities in {took:?}");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(issued >= 1000, "as many as two full nodes have pods at once: {issued}");
    let other = scene.agent(&controller, "token of node-b");
    other.sign(&elsewhere, &csr.der).unwrap();
    wait::wait_until("it goes on", GENEROUS, || agent.sign(&pod, &csr.der).is_ok());
}
