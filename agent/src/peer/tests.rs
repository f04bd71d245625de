//! Who is let through: what must be proved, and who it must be.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SerialNumber};
use rustls_pki_types::UnixTime;

use super::testing::{ids, ids_or_pins, judge};
use super::*;
use crate::flow::Role;
use crate::origin::Origin;
use crate::spiffe::{IdPattern, SpiffeId};
use crate::trust::testing::{Ca, Leaf, dns, svid, uri};
use crate::trust::{AuthenticationError, Authorities, Pin, Trust};
use crate::x509::Fingerprint;

const WEB: &str = "spiffe://example.org/web";
const HOUR: Duration = Duration::from_secs(3600);

fn rule(number: usize) -> Origin {
    Origin::indexed(&Path::new("test.yaml").into(), "peers", number)
}

/// What is said of a leaf, the same as a client and as a server.
fn judged(judge: &Judge, leaf: &Leaf) -> Result<Judged, Refusal> {
    let [client, server] =
        [Role::Client, Role::Server].map(|role| judge.judge(leaf.peer(), role, UnixTime::now()));
    assert_eq!(client.as_ref().ok(), server.as_ref().ok());
    client
}

#[track_caller]
fn refusal(judge: &Judge, leaf: &Leaf) -> Refusal {
    judged(judge, leaf).unwrap_err()
}

#[track_caller]
fn assert_refused(judge: &Judge, leaf: &Leaf, what: &str, reason: &str) {
    let refusal = judged(judge, leaf).expect_err(what).to_string();
    assert!(refusal.contains(reason), "{what}: {refusal}");
}

#[track_caller]
fn assert_allowed(judge: &Judge, leaf: &Leaf, who: &str) {
    assert_eq!(judged(judge, leaf).unwrap().peer.to_string(), who);
}

#[test]
fn somebody_else_is_refused_though_proved() {
    let (own, partner) = (Ca::new("example.org"), Ca::new("partner.org"));
    let trust = Trust::of_bundles([own.bundle(), partner.bundle()]);
    let judge = judge(trust, ids(&[WEB, "spiffe://partner.org/web"]));
    for (ca, id) in [
        (&own, "spiffe://example.org/db"),
        // Byte for byte.
        (&own, "spiffe://example.org/Web"),
        (&partner, "spiffe://partner.org/other"),
    ] {
        let leaf = ca.issue(svid(id, |_| {}));
        assert_refused(
            &judge,
            &leaf,
            id,
            &format!("proved to be {id}, which is not expected here"),
        );
        let refusal = refusal(&judge, &leaf);
        assert!(matches!(refusal.causes[..], [Cause::Authorization(Denial::NotNamed { .. })]));
        assert_eq!(refusal.peer().unwrap().to_string(), id);
    }
    assert_allowed(&judge, &own.issue(svid(WEB, |_| {})), WEB);
}

/// Both steps, and which of them has refused.
#[test]
fn who_proves_nothing_is_not_asked_whether_it_may() {
    let ca = Ca::new("example.org");
    let judge = judge(ca.trust(), ids(&[WEB]));
    let impostor = Ca::new("example.org").issue(svid(WEB, |_| {}));
    let refusal = refusal(&judge, &impostor);
    assert!(matches!(
        refusal.causes[..],
        [Cause::Authentication(AuthenticationError::Chain { .. })]
    ));
    assert_eq!(refusal.peer().unwrap().to_string(), WEB);
}

#[test]
fn nobody_is_let_through_where_nobody_is_expected() {
    let ca = Ca::new("example.org");
    let leaf = ca.issue(svid(WEB, |_| {}));
    let unnamed = judge(ca.trust(), Expectation::default());
    assert_refused(&unnamed, &leaf, "nobody expected", "no peer identity is configured here");
    for (why, reason) in
        [(Nobody::Unreadable, "could be read"), (Nobody::Ambiguous, "two external peers")]
    {
        let judge = judge(ca.trust(), Expectation::nobody(rule(0), why));
        assert_refused(&judge, &leaf, "nobody expected", reason);
        assert_eq!(refusal(&judge, &leaf).rule, Some(rule(0)));
    }
}

