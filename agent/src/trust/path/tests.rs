//! What authorities may do, and whom those with name constraints vouch for.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber, SigningKey,
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::asn1_rs::{Any, FromDer};

use super::*;
use crate::trust::testing::{
    Ca, Leaf, authenticate, authenticator, authority, crl, dns, svid, uri,
};
use crate::trust::{Authenticator, DomainTrust, OnDoubt, Trust, TrustBundle};

const WEB: &str = "spiffe://example.org/web";
const HOUR: Duration = Duration::from_secs(3600);

fn verdict(authenticator: &Authenticator, leaf: &Leaf) -> Result<String, String> {
    let [client, server] = [Role::Client, Role::Server]
        .map(|role| authenticate(authenticator, leaf, role, UnixTime::now()));
    assert_eq!(client.is_ok(), server.is_ok(), "{client:?} {server:?}");
    client
}

/// The same, where the root itself may be unusable.
fn verdict_of(root: &Ca, leaf: &Leaf) -> Result<String, String> {
    let domain = root.domain.parse().unwrap();
    let bundle = TrustBundle::new(domain, vec![root.certificate.clone()]);
    let bundle = bundle.map_err(|error| error.to_string())?;
    verdict(&authenticator(Trust::of_bundles([bundle.into()])), leaf)
}

#[track_caller]
fn assert_believed(root: &Ca, leaf: &Leaf) {
    assert_eq!(verdict(&authenticator(root.trust()), leaf).as_deref(), Ok(WEB));
}

#[track_caller]
fn assert_refused(root: &Ca, leaf: &Leaf, reason: &str) {
    let refusal = verdict(&authenticator(root.trust()), leaf).unwrap_err();
    assert!(refusal.contains(reason), "{reason}: {refusal}");
}

/// A leaf below these authorities, the nearest first, the root not among them.
fn below(authorities: &[&Ca], change: impl FnOnce(&mut CertificateParams)) -> Leaf {
    let mut leaf = authorities[0].issue(svid(WEB, change));
    leaf.chain.extend(authorities.iter().map(|ca| ca.certificate.clone()));
    leaf
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn root(change: impl FnOnce(&mut CertificateParams)) -> Ca {
    let mut params = authority("root", BasicConstraints::Unconstrained);
    change(&mut params);
    Ca::with_params("example.org", &params, key())
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut der = vec![tag];
    match length {
        0..128 => der.push(length as u8),
        _ => der.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    der.extend(content);
    der
}

/// A kind of name by its number, and its content.
type Subtree<'s> = (u8, &'s [u8]);

fn constraints(permitted: &[Subtree<'_>], excluded: &[Subtree<'_>]) -> CustomExtension {
    let subtrees = |tag: u8, trees: &[Subtree<'_>]| {
        let trees: Vec<u8> =
            trees.iter().flat_map(|(kind, base)| tlv(0x30, &tlv(*kind, base))).collect();
        if trees.is_empty() { Vec::new() } else { tlv(tag, &trees) }
    };
    let content = [subtrees(0xa0, permitted), subtrees(0xa1, excluded)].concat();
    raw_constraints(tlv(0x30, &content))
}

fn raw_constraints(content: Vec<u8>) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], content);
    extension.set_criticality(true);
    extension
}

const MAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const DIRECTORY: u8 = 0xa4;
const URI: u8 = 0x86;
const IP: u8 = 0x87;

/// O=..., in a string of this type.
fn organisation(tag: u8, name: &[u8]) -> Vec<u8> {
    let attribute = [tlv(6, &[0x55, 4, 10]), tlv(tag, name)].concat();
    tlv(0x30, &tlv(0x31, &tlv(0x30, &attribute)))
}

