//! The rules of the standards, one certificate for each (X509-SVID, 3 to 5; RFC 5280, 4 to 6).

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber,
};
use rustls_pki_types::UnixTime;

use super::testing::{Ca, Leaf, authenticate, authenticator, crl, dns, svid, uri};
use super::*;
use crate::flow::Role;

const WEB: &str = "spiffe://example.org/web";
const HOUR: Duration = Duration::from_secs(3600);

/// What a leaf proves as a client and as a server.
fn verdicts(authenticator: &Authenticator, leaf: &Leaf) -> [Result<String, String>; 2] {
    [Role::Client, Role::Server]
        .map(|role| authenticate(authenticator, leaf, role, UnixTime::now()))
}

#[track_caller]
fn assert_refused(authenticator: &Authenticator, leaf: &Leaf, what: &str, reason: &str) {
    for verdict in verdicts(authenticator, leaf) {
        let refusal = verdict.expect_err(what);
        assert!(refusal.contains(reason), "{what}: {refusal}");
    }
}

#[track_caller]
fn assert_believed(authenticator: &Authenticator, leaf: &Leaf, who: &str) {
    for verdict in verdicts(authenticator, leaf) {
        assert_eq!(verdict.unwrap(), who);
    }
}

#[test]
fn an_svid_that_keeps_all_rules_is_believed() {
    let ca = Ca::new("example.org");
    let authenticator = authenticator(ca.trust());
    assert_believed(&authenticator, &ca.issue(svid(WEB, |_| {})), WEB);
    let without_usage = svid(WEB, |params| params.extended_key_usages.clear());
    assert_believed(&authenticator, &ca.issue(without_usage), WEB);
    let with_dns = svid(WEB, |params| params.subject_alt_names.push(dns("web.example.org")));
    assert_believed(&authenticator, &ca.issue(with_dns), WEB);
}

type Change = fn(&mut CertificateParams);

#[test]
fn each_rule_of_the_standard_has_a_certificate_that_breaks_it() {
    let ca = Ca::new("example.org");
    let authenticator = authenticator(ca.trust());
    let names = |params: &mut CertificateParams, names: &[&str]| {
        params.subject_alt_names = names.iter().map(|name| uri(name)).collect();
    };
    let rules: [(&str, Change, &str); 13] = [
        ("no name at all", |p| p.subject_alt_names.clear(), "no URI name"),
        ("a DNS name alone", |p| p.subject_alt_names = vec![dns("web")], "no URI name"),
        (
            "two URI names",
            |p| p.subject_alt_names.push(uri("spiffe://example.org/other")),
            "more than one URI name",
        ),
        (
            "the same URI name twice",
            |p| p.subject_alt_names.push(uri(WEB)),
            "more than one URI name",
        ),
        ("a CA", |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), "is a CA's"),
        ("keyCertSign", |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign), "may sign"),
        ("cRLSign", |p| p.key_usages.push(KeyUsagePurpose::CrlSign), "may sign"),
        ("no key usage", |p| p.key_usages.clear(), "lacks the key usage digitalSignature"),
        (
            "another key usage",
            |p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement],
            "lacks the key usage digitalSignature",
        ),
        (
            "another extended key usage",
            |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning],
            "extended key usage",
        ),
        ("expired", |p| p.not_after = (SystemTime::now() - HOUR).into(), "has expired"),
        (
            "not yet valid",
            |p| p.not_before = (SystemTime::now() + HOUR).into(),
            "is not valid before",
        ),
        (
            "an unknown critical extension",
            |p| {
                let mut extension =
                    CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
                extension.set_criticality(true);
                p.custom_extensions.push(extension);
            },
            "critical extension",
        ),
    ];
    for (what, change, reason) in rules {
        assert_refused(&authenticator, &ca.issue(svid(WEB, change)), what, reason);
    }
    let ids: [(&str, &str); 16] = [
        ("https://example.org/web", "does not begin with `spiffe://`"),
        ("SPIFFE://example.org/web", "does not begin with `spiffe://`"),
        ("spiffe://other.org/web", "there is no bundle for the trust domain of"),
        ("spiffe://example.org.other.org/web", "there is no bundle for the trust domain of"),
        ("spiffe://EXAMPLE.org/web", "trust domain with characters other than"),
        ("spiffe://example.org:443/web", "trust domain with characters other than"),
        ("spiffe://x@example.org/web", "trust domain with characters other than"),
        ("spiffe://example.org", "no path"),
        ("spiffe://example.org/", "trailing slash"),
        ("spiffe://example.org/web/", "trailing slash"),
        ("spiffe://example.org//web", "empty segment"),
        ("spiffe://example.org/x/../web", "`.` or `..`"),
        ("spiffe://example.org/%77eb", "path with characters other than"),
        ("spiffe://example.org/web?x", "path with characters other than"),
        ("spiffe://example.org/web\0", "path with characters other than"),
        ("spiffe://example.org/web\0.other.org", "path with characters other than"),
    ];
    for (id, reason) in ids {
        let leaf = ca.issue(svid(WEB, |params| names(params, &[id])));
        assert_refused(&authenticator, &leaf, id, reason);
    }
}