#[test]
fn a_judgement_names_the_rule_that_lists_the_peer() {
    let ca = Ca::new("example.org");
    let listed = |number: usize, name: &str| Listed {
        value: exactly(&format!("spiffe://example.org/{name}")),
        rule: rule(number),
    };
    let pinned = self_signed(|_| {});
    let pin = Pin::Certificate(Fingerprint::of(&pinned.chain[0]));
    let expected = Expectation::any_of(
        rule(1),
        vec![listed(1, "web"), listed(3, "db")],
        vec![Listed { value: pin, rule: rule(4) }],
        Nobody::Unnamed,
    );
    let other = ids(&["spiffe://example.org/other"]);
    let judge = judge(ca.trust(), expected.or(&other));
    let named = |name: &str| ca.issue(svid(&format!("spiffe://example.org/{name}"), |_| {}));
    for (leaf, by) in [
        (named("web"), rule(1)),
        (named("db"), rule(3)),
        (pinned, rule(4)),
        (named("other"), Origin::BuiltIn),
    ] {
        assert_eq!(judged(&judge, &leaf).unwrap().rule, by);
    }
    // What applied is the last word of those that were put together, and each says what it lacks.
    let refusal = refusal(&judge, &named("stranger"));
    assert_eq!(refusal.rule, Some(Origin::BuiltIn));
    let said = refusal.to_string();
    assert!(said.contains("peers[1] does not name it") && said.contains("by peers[4]"), "{said}");
}

/// As `openssl req -x509` makes them: self-signed, CA:TRUE, no URI.
fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> Leaf {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    Leaf { chain: vec![params.self_signed(&key).unwrap().der().clone()], key }
}

#[test]
fn a_pinned_certificate_is_believed_for_what_it_is() {
    let [pinned, other] = [(); 2].map(|()| self_signed(|_| {}));
    let fingerprint = Fingerprint::of(&pinned.chain[0]);
    let facts = crate::x509::CertificateFacts::of(&pinned.chain[0]).unwrap();
    for pin in [Pin::Certificate(fingerprint), Pin::Spki(facts.spki)] {
        let judge = judge(Trust::default(), ids_or_pins(&[], &[pin]));
        assert_allowed(&judge, &pinned, &format!("pin:sha256:{fingerprint}"));
        assert_refused(&judge, &other, "another certificate", "is not pinned here");
        // What vouches for it is not looked at, but it must be the leaf.
        let chain = vec![other.chain[0].clone(), pinned.chain[0].clone()];
        let behind = Leaf { chain, key: KeyPair::generate().unwrap() };
        assert_refused(&judge, &behind, "pinned, but behind the leaf", "is not pinned here");
    }
}

#[test]
fn a_new_certificate_of_a_pinned_key_is_believed_and_an_expired_one_is_not() {
    let key = KeyPair::generate().unwrap();
    let certificate = |change: fn(&mut CertificateParams)| {
        let mut params = CertificateParams::default();
        change(&mut params);
        params.self_signed(&key).unwrap().der().clone()
    };
    let first = certificate(|_| {});
    let spki = crate::x509::CertificateFacts::of(&first).unwrap().spki;
    let judge = judge(Trust::default(), ids_or_pins(&[], &[Pin::Spki(spki)]));
    let leaf = |der| Leaf { chain: vec![der], key: KeyPair::generate().unwrap() };
    let renewed = certificate(|p| p.serial_number = Some(SerialNumber::from(7)));
    assert_ne!(first, renewed);
    let name = format!("pin:sha256:{}", Fingerprint::of(&renewed));
    assert_allowed(&judge, &leaf(renewed), &name);
    let expired = certificate(|p| p.not_after = (SystemTime::now() - HOUR).into());
    assert_refused(&judge, &leaf(expired), "expired", "not valid now");
}

#[test]
fn several_pins_allow_rotation_and_ids_may_stand_beside_them() {
    let ca = Ca::new("example.org");
    let [old, new] = [(); 2].map(|()| self_signed(|_| {}));
    let pins = [&old, &new].map(|leaf| Pin::Certificate(Fingerprint::of(&leaf.chain[0])));
    let judge = judge(ca.trust(), ids_or_pins(&[WEB], &pins));
    for leaf in [&old, &new, &ca.issue(svid(WEB, |_| {}))] {
        assert!(judged(&judge, leaf).is_ok());
    }
}

fn named_by(ca: &Ca, names: Names, pins: Vec<Pin>) -> Expectation {
    let authorities = Authorities { anchors: ca.bundle().anchors().clone(), revocation: None };
    Expectation::one(rule(0), Requirement::Names { authorities, names, pins })
}

#[test]
fn names_of_external_peers_are_compared_exactly() {
    let ca = Ca::new("example.org");
    let names =
        Names { uris: vec!["https://billing/x".into()], dns: vec!["billing.example.com".into()] };
    let judge = judge(Trust::default(), named_by(&ca, names, Vec::new()));
    let named = |names: Vec<rcgen::SanType>| ca.issue(svid(WEB, |p| p.subject_alt_names = names));
    assert_allowed(&judge, &named(vec![uri("https://billing/x")]), "uri:https://billing/x");
    let leaf = named(vec![dns("other"), dns("billing.example.com")]);
    assert_allowed(&judge, &leaf, "dns:billing.example.com");
    let leaf = named(vec![dns("*.example.com")]);
    assert_allowed(&judge, &leaf, "dns:billing.example.com");
    for wrong in [
        uri("https://billing/X"),
        uri("https://billing/x/"),
        dns("xbilling.example.com"),
        dns("example.com"),
        dns("*.billing.example.com"),
        uri("billing.example.com"),
    ] {
        let what = format!("{wrong:?}");
        assert_refused(&judge, &named(vec![wrong]), &what, "none of the names");
    }
    let stranger = Ca::new("example.org").issue(svid(WEB, |p| {
        p.subject_alt_names = vec![dns("billing.example.com")];
    }));
    assert_refused(&judge, &stranger, "another CA", "does not chain to an authority");
}