/// What comes of a leaf below an authority with these constraints: the root itself; an intermediate one; a root with
/// another authority, or two, in between.
fn verdicts(
    extension: &CustomExtension,
    change: impl Fn(&mut CertificateParams),
) -> [Result<String, String>; 4] {
    let limit = |params: &mut CertificateParams| {
        params.custom_extensions.push(extension.clone());
        params.distinguished_name.push(DnType::OrganizationName, "Acme");
    };
    let named = |name: &str| {
        let mut params = authority(name, BasicConstraints::Unconstrained);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Acme");
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let mut limited = named("limited");
    limit(&mut limited);
    let limited_root = Ca::with_params("example.org", &limited, key());
    let plain_root = root(|_| {});
    let limited_one = plain_root.subordinate(limited);
    let between = limited_root.subordinate(named("between"));
    let lower = limited_one.subordinate(named("lower"));
    [
        (&limited_root, limited_root.issue(svid(WEB, &change))),
        (&plain_root, below(&[&limited_one], &change)),
        (&limited_root, below(&[&between], &change)),
        (&plain_root, below(&[&lower, &limited_one], &change)),
    ]
    .map(|(root, leaf)| verdict_of(root, &leaf))
}

#[track_caller]
fn assert_all_believed(extension: &CustomExtension, change: impl Fn(&mut CertificateParams)) {
    for verdict in verdicts(extension, change) {
        assert_eq!(verdict.as_deref(), Ok(WEB));
    }
}

#[track_caller]
fn assert_all_refused(
    extension: &CustomExtension,
    reason: &str,
    change: impl Fn(&mut CertificateParams),
) {
    for (place, verdict) in verdicts(extension, change).into_iter().enumerate() {
        let refusal = verdict.unwrap_err();
        assert!(refusal.contains(reason), "{place}, {reason}: {refusal}");
    }
}

#[test]
fn an_authority_without_the_usage_to_sign_vouches_for_nobody() {
    let unfit = |usages: Vec<KeyUsagePurpose>| {
        let mut params = authority("unfit", BasicConstraints::Unconstrained);
        params.key_usages = usages;
        params
    };
    let digital = || vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    let sound = root(|_| {});
    let intermediate = sound.subordinate(unfit(digital()));
    assert_refused(&sound, &below(&[&intermediate], |_| {}), "keyCertSign");
    // Anywhere on the way, and at its end.
    let lower = intermediate.intermediate("lower", BasicConstraints::Unconstrained);
    assert_refused(&sound, &below(&[&lower, &intermediate], |_| {}), "keyCertSign");
    let root = root(|params| params.key_usages = digital());
    assert_refused(&root, &root.issue(svid(WEB, |_| {})), "keyCertSign");
    let last = root.intermediate("last", BasicConstraints::Unconstrained);
    assert_refused(&root, &below(&[&last], |_| {}), "keyCertSign");
    // Without the extension everything is allowed (RFC 5280, 6.1.4, n).
    let silent = sound.subordinate(unfit(Vec::new()));
    assert_believed(&sound, &below(&[&silent], |_| {}));
    let only = sound.subordinate(unfit(vec![KeyUsagePurpose::KeyCertSign]));
    assert_believed(&sound, &below(&[&only], |_| {}));
}

#[test]
fn another_way_to_an_authority_is_taken_where_the_first_breaks_a_rule() {
    let sound = root(|_| {});
    let pair = key();
    let same = || KeyPair::from_pem(&pair.serialize_pem()).unwrap();
    let certificate = |usages: Vec<KeyUsagePurpose>, serial: u64| {
        let mut params = authority("twice", BasicConstraints::Unconstrained);
        params.key_usages = usages;
        params.serial_number = Some(SerialNumber::from(serial));
        params.signed_by(&pair, &sound.issuer).unwrap().der().clone()
    };
    let unfit = certificate(vec![KeyUsagePurpose::CrlSign], 1);
    let fit = certificate(vec![KeyUsagePurpose::KeyCertSign], 2);
    let issuer = rcgen::Issuer::from_ca_cert_der(&fit, same()).unwrap();
    let issued = svid(WEB, |_| {}).signed_by(&key(), &issuer).unwrap().der().clone();
    for between in [[unfit.clone(), fit.clone()], [fit, unfit.clone()]] {
        let chain = std::iter::once(issued.clone()).chain(between).collect();
        assert_believed(&sound, &Leaf { chain, key: key() });
    }
    assert_refused(&sound, &Leaf { chain: vec![issued, unfit], key: key() }, "keyCertSign");
}

#[test]
fn a_root_is_held_to_its_own_basic_constraints() {
    let shallow = root(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    assert_believed(&shallow, &shallow.issue(svid(WEB, |_| {})));
    let between = shallow.intermediate("between", BasicConstraints::Unconstrained);
    assert_refused(&shallow, &below(&[&between], |_| {}), "more authorities below");
    let none = root(|params| params.is_ca = IsCa::ExplicitNoCa);
    assert_refused(&none, &none.issue(svid(WEB, |_| {})), "no CA by its basic constraints");
}

/// A server with a certificate of its own signature, believed because of it: nothing is signed with its key but that.
#[test]
fn a_certificate_that_is_its_own_authority_needs_no_right_to_sign() {
    let mut params = svid(WEB, |params| params.is_ca = IsCa::ExplicitNoCa);
    params.distinguished_name.push(DnType::CommonName, "alone");
    let pair = key();
    let chain = vec![params.self_signed(&pair).unwrap().der().clone()];
    let domain = "example.org".parse().unwrap();
    let bundle = TrustBundle::new(domain, chain.clone()).unwrap();
    let authenticator = authenticator(Trust::of_bundles([bundle.into()]));
    let alone = Leaf { chain: chain.clone(), key: pair };
    assert_eq!(verdict(&authenticator, &alone).as_deref(), Ok(WEB));
    let issuer = rcgen::Issuer::from_ca_cert_der(&chain[0], &alone.key).unwrap();
    let forged = svid(WEB, |_| {}).signed_by(&key(), &issuer).unwrap().der().clone();
    assert!(verdict(&authenticator, &Leaf { chain: vec![forged], key: key() }).is_err());
}

/// The certificate in the first version: without extensions (RFC 5280, 4.1.2.1).
fn first_version(certificate: &CertificateDer<'_>, signer: &KeyPair) -> CertificateDer<'static> {
    let (_, whole) = Any::from_der(certificate).unwrap();
    let (rest, signed) = Any::from_der(whole.data).unwrap();
    let (_, algorithm) = Any::from_der(rest).unwrap();
    let (mut rest, mut fields) = (signed.data, Vec::new());
    while !rest.is_empty() {
        let (after, field) = Any::from_der(rest).unwrap();
        if field.class() != x509_parser::asn1_rs::Class::ContextSpecific {
            fields.extend(&rest[..rest.len() - after.len()]);
        }
        rest = after;
    }
    let signed = tlv(0x30, &fields);
    let signature = tlv(3, &[&[0][..], &signer.sign(&signed).unwrap()].concat());
    let algorithm = tlv(0x30, algorithm.data);
    tlv(0x30, &[signed, algorithm, signature].concat()).into()
}

type Change = fn(&mut CertificateParams);

/// RFC 5280, 6.1.3 and 6.1.4: what holds for an authority that webpki looks at holds for one with constraints too.
#[test]
fn each_rule_for_intermediates_holds_with_and_without_name_constraints() {
    let rules: [(&str, Change); 9] = [
        ("expired", |p| p.not_after = (SystemTime::now() - HOUR).into()),
        ("not yet valid", |p| p.not_before = (SystemTime::now() + HOUR).into()),
        ("without basic constraints", |p| p.is_ca = IsCa::NoCa),
        ("no CA", |p| p.is_ca = IsCa::ExplicitNoCa),
        ("not deep enough", |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))),
        ("for another purpose", |p| {
            p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        }),
        ("may not sign", |p| p.key_usages = vec![KeyUsagePurpose::CrlSign]),
        ("with an unknown critical extension", |p| {
            let oid = [1, 3, 6, 1, 4, 1, 99999, 1];
            let mut extension = CustomExtension::from_oid_content(&oid, vec![5, 0]);
            extension.set_criticality(true);
            p.custom_extensions.push(extension);
        }),
        ("with the same extension twice", |p| {
            let oid = [2, 5, 29, 31];
            for _ in 0..2 {
                p.custom_extensions.push(CustomExtension::from_oid_content(&oid, vec![0x30, 0]));
            }
        }),
    ];
    for limit in [None, Some(constraints(&[(URI, b"example.org")], &[]))] {
        let build = |change: Change| {
            let root = root(|_| {});
            let mut params = authority("intermediate", BasicConstraints::Unconstrained);
            params.custom_extensions.extend(limit.clone());
            change(&mut params);
            let intermediate = root.subordinate(params);
            let lower = intermediate.intermediate("lower", BasicConstraints::Unconstrained);
            (root, below(&[&lower, &intermediate], |_| {}))
        };
        let (root, leaf) = build(|_| {});
        assert_believed(&root, &leaf);
        for (what, change) in rules {
            let (root, leaf) = build(change);
            let authenticator = authenticator(root.trust());
            assert!(verdict(&authenticator, &leaf).is_err(), "{what}, {limit:?}");
        }
        // Signed by somebody else of the same name.
        let (_, leaf) = build(|_| {});
        assert_refused(&root, &leaf, "does not chain");
        // Changed afterwards.
        let (root, mut leaf) = build(|_| {});
        let mut changed = leaf.chain[2].to_vec();
        *changed.last_mut().unwrap() ^= 1;
        leaf.chain[2] = changed.into();
        assert_refused(&root, &leaf, "does not chain");
        // Of the first version.
        let pair = key();
        let copy = KeyPair::from_pem(&pair.serialize_pem()).unwrap();
        let params = authority("root", BasicConstraints::Unconstrained);
        let root = Ca::with_params("example.org", &params, copy);
        let intermediate = root.intermediate("old", BasicConstraints::Unconstrained);
        let mut leaf = below(&[&intermediate], |_| {});
        assert_believed(&root, &leaf);
        leaf.chain[1] = first_version(&intermediate.certificate, &pair);
        assert_refused(&root, &leaf, "does not chain");
    }
}

#[test]
fn an_authority_limited_to_its_trust_domain_vouches_for_that_and_nothing_else() {
    for (permitted, is_believed) in [
        ("example.org", true),
        ("EXAMPLE.org", true),
        (".org", true),
        (".example.org", false),
        ("org", false),
        ("xample.org", false),
        ("web.example.org", false),
        ("example.org.other.org", false),
        ("other.org", false),
    ] {
        let limit = constraints(&[(URI, permitted.as_bytes())], &[]);
        if is_believed {
            assert_all_believed(&limit, |_| {});
        } else {
            assert_all_refused(&limit, &format!("permit only the URI `{permitted}`"), |_| {});
        }
    }
    assert_all_believed(&constraints(&[(URI, b"other.org"), (URI, b"example.org")], &[]), |_| {});
    assert_all_believed(&constraints(&[], &[(URI, b"other.org")]), |_| {});
    let excluded = constraints(&[], &[(URI, b"other.org"), (URI, b"example.org")]);
    assert_all_refused(&excluded, "exclude the URI `example.org`", |_| {});
    let both = constraints(&[(URI, b".org")], &[(URI, b"example.org")]);
    assert_all_refused(&both, "exclude the URI `example.org`", |_| {});
}

#[test]
fn directory_names_are_compared_as_directories_do() {
    let named = |params: &mut CertificateParams| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Acme");
        params.distinguished_name.push(DnType::CommonName, "web");
    };
    let utf8 = 0x0c;
    for same in [(utf8, &b"Acme"[..]), (0x13, b"Acme"), (utf8, b" ACME "), (0x1e, b"\0A\0c\0m\0e")]
    {
        let acme = organisation(same.0, same.1);
        assert_all_believed(&constraints(&[(DIRECTORY, &acme)], &[]), named);
        let excluded = constraints(&[], &[(DIRECTORY, &acme)]);
        assert_all_refused(&excluded, "exclude the directoryName `O=", named);
    }
    let other = organisation(utf8, b"Other");
    let refused = constraints(&[(DIRECTORY, &other)], &[]);
    assert_all_refused(&refused, "permit only the directoryName `O=Other`", named);
    assert_all_believed(&constraints(&[], &[(DIRECTORY, &other)]), named);
    // What may be the same to others is excluded, and is not permitted.
    let accented = organisation(utf8, "Acmé".as_bytes());
    let doubtful = constraints(&[], &[(DIRECTORY, &accented)]);
    assert_all_refused(&doubtful, "exclude the directoryName", named);
    assert_all_refused(&constraints(&[(DIRECTORY, &accented)], &[]), "permit only", named);
    // An SVID may have no subject at all.
    let unnamed = |params: &mut CertificateParams| {
        params.distinguished_name = rcgen::DistinguishedName::new();
    };
    let acme = organisation(utf8, b"Acme");
    assert_all_believed(&constraints(&[(DIRECTORY, &acme)], &[]), unnamed);
}

