//! Federation: workloads of two trust domains, each judged by its own domain's bundle and nothing else.

use std::path::PathBuf;

use sheath_tests::ca::{Ca, Leaf};
use sheath_tests::config::{Config, Peer, TrustDomain, Workload, spiffe_id};
use sheath_tests::pair::{PORT, Pair, SERVER_NETWORKS, Setting, say};
use sheath_tests::rogue::{Dial, End};
use sheath_tests::script::Step;
use sheath_tests::wait::{GENEROUS, wait_for};
use sheath_tests::world::{FAMILIES, Family, TRUST_DOMAIN};

const PARTNER: &str = "partner.example";

/// An ID like [`spiffe_id`], of the partner's domain.
fn partner_id(name: &str) -> String {
    spiffe_id(name).replace(TRUST_DOMAIN, PARTNER)
}

fn bundle(domain: &str, file: PathBuf) -> TrustDomain {
    TrustDomain { name: domain.to_owned(), bundle: Some(file), crl: None }
}

/// Node B belongs to the partner, with an embedded CA of its own. Each agent is told the other's bundle.
fn federated(change: impl FnOnce(&mut Config, &mut Config)) -> (Pair, Ca) {
    let mut partner = None;
    let pair = Pair::with(Setting::Pods, |a, b| {
        let dir = b.ca_dir().with_file_name("partner-ca");
        let ca = partner.insert(Ca::init(&dir, PARTNER));
        b.trust_domain = PARTNER.to_owned();
        b.embedded_ca().dir = dir.display().to_string();
        let own = a.ca_dir().join("ca.crt");
        let partners = dir.join("ca.crt");
        ca.write_certificate(&partners);
        b.trust_domains = vec![bundle(TRUST_DOMAIN, own)];
        b.workloads[0].spiffe_id = Some(partner_id("web"));
        a.trust_domains = vec![bundle(PARTNER, partners)];
        a.peers = vec![Peer::new(&SERVER_NETWORKS, &[])];
        a.peers[0].spiffe_ids = vec![partner_id("web")];
        change(a, b);
    });
    (pair, partner.expect("the partner's authority"))
}

#[test]
fn workloads_of_two_trust_domains_reach_each_other() {
    let (pair, _) = federated(|_, _| {});
    let tap = pair.world.tap();
    for family in FAMILIES {
        let _echo = pair.serve(family, &[Step::Echo]);
        let seen = pair.connect(pair.target(family), &say("federated"));
        assert_eq!(seen.last().text, "federated", "{family:?}: {seen:?}");
    }
    let line = pair.agent_b.wait_for_access("the flow", |line| line.outcome == "ok");
    assert_eq!(line.peer_id, spiffe_id("client"));
    assert_eq!(line.local_id, partner_id("web"));
    assert_eq!(tap.sightings("federated"), 0);
}

#[test]
fn a_domain_of_which_nothing_is_believed_is_refused_by_name() {
    // B has no bundle of A's domain, although it would allow the client.
    let (pair, _) = federated(|_, b| {
        b.trust_domains[0].bundle = Some("/nowhere.pem".into());
    });
    let mut echo = pair.serve(Family::V4, &[Step::Echo]);
    let seen = pair.connect(pair.target(Family::V4), &say("stranger"));
    assert_ne!(seen.ended_by(), None, "{seen:?}");
    assert_eq!(echo.pending(), 0);
    let line = pair.agent_b.wait_for_access("the refusal", |line| line.outcome == "denied");
    assert!(line.reason.contains("there is no bundle for the trust domain of"), "{line:?}");
    assert_eq!(line.peer_id, spiffe_id("client"));
}

#[test]
fn an_allowed_peer_is_one_and_not_the_whole_domain() {
    let (pair, _) = federated(|_, b| {
        let inbound = b.workloads[0].inbound.as_mut().expect("an inbound mode");
        inbound.allow = vec![spiffe_id("somebody-else")];
    });
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let seen = pair.connect(pair.target(Family::V4), &say("stranger"));
    assert_ne!(seen.ended_by(), None, "{seen:?}");
    let line = pair.agent_b.wait_for_access("the refusal", |line| line.outcome == "denied");
    assert!(line.reason.contains("not expected here"), "{line:?}");
}

/// The partner's authority may certify its own domain, and A's may not certify the partner's.
#[test]
fn no_authority_speaks_for_the_other_domain() {
    let (pair, partner) = federated(|_, b| {
        let inbound = b.workloads[0].inbound.as_mut().expect("an inbound mode");
        inbound.allow.push(partner_id("client"));
    });
    let own = pair.world.ca();
    let dial = |leaf: &Leaf| {
        let dial = Dial {
            netns: &pair.world.a.netns,
            to: pair.server_addresses.at(Family::V4, PORT),
            leaf: Some(leaf),
            alpn: &[],
            send: "hello",
            end: End::CloseNotify,
        };
        dial.run()
    };
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    for honest in [own.issue(&spiffe_id("client")), partner.issue(&partner_id("client"))] {
        assert_eq!(dial(&honest).received, "hello");
    }
    for forged in [partner.issue(&spiffe_id("client")), own.issue(&partner_id("client"))] {
        let answer = dial(&forged);
        assert!(answer.error.is_some() && answer.received.is_empty(), "{answer:?}");
    }
    let reasons = wait_for("both refusals", GENEROUS, || {
        let denied = pair.agent_b.access().into_iter().filter(|line| line.outcome == "denied");
        let reasons: Vec<_> = denied.map(|line| line.reason).collect();
        (reasons.len() >= 2).then_some(reasons)
    });
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(reasons.iter().all(|reason| reason.contains("does not chain")), "{reasons:?}");
}

/// An ID of a domain of which nothing can ever be believed is a mistake, not a rule.
#[test]
fn ids_of_domains_without_a_bundle_are_refused_in_the_configuration() {
    let (mut pair, _) = federated(|_, _| {});
    let output = pair.agent_a.reload(|a| {
        let mut other = Workload::new("other", &format!("{}/other", a.capture.cgroup));
        other = other.inbound("strict", Some(&[9000]), &[]);
        other.inbound.as_mut().expect("an inbound mode").allow =
            vec!["spiffe://unknown.example/x".to_owned()];
        a.workloads.push(other);
    });
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("unknown.example") && said.contains("trustDomains"), "{said}");
}