#[test]
fn pins_beside_a_chain_are_required_in_addition() {
    let ca = Ca::new("example.org");
    let names = || Names { uris: Vec::new(), dns: vec!["web".into()] };
    let params = || svid(WEB, |p| p.subject_alt_names = vec![dns("web")]);
    let [pinned, other] = [ca.issue(params()), ca.issue(params())];
    let pin = Pin::Certificate(Fingerprint::of(&pinned.chain[0]));
    let judge = judge(Trust::default(), named_by(&ca, names(), vec![pin]));
    assert_allowed(&judge, &pinned, "dns:web");
    assert_refused(&judge, &other, "valid but not pinned", "not pinned");
}

#[test]
fn pins_beside_spiffe_ids_of_an_external_peer_are_required_in_addition() {
    let ca = Ca::new("example.org");
    let [pinned, other] = [(); 2].map(|()| ca.issue(svid(WEB, |_| {})));
    let pins = vec![Pin::Certificate(Fingerprint::of(&pinned.chain[0]))];
    let ids = Listed::all([exactly(WEB)], &rule(0));
    let judge = judge(ca.trust(), Expectation::one(rule(0), Requirement::Svid { ids, pins }));
    assert_allowed(&judge, &pinned, WEB);
    assert_refused(&judge, &other, "expected but not pinned", "not pinned");
    // The pin alone does not do.
    let judge = judge_of_stranger(&judge);
    assert_refused(&judge, &pinned, "pinned but not expected", "not expected here");
}

/// The same, but for somebody else's SPIFFE ID.
fn judge_of_stranger(judge: &Judge) -> Judge {
    let [alternative] = judge.expectation.alternatives() else { panic!("one alternative") };
    let Requirement::Svid { pins, .. } = &alternative.requirement else { panic!("SPIFFE IDs") };
    let ids = Listed::all([exactly("spiffe://example.org/db")], &rule(0));
    let requirement = Requirement::Svid { ids, pins: pins.clone() };
    Judge { expectation: Expectation::one(rule(0), requirement), ..judge.clone() }
}

/// Whoever was let through once is asked again whether it may: what is remembered is who it is.
#[test]
fn whether_somebody_may_is_not_remembered() {
    let ca = Ca::new("example.org");
    let leaf = ca.issue(svid(WEB, |params| params.subject_alt_names.push(dns("web.example.org"))));
    let trust = ca.trust();
    assert_allowed(&judge(trust.clone(), ids(&[WEB])), &leaf, WEB);
    let names = |name: &str| Names { uris: Vec::new(), dns: vec![name.into()] };
    let pin = |certificate: &[u8]| vec![Pin::Certificate(Fingerprint::of(certificate))];
    for (expected, reason) in [
        (ids(&["spiffe://example.org/db"]), "not expected here"),
        (named_by(&ca, names("db.example.org"), Vec::new()), "none of the names"),
        (named_by(&ca, names("web.example.org"), pin(&ca.certificate)), "is not pinned"),
        (Expectation::default(), "no peer identity is configured"),
    ] {
        assert_refused(&judge(trust.clone(), expected), &leaf, reason, reason);
    }
    let pinned = named_by(&ca, names("web.example.org"), pin(&leaf.chain[0]));
    assert_allowed(&judge(trust, pinned), &leaf, "dns:web.example.org");
}

#[test]
fn any_identity_of_a_domain_is_expected_and_none_of_another() {
    let (ca, other) = (Ca::new("example.org"), Ca::new("example.com"));
    let ids = Listed::all([IdPattern::AnyOf("example.org".parse().unwrap())], &rule(0));
    let requirement = Requirement::Svid { ids, pins: Vec::new() };
    let trust = Trust::of_bundles([ca.bundle(), other.bundle()]);
    let judge = judge(trust, Expectation::one(rule(0), requirement));
    for id in [WEB, "spiffe://example.org/db"] {
        assert_allowed(&judge, &ca.issue(svid(id, |_| {})), id);
    }
    let foreign = other.issue(svid("spiffe://example.com/web", |_| {}));
    assert_refused(&judge, &foreign, "of a trusted domain, not expected", "not expected here");
}

fn exactly(id: &str) -> IdPattern {
    id.parse::<SpiffeId>().unwrap().into()
}