#[test]
fn constraints_of_other_kinds_hold_beside_those() {
    let with = |names: &[SanType]| {
        let names = names.to_vec();
        move |params: &mut CertificateParams| params.subject_alt_names.extend(names.clone())
    };
    let acme = &organisation(0x0c, b"Acme")[..];
    for beside in [(URI, &b"example.org"[..]), (DIRECTORY, acme)] {
        let unnamed = |change: &dyn Fn(&mut CertificateParams), params: &mut CertificateParams| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            change(params);
        };
        let names = constraints(&[beside, (DNS, b"example.org")], &[(DNS, b"db.example.org")]);
        for (name, reason) in [
            ("web.example.org", None),
            ("example.org", None),
            ("badexample.org", Some("permit only the dNSName `example.org`")),
            ("web.other.org", Some("permit only the dNSName `example.org`")),
            ("db.example.org", Some("exclude the dNSName `db.example.org`")),
            ("x.db.example.org", Some("exclude the dNSName `db.example.org`")),
            // It stands for an excluded name as well.
            ("*.example.org", Some("exclude the dNSName `db.example.org`")),
        ] {
            let change = with(&[dns(name)]);
            match reason {
                None => assert_all_believed(&names, |p| unnamed(&change, p)),
                Some(reason) => assert_all_refused(&names, reason, |p| unnamed(&change, p)),
            }
        }
        let addresses = constraints(&[beside, (IP, &[10, 0, 0, 0, 255, 0, 0, 0])], &[]);
        for (address, is_believed) in [("10.1.2.3", true), ("11.1.2.3", false), ("::a", false)] {
            let change = with(&[SanType::IpAddress(address.parse().unwrap())]);
            if is_believed {
                assert_all_believed(&addresses, |p| unnamed(&change, p));
            } else {
                assert_all_refused(&addresses, "permit only the iPAddress", |p| {
                    unnamed(&change, p)
                });
            }
        }
        // Of a kind that is not compared: nobody who has such a name, in the subject or beside it.
        let mail = constraints(&[beside, (MAIL, b"example.org")], &[]);
        assert_all_believed(&mail, |p| unnamed(&|_| {}, p));
        let change = with(&[SanType::Rfc822Name("web@example.org".try_into().unwrap())]);
        assert_all_refused(&mail, "kind rfc822Name", |p| unnamed(&change, p));
        let change = |params: &mut CertificateParams| {
            let oid = DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]);
            params.distinguished_name.push(oid, "web@example.org");
        };
        let refused = verdicts(&mail, |p| unnamed(&change, p));
        assert!(refused.iter().all(Result::is_err), "{refused:?}");
    }
}

