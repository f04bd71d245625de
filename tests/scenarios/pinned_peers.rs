//! Peers known by pins: two sides that each trust the other's own certificate, and no CA.

use std::path::{Path, PathBuf};
use std::process::Command;

use sheath_tests::ca::{PemFiles, fingerprint};
use sheath_tests::config::{Config, Peer, Pin, Workload};
use sheath_tests::interop::openssl::self_signed;
use sheath_tests::netns::must_succeed;
use sheath_tests::pair::{Pair, SERVER_NETWORKS, Setting, say};
use sheath_tests::script::{Connection, Step};
use sheath_tests::wait::{GENEROUS, wait_for};
use sheath_tests::world::{FAMILIES, Family};

/// SHA-256 of the public key, in base64, as operators compute it.
fn spki(certificate: &Path) -> String {
    let pipeline = format!(
        "openssl x509 -in {} -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64",
        certificate.display()
    );
    must_succeed(Command::new("sh").args(["-c", &pipeline])).trim().to_owned()
}

/// The certificates of a scene.
struct Certificates {
    dir: tempfile::TempDir,
    client: PemFiles,
    web: PemFiles,
}

impl Certificates {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let [client, web] = ["client", "web"].map(|name| self_signed(&dir.path().join(name), name));
        Self { dir, client, web }
    }

    /// Agents whose workloads know each other by these pins alone.
    fn pair(&self, of_client: Vec<Pin>, of_web: Vec<Pin>) -> Pair {
        Pair::with(Setting::Pods, |a, b| {
            let workload = a.workloads[0].clone().files(self.client.clone());
            a.workloads = vec![anonymous(workload)];
            a.peers = vec![Peer { pins: of_web, ..Peer::new(&SERVER_NETWORKS, &[]) }];
            let mut workload = anonymous(b.workloads[0].clone().files(self.web.clone()));
            let inbound = workload.inbound.as_mut().expect("an inbound mode");
            inbound.allow.clear();
            inbound.allow_pins = of_client;
            b.workloads = vec![workload];
        })
    }
}

/// Without a SPIFFE ID.
fn anonymous(workload: Workload) -> Workload {
    Workload { spiffe_id: None, ..workload }
}

fn try_it(pair: &Pair, family: Family) -> Connection {
    let _echo = pair.serve(family, &[Step::Echo]);
    pair.connect(pair.target(family), &say("pinned"))
}

fn file(path: &Path) -> Pin {
    Pin::Certificate(path.to_owned())
}

#[test]
fn two_self_signed_certificates_that_are_pinned_believe_each_other() {
    let certificates = Certificates::new();
    let (client, web) = (&certificates.client.certificate, &certificates.web.certificate);
    let ways: [(Pin, Pin); 3] = [
        (file(client), file(web)),
        (Pin::CertificateSha256(fingerprint(client)), Pin::CertificateSha256(fingerprint(web))),
        (Pin::SpkiSha256(spki(client)), Pin::SpkiSha256(spki(web))),
    ];
    for (of_client, of_web) in ways {
        let pair = certificates.pair(vec![of_client], vec![of_web]);
        let tap = pair.world.tap();
        for family in FAMILIES {
            let seen = try_it(&pair, family);
            assert_eq!(seen.last().text, "pinned", "{family:?}: {seen:?}");
        }
        let line = pair.agent_b.wait_for_access("the flow", |line| line.outcome == "ok");
        assert_eq!(line.peer_id, format!("pin:sha256:{}", fingerprint(client)));
        assert_eq!(line.local_id, format!("pin:sha256:{}", fingerprint(web)));
        assert_eq!(tap.sightings("pinned"), 0);
    }
}

#[test]
fn a_certificate_that_is_not_pinned_is_refused_on_either_side() {
    let certificates = Certificates::new();
    let other = self_signed(&certificates.dir.path().join("other"), "other").certificate;
    let (client, web) = (&certificates.client.certificate, &certificates.web.certificate);
    let pair = certificates.pair(vec![file(client)], vec![file(&other)]);
    let seen = try_it(&pair, Family::V4);
    assert_ne!(seen.ended_by(), None, "{seen:?}");
    let line = pair.agent_a.wait_for_access("the refusal", |line| line.outcome == "denied");
    assert!(line.reason.contains("is not pinned here"), "{line:?}");
    assert_eq!(line.peer_id, format!("pin:sha256:{}", fingerprint(web)));
    drop(pair);

    let pair = certificates.pair(vec![file(&other)], vec![file(web)]);
    let seen = try_it(&pair, Family::V4);
    assert_ne!(seen.ended_by(), None, "{seen:?}");
    let line = pair.agent_b.wait_for_access("the refusal", |line| line.outcome == "denied");
    assert!(line.reason.contains("is not pinned here"), "{line:?}");
}

#[test]
fn several_pins_let_a_certificate_be_replaced_without_a_gap() {
    let certificates = Certificates::new();
    let (client, web) = (&certificates.client.certificate, &certificates.web.certificate);
    let next = self_signed(&certificates.dir.path().join("next"), "next");
    let copy = |from: &PathBuf, to: &PathBuf| std::fs::copy(from, to).expect("a copy");
    // The server's own file changes; what is pinned of the old certificate stays.
    let old = certificates.dir.path().join("old.crt");
    copy(web, &old);
    let pair = certificates.pair(vec![file(client)], vec![file(&old), file(&next.certificate)]);
    assert_eq!(try_it(&pair, Family::V4).last().text, "pinned");
    copy(&next.key, &certificates.web.key);
    copy(&next.certificate, &certificates.web.certificate);
    let new = format!("pin:sha256:{}", fingerprint(&next.certificate));
    wait_for("the new certificate", GENEROUS, || {
        // There is no moment without one that is believed.
        assert_eq!(try_it(&pair, Family::V4).last().text, "pinned");
        pair.agent_a.access().iter().any(|line| line.peer_id == new).then_some(())
    });
}

/// A pin file that is not there pins nobody: nobody is believed, and everything else goes on.
#[test]
fn a_pin_file_that_is_missing_believes_nobody_until_it_is_there() {
    let certificates = Certificates::new();
    let (client, web) = (&certificates.client.certificate, &certificates.web.certificate);
    let later = certificates.dir.path().join("later.pem");
    let pair = certificates.pair(vec![file(&later)], vec![file(web)]);
    assert_ne!(try_it(&pair, Family::V4).ended_by(), None);
    std::fs::copy(client, &later).expect("a copy");
    wait_for("the pin", GENEROUS, || {
        (try_it(&pair, Family::V4).last().text == "pinned").then_some(())
    });
}

#[test]
fn pins_and_ids_may_stand_beside_each_other() {
    let certificates = Certificates::new();
    let client = certificates.client.certificate.clone();
    let change = |_: &mut Config, b: &mut Config| {
        let inbound = b.workloads[0].inbound.as_mut().expect("an inbound mode");
        inbound.allow_pins = vec![file(&client)];
    };
    // The client shows its SVID, which the server allows; the pin is of somebody else.
    let pair = Pair::with(Setting::Pods, change);
    assert_eq!(try_it(&pair, Family::V4).last().text, "pinned");
}