#[test]
fn a_certificate_for_one_purpose_does_not_serve_the_other() {
    let ca = Ca::new("example.org");
    let authenticator = authenticator(ca.trust());
    let client = |p: &mut CertificateParams| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    let [as_client, as_server] = verdicts(&authenticator, &ca.issue(svid(WEB, client)));
    assert!(as_client.is_ok() && as_server.is_err());
}

#[test]
fn another_authority_of_the_same_name_and_domain_proves_nothing() {
    let ca = Ca::new("example.org");
    let authenticator = authenticator(ca.trust());
    let impostor = Ca::new("example.org");
    let leaf = impostor.issue(svid(WEB, |_| {}));
    assert_refused(&authenticator, &leaf, "impostor", "does not chain to the bundle");
    // Nor does it help to send the impostor's root along.
    let mut with_root = impostor.issue(svid(WEB, |_| {}));
    with_root.chain.push(impostor.certificate.clone());
    assert_refused(
        &authenticator,
        &with_root,
        "impostor with root",
        "does not chain to the bundle",
    );
    let own = svid(WEB, |_| {});
    let key = KeyPair::generate().unwrap();
    let chain = vec![own.self_signed(&key).unwrap().der().clone()];
    assert_refused(
        &authenticator,
        &Leaf { chain, key },
        "self-signed",
        "does not chain to the bundle",
    );
}

#[test]
fn intermediates_are_followed_as_far_as_they_may_go() {
    let ca = Ca::new("example.org");
    let authenticator = authenticator(ca.trust());
    let chain_of = |cas: &[&Ca]| {
        let mut leaf = cas[0].issue(svid(WEB, |_| {}));
        leaf.chain.extend(cas.iter().map(|ca| ca.certificate.clone()));
        leaf
    };
    let first = ca.intermediate("first", BasicConstraints::Unconstrained);
    let second = first.intermediate("second", BasicConstraints::Unconstrained);
    assert_believed(&authenticator, &chain_of(&[&first]), WEB);
    assert_believed(&authenticator, &chain_of(&[&second, &first]), WEB);
    let missing = first.issue(svid(WEB, |_| {}));
    assert_refused(
        &authenticator,
        &missing,
        "missing intermediate",
        "an authority that is not known here",
    );
    let last = ca.intermediate("last", BasicConstraints::Constrained(0));
    assert_believed(&authenticator, &chain_of(&[&last]), WEB);
    let beyond = last.intermediate("beyond", BasicConstraints::Unconstrained);
    assert_refused(
        &authenticator,
        &chain_of(&[&beyond, &last]),
        "path length",
        "pathLenConstraint",
    );
    // Looking for a way through junk takes time.
    let mut padded = chain_of(&[&first]);
    padded.chain.extend((0..9).map(|_| first.certificate.clone()));
    assert_refused(&authenticator, &padded, "padding", "at most 8 are accepted");
    // A leaf cannot make itself an authority.
    let leaf = ca.issue(svid("spiffe://example.org/db", |_| {}));
    let below = rcgen::Issuer::from_ca_cert_der(&leaf.chain[0], &leaf.key).unwrap();
    let key = KeyPair::generate().unwrap();
    let forged = svid(WEB, |_| {}).signed_by(&key, &below).unwrap();
    let chain = vec![forged.der().clone(), leaf.chain[0].clone()];
    assert_refused(
        &authenticator,
        &Leaf { chain, key },
        "issued by a leaf",
        "by one that is no authority",
    );
}

#[test]
fn one_key_under_two_roots_counts_for_the_root_it_is_shown_with() {
    let key = KeyPair::generate().unwrap();
    let same = KeyPair::from_pem(&key.serialize_pem()).unwrap();
    let own = Ca::with_key("example.org", "one", key);
    let other = Ca::with_key("other.org", "two", same);
    let authenticator = authenticator(own.trust());
    assert_believed(&authenticator, &own.issue(svid(WEB, |_| {})), WEB);
    let foreign = other.issue(svid("spiffe://other.org/web", |_| {}));
    assert_refused(&authenticator, &foreign, "other domain", "no bundle for");
    let disguised = other.issue(svid(WEB, |_| {}));
    assert_refused(
        &authenticator,
        &disguised,
        "other issuer",
        "an authority that is not known here",
    );
}