#[test]
fn a_uri_without_a_domain_for_its_host_is_refused_where_uris_are_constrained() {
    let root = root(|params| {
        params.custom_extensions.push(constraints(&[], &[(URI, b"other.org")]));
    });
    // Beside the SPIFFE ID of the leaf, in an authority's certificate.
    for name in [
        "urn:example:org",
        "spiffe:///web",
        "https://10.0.0.1/",
        "https://10.1/",
        "https://[::1]/",
        "https://example.org:x/",
        "https://%65xample.org/",
        "https://example..org/",
        "https://example.org\\.other.org/",
        "mailto:web@example.org",
    ] {
        let mut params = authority("between", BasicConstraints::Unconstrained);
        params.subject_alt_names = vec![uri(name)];
        let between = root.subordinate(params);
        assert_refused(&root, &below(&[&between], |_| {}), "no host that is a domain name");
    }
    for (name, reason) in [
        ("https://other.org@example.org/", None),
        ("https://example.org:8443?other.org", None),
        ("spiffe://example.org", None),
        ("https://example.org@OTHER.org:1/", Some("exclude the URI `other.org`")),
        ("https://other.org#x", Some("exclude the URI `other.org`")),
    ] {
        let mut params = authority("between", BasicConstraints::Unconstrained);
        params.subject_alt_names = vec![uri(name)];
        let between = root.subordinate(params);
        match reason {
            None => assert_believed(&root, &below(&[&between], |_| {})),
            Some(reason) => assert_refused(&root, &below(&[&between], |_| {}), reason),
        }
    }
}

