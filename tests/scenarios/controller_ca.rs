//! The controller's CA: it is made once, never overwritten, and its roots are told before they sign.

use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use sheath_tests::api_server::Kind;
use sheath_tests::clock::Clock;
use sheath_tests::controller::{self, Caller, Controller, Csr, Scene};
use sheath_tests::wait::{self, GENEROUS};

const SECRET: &str = "sheath-system/sheath-ca";

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

/// As after weeks without a controller, or where an old backup of the Secret was restored.
#[test]
fn an_intermediate_that_has_ended_is_replaced_and_pods_get_their_identities() {
    let scene = Scene::new();
    let pod = scene.pod(1, |_| {});
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::new(dir.path());
    // It lives for ten hours.
    clock.set_behind(Duration::from_secs(20 * 60 * 60));
    let mut one = Controller::start_by(Some(clock), &scene.api, &scene.netns, "one", |_| {});
    wait::wait_until("a CA", GENEROUS, || scene.api.get(Kind::Secret, SECRET).is_some());
    one.kill();
    one.clock().set_ahead(Duration::ZERO);
    one.launch();
    scene.wait_ready(&one);
    let agent = scene.agent(&one, "token of node-a");
    assert_eq!(agent.sign(&pod, &Csr::new(None).der).unwrap().len(), 2);
    assert_eq!(agent.roots().unwrap().len(), 1, "it is the same root");
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
    wait::wait_until("two roots in the ConfigMap", GENEROUS, || {
        controller::wait_roots(&scene.api).matches("BEGIN CERTIFICATE").count() == 2
    });
    assert_eq!(agent.sign(&pod, &csr.der).unwrap()[1], first[1], "the old root signs still");
    wait::wait_until("another intermediate", GENEROUS, || {
        agent.sign(&pod, &csr.der).is_ok_and(|chain| chain[1] != first[1])
    });
    assert!(told.elapsed() > Duration::from_secs(5), "it was told for long enough");
    let secret = scene.api.get(Kind::Secret, SECRET).unwrap();
    assert_eq!(secret["metadata"]["annotations"], json!({}), "the wish is fulfilled");
    assert_eq!(agent.roots().unwrap().len(), 2, "the old root stays while what it signed lives");
}

/// A CA of somebody else's, as cert-manager writes one.
struct Provided {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Provided {
    fn new(name: &str, below: Option<&Self>, constraints: BasicConstraints) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(constraints);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let certificate = match below {
            Some(above) => params.signed_by(&key, &above.issuer).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()
    }

    fn put(&self, scene: &Scene, root: &Self) {
        let key = self.issuer.key().serialize_pem();
        let entries = [("tls.crt", &*self.pem), ("tls.key", &*key), ("ca.crt", &*root.pem)];
        scene.api.put(Kind::Secret, controller::secret("my-ca", &entries));
    }
}

fn with_provided(scene: &Scene) -> Controller {
    Controller::start(&scene.api, &scene.netns, "one", |settings| {
        settings["identity"]["distribute"] = json!("10s");
        settings["identity"]["secret"] = json!("my-ca");
        settings["health"] = json!({"listen": "127.0.0.1:0"});
    })
}

#[test]
fn a_ca_of_somebody_elses_signs_and_its_next_root_is_told_before_it_does() {
    let scene = Scene::new();
    let pod = scene.pod(1, |_| {});
    let one = with_provided(&scene);
    one.wait_for_log("there is no such Secret");
    assert!(scene.api.get(Kind::Secret, SECRET).is_none(), "no CA of its own is made");
    let root = Provided::new("root", None, BasicConstraints::Unconstrained);
    let below = Provided::new("below", Some(&root), BasicConstraints::Constrained(1));
    below.put(&scene, &root);
    scene.wait_ready(&one);
    let agent = scene.agent(&one, "token of node-a");
    let csr = Csr::new(None);
    let first = agent.sign(&pod, &csr.der).unwrap();
    assert_eq!(first.len(), 3, "the leaf, the controller's intermediate, the CA");
    assert_eq!(first[2], below.der());
    assert_eq!(agent.roots().unwrap(), [root.der()]);
    assert!(!controller::wait_roots(&scene.api).contains("PRIVATE"));

    // What cannot be used changes nothing, and is told.
    let narrow = Provided::new("narrow", Some(&root), BasicConstraints::Constrained(0));
    narrow.put(&scene, &root);
    one.wait_for_log("allows 0 authorities below it");
    let other = Provided::new("other", None, BasicConstraints::Unconstrained);
    below.put(&scene, &other);
    one.wait_for_log("does not prove anything");
    assert_eq!(agent.sign(&pod, &csr.der).unwrap()[1..], first[1..]);

    // Renewed below the same root, it signs at once.
    let renewed = Provided::new("below", Some(&root), BasicConstraints::Constrained(1));
    renewed.put(&scene, &root);
    wait::wait_until("the renewed one signs", GENEROUS, || {
        agent.sign(&pod, &csr.der).is_ok_and(|chain| chain[2] == renewed.der())
    });
    assert_eq!(agent.roots().unwrap(), [root.der()]);

    // Another root is told first.
    other.put(&scene, &other);
    wait::wait_until("two roots", GENEROUS, || agent.roots().is_ok_and(|roots| roots.len() == 2));
    let told = Instant::now();
    assert_eq!(agent.sign(&pod, &csr.der).unwrap()[2], renewed.der(), "the old one signs still");
    wait::wait_until("the other signs", GENEROUS, || {
        // A root is not sent along.
        agent.sign(&pod, &csr.der).is_ok_and(|chain| chain.len() == 2 && chain[1] != first[1])
    });
    assert!(told.elapsed() > Duration::from_secs(5), "it was told for long enough");
}

/// The Secret is gone, and another replica begins: it goes on with what the first has used.
#[test]
fn a_ca_of_somebody_elses_that_is_gone_stays_in_use() {
    let scene = Scene::new();
    let pod = scene.pod(1, |_| {});
    let root = Provided::new("root", None, BasicConstraints::Unconstrained);
    root.put(&scene, &root);
    let mut one = with_provided(&scene);
    scene.wait_ready(&one);
    scene.api.delete(Kind::Secret, "sheath-system/my-ca");
    one.wait_for_log("there is no such Secret");
    one.kill();
    one.launch();
    scene.wait_ready(&one);
    let agent = scene.agent(&one, "token of node-a");
    assert_eq!(agent.sign(&pod, &Csr::new(None).der).unwrap().len(), 2);
    assert_eq!(agent.roots().unwrap(), [root.der()]);
}