#[test]
fn each_trust_domain_is_judged_by_its_own_bundle_alone() {
    let (own, partner) = (Ca::new("example.org"), Ca::new("partner.org"));
    let trust = Trust::of_bundles([own.bundle(), partner.bundle()]);
    let friend = "spiffe://partner.org/web";
    let authenticator = authenticator(trust);
    assert_believed(&authenticator, &own.issue(svid(WEB, |_| {})), WEB);
    assert_believed(&authenticator, &partner.issue(svid(friend, |_| {})), friend);
    let forged = partner.issue(svid(WEB, |_| {}));
    assert_refused(&authenticator, &forged, "partner's CA for our domain", "does not chain");
    let forged = own.issue(svid(friend, |_| {}));
    assert_refused(&authenticator, &forged, "our CA for the partner's domain", "does not chain");
}

fn with_crls(
    ca: &Ca,
    lists: &[rustls_pki_types::CertificateRevocationListDer<'_>],
    unknown: OnDoubt,
    expired: OnDoubt,
) -> Authenticator {
    let revocation = std::sync::Arc::new(Revocation::new(lists, unknown, expired).unwrap());
    let domain = DomainTrust { bundle: ca.bundle(), revocation: Some(revocation) };
    let trust = Trust::new([(ca.domain.parse().unwrap(), domain)].into());
    authenticator(trust)
}

#[test]
fn revoked_certificates_are_refused_and_others_are_not() {
    let ca = Ca::new("example.org");
    let numbered =
        |serial: u64| ca.issue(svid(WEB, |p| p.serial_number = Some(SerialNumber::from(serial))));
    let later = SystemTime::now() + HOUR;
    let authenticator = with_crls(&ca, &[crl(&ca, &[7], later)], OnDoubt::Deny, OnDoubt::Deny);
    assert_refused(&authenticator, &numbered(7), "revoked", "is revoked");
    assert_believed(&authenticator, &numbered(8), WEB);
}

#[test]
fn a_revoked_intermediate_takes_its_leaves_along() {
    let ca = Ca::new("example.org");
    let intermediate = ca.intermediate("intermediate", BasicConstraints::Unconstrained);
    let facts = crate::x509::CertificateFacts::of(&intermediate.certificate).unwrap();
    let serial: Vec<u8> = (0..facts.serial.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&facts.serial[at..at + 2], 16).unwrap())
        .collect();
    let mut list = CertificateRevocationListParams {
        this_update: (SystemTime::now() - HOUR).into(),
        next_update: (SystemTime::now() + HOUR).into(),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.revoked_certs.push(RevokedCertParams {
        serial_number: SerialNumber::from_slice(&serial),
        revocation_time: SystemTime::now().into(),
        reason_code: None,
        invalidity_date: None,
    });
    let list = list.signed_by(&ca.issuer).unwrap().der().clone();
    let mut leaf = intermediate.issue(svid(WEB, |_| {}));
    leaf.chain.push(intermediate.certificate.clone());
    let authenticator = with_crls(&ca, &[list], OnDoubt::Allow, OnDoubt::Deny);
    assert_refused(&authenticator, &leaf, "revoked intermediate", "is revoked");
}

#[test]
fn what_the_crls_do_not_say_is_decided_by_the_policy_for_it() {
    let ca = Ca::new("example.org");
    let other = Ca::new("other.org");
    let leaf = ca.issue(svid(WEB, |_| {}));
    let later = SystemTime::now() + HOUR;
    let elsewhere = [crl(&other, &[], later)];
    let authenticator = with_crls(&ca, &elsewhere, OnDoubt::Deny, OnDoubt::Deny);
    assert_refused(&authenticator, &leaf, "unknown", "no CRL here tells");
    let authenticator = with_crls(&ca, &elsewhere, OnDoubt::Allow, OnDoubt::Deny);
    assert_believed(&authenticator, &leaf, WEB);
    let stale = [crl(&ca, &[], SystemTime::now() - HOUR)];
    let authenticator = with_crls(&ca, &stale, OnDoubt::Deny, OnDoubt::Deny);
    assert_refused(&authenticator, &leaf, "expired CRL", "a CRL is overdue");
    let authenticator = with_crls(&ca, &stale, OnDoubt::Deny, OnDoubt::Allow);
    assert_believed(&authenticator, &leaf, WEB);
    let authenticator = with_crls(&ca, &[], OnDoubt::Deny, OnDoubt::Deny);
    assert_refused(&authenticator, &leaf, "no CRL at all", "no usable CRL");
}

#[test]
fn a_crl_that_somebody_else_signed_counts_for_nothing() {
    let ca = Ca::new("example.org");
    // The same name, another key.
    let impostor = Ca::new("example.org");
    let leaf = ca.issue(svid(WEB, |_| {}));
    let forged = [crl(&impostor, &[], SystemTime::now() + HOUR)];
    let authenticator = with_crls(&ca, &forged, OnDoubt::Allow, OnDoubt::Deny);
    assert_refused(&authenticator, &leaf, "forged CRL", "does not chain");
}