#[test]
fn constraints_that_cannot_be_read_permit_nothing() {
    let tree = |content: &[u8]| tlv(0x30, &tlv(0xa0, &tlv(0x30, content)));
    let base = tlv(URI, b"example.org");
    let unreadable: [(&str, Vec<u8>); 12] = [
        ("nothing", Vec::new()),
        ("something behind", [tree(&base), vec![5, 0]].concat()),
        ("a minimum", tree(&[&base[..], &[0x80, 1, 1]].concat())),
        ("no base", tree(&[])),
        ("an unknown kind", tree(&tlv(0x89, b"x"))),
        ("not ASCII", tree(&tlv(URI, "exämple.org".as_bytes()))),
        ("no domain", tree(&tlv(URI, b"spiffe://example.org"))),
        ("every URI", tree(&tlv(URI, b""))),
        ("a wildcard", tree(&tlv(URI, b"*.org"))),
        ("constructed", tree(&tlv(URI | 0x20, b"example.org"))),
        ("a mask with holes", tree(&tlv(IP, &[10, 0, 0, 0, 255, 0, 255, 0]))),
        ("in the wrong order", {
            let permitted = tlv(0xa0, &tlv(0x30, &base));
            let excluded = tlv(0xa1, &tlv(0x30, &tlv(URI, b"x.org")));
            tlv(0x30, &[excluded, permitted].concat())
        }),
    ];
    for (what, content) in unreadable {
        let extension = raw_constraints(content);
        let refused = verdicts(&extension, |params| {
            params.subject_alt_names.push(SanType::IpAddress("10.0.0.1".parse().unwrap()));
        });
        assert!(refused.iter().all(Result::is_err), "{what}: {refused:?}");
    }
}

#[test]
fn what_one_authority_permits_does_not_widen_what_another_does() {
    let limited = |name: &str, uri: &[u8]| {
        let mut params = authority(name, BasicConstraints::Unconstrained);
        params.custom_extensions.push(constraints(&[(URI, uri)], &[]));
        params
    };
    let root = root(|_| {});
    for (upper, lower, is_believed) in [
        (&b"example.org"[..], &b"example.org"[..], true),
        (b".org", b"example.org", true),
        (b"other.org", b"example.org", false),
        (b"example.org", b"other.org", false),
    ] {
        let upper = root.subordinate(limited("upper", upper));
        let lower = upper.subordinate(limited("lower", lower));
        let mut leaf = below(&[&lower, &upper], |_| {});
        for _ in 0..2 {
            match is_believed {
                true => assert_believed(&root, &leaf),
                false => assert_refused(&root, &leaf, "permit only the URI `other.org`"),
            }
            // In whatever order they are sent.
            leaf.chain.swap(1, 2);
        }
    }
    // A constraint above one that webpki does not read, of a kind that it does.
    let mut params = authority("names", BasicConstraints::Unconstrained);
    params.custom_extensions.push(constraints(&[(DNS, b"example.org")], &[]));
    let upper = root.subordinate(params);
    let lower = upper.subordinate(limited("lower", b"example.org"));
    let inside = below(&[&lower, &upper], |p| p.subject_alt_names.push(dns("web.example.org")));
    assert_believed(&root, &inside);
    let outside = below(&[&lower, &upper], |p| p.subject_alt_names.push(dns("web.other.org")));
    assert_refused(&root, &outside, "permit only the dNSName");
    // The unconstrained certificate of the same authority, beside it in the bundle.
    let pair = key();
    let copies = [(); 2].map(|()| KeyPair::from_pem(&pair.serialize_pem()).unwrap());
    let [one, two] = copies;
    let narrow = Ca::with_params("example.org", &limited("both", b"other.org"), one);
    let params = authority("both", BasicConstraints::Unconstrained);
    let wide = Ca::with_params("example.org", &params, two);
    let leaf = narrow.issue(svid(WEB, |_| {}));
    assert_refused(&narrow, &leaf, "permit only");
    let certificates = vec![narrow.certificate.clone(), wide.certificate.clone()];
    let bundle = TrustBundle::new("example.org".parse().unwrap(), certificates).unwrap();
    let authenticator = authenticator(Trust::of_bundles([bundle.into()]));
    assert_eq!(verdict(&authenticator, &leaf).as_deref(), Ok(WEB));
}

fn with_crls(
    ca: &Ca,
    lists: &[CertificateRevocationListDer<'_>],
    unknown: OnDoubt,
    expired: OnDoubt,
) -> Authenticator {
    let revocation = Some(Revocation::new(lists, unknown, expired).unwrap().into());
    let domain = DomainTrust { bundle: ca.bundle(), revocation };
    authenticator(Trust::new([(ca.domain.parse().unwrap(), domain)].into()))
}

#[test]
fn crls_are_asked_about_constrained_authorities_as_about_others() {
    let (deny, allow) = (OnDoubt::Deny, OnDoubt::Allow);
    for limit in [None, Some(constraints(&[(URI, b"example.org")], &[]))] {
        let root = root(|_| {});
        let mut params = authority("intermediate", BasicConstraints::Unconstrained);
        params.custom_extensions.extend(limit);
        params.serial_number = Some(SerialNumber::from(0x1234));
        let intermediate = root.subordinate(params);
        let leaf = below(&[&intermediate], |p| p.serial_number = Some(SerialNumber::from(7)));
        let later = SystemTime::now() + HOUR;
        let both = |of_root: &[u64], of_other: &[u64]| {
            [crl(&root, of_root, later), crl(&intermediate, of_other, later)]
        };
        let believed = with_crls(&root, &both(&[9], &[9]), deny, deny);
        assert_eq!(verdict(&believed, &leaf).as_deref(), Ok(WEB));
        let stale = crl(&root, &[], SystemTime::now() - HOUR);
        let forged = crl(&Ca::with_key("example.org", "root", key()), &[], later);
        let own = crl(&intermediate, &[], later);
        for (what, lists, unknown, expired, reason) in [
            ("leaf", both(&[], &[7]).to_vec(), allow, allow, "is revoked"),
            ("authority", both(&[0x1234], &[]).to_vec(), allow, allow, "is revoked"),
            ("unknown", vec![own.clone()], deny, deny, "no CRL here tells"),
            ("expired", vec![own.clone(), stale.clone()], deny, deny, "is overdue"),
            ("forged", vec![own.clone(), forged], allow, allow, "signature of a CRL"),
        ] {
            let authenticator = with_crls(&root, &lists, unknown, expired);
            let refusal = verdict(&authenticator, &leaf).unwrap_err();
            assert!(refusal.contains(reason), "{what}: {refusal}");
        }
        for (lists, unknown, expired) in
            [(vec![own.clone()], allow, deny), (vec![own, stale], deny, allow)]
        {
            let authenticator = with_crls(&root, &lists, unknown, expired);
            assert_eq!(verdict(&authenticator, &leaf).as_deref(), Ok(WEB));
        }
    }
}

#[test]
fn a_crl_of_an_authority_that_may_not_sign_any_is_none() {
    for limit in [None, Some(constraints(&[(URI, b"example.org")], &[]))] {
        let mut params = authority("intermediate", BasicConstraints::Unconstrained);
        params.custom_extensions.extend(limit);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // rcgen does not sign what it may not: the list is made by a twin that may.
        let pair = key();
        let copies = [(); 3].map(|()| KeyPair::from_pem(&pair.serialize_pem()).unwrap());
        let [one, two, three] = copies;
        let twin = Ca::with_params("example.org", &params, one);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let later = SystemTime::now() + HOUR;
        let mute = Ca::with_params("example.org", &params, two);
        let leaf = mute.issue(svid(WEB, |_| {}));
        let authenticator =
            with_crls(&mute, &[crl(&twin, &[], later)], OnDoubt::Allow, OnDoubt::Allow);
        assert!(verdict(&authenticator, &leaf).unwrap_err().contains("cRLSign"));
        // Nor between the two.
        let root = root(|_| {});
        let certificate = params.signed_by(&three, &root.issuer).unwrap().der().clone();
        let chain = vec![leaf.chain[0].clone(), certificate];
        let leaf = Leaf { chain, key: key() };
        let authenticator =
            with_crls(&root, &[crl(&twin, &[], later)], OnDoubt::Allow, OnDoubt::Allow);
        assert!(verdict(&authenticator, &leaf).is_err());
        let authenticator =
            with_crls(&root, &[crl(&root, &[], later)], OnDoubt::Allow, OnDoubt::Allow);
        assert_eq!(verdict(&authenticator, &leaf).as_deref(), Ok(WEB));
    }
}

#[test]
fn looking_for_a_way_through_constrained_authorities_has_an_end() {
    let root = root(|_| {});
    let limited = |serial: u64| {
        let mut params = authority("loop", BasicConstraints::Unconstrained);
        params.custom_extensions.push(constraints(&[(URI, b"example.org")], &[]));
        params.serial_number = Some(SerialNumber::from(serial));
        params
    };
    // Each may have signed each.
    let stranger = Ca::with_params("example.org", &limited(0), key());
    let mut leaf = stranger.issue(svid(WEB, |_| {}));
    for serial in 1..=8 {
        let pair = key();
        let signed = limited(serial).signed_by(&pair, &stranger.issuer).unwrap();
        leaf.chain.push(signed.der().clone());
    }
    assert_refused(&root, &leaf, "does not chain");
}

proptest! {
    #[test]
    fn no_bytes_in_place_of_constraints_make_it_panic_or_believe_others(
        content in prop::collection::vec(any::<u8>(), 0..64),
        looks_right: bool,
    ) {
        let content = if looks_right { tlv(0x30, &tlv(0xa0, &tlv(0x30, &content))) } else { content };
        let root = root(|params| params.custom_extensions.push(raw_constraints(content.clone())));
        let leaf = root.issue(svid(WEB, |_| {}));
        if let Ok(found) = verdict_of(&root, &leaf) {
            prop_assert_eq!(found, WEB);
        }
    }
}
