use super::plan::{Due, Wanted, changed, due};
use super::state::{Root, StateError, pem_of};
use super::*;
use crate::trust::testing::Ca;
use k8s_openapi::ByteString;
use proptest::prelude::*;
use rcgen::{BasicConstraints, CustomExtension, KeyPair as NewKey, PKCS_ECDSA_P256_SHA256};

const HOUR: Duration = Duration::from_secs(3600);
const TERMS: Terms = Terms {
    svid_ttl: Duration::from_secs(6 * 3600),
    intermediate_ttl: Duration::from_secs(48 * 3600),
    root_ttl: Duration::from_secs(480 * 3600),
    distribute: Duration::from_secs(24 * 3600),
};

fn domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

fn own() -> SpiffeId {
    "spiffe://example.org/ns/sheath-system/sa/sheath-controller".parse().unwrap()
}

fn maker() -> Maker {
    let random = crate::peer::crypto_provider().secure_random;
    Maker { trust_domain: domain(), terms: TERMS, random }
}

fn first() -> State {
    maker().first(SystemTime::now()).unwrap()
}

fn ca() -> Authority {
    Authority::new(own(), TERMS, Arc::new(crate::peer::crypto_provider()))
}

fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap())
}

/// Whether peers with these roots take a chain for the web's, at a time.
fn proves(
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    at: SystemTime,
) -> bool {
    let bundle = TrustBundle::new(domain(), roots.to_vec()).unwrap();
    let algorithms = crate::peer::crypto_provider().signature_verification_algorithms;
    let trust = Trust::of_bundles([Arc::new(bundle)]);
    let peer = PeerChain { leaf: &chain[0], intermediates: &chain[1..] };
    let authenticator = Authenticator { trust, algorithms };
    let candidate = authenticator.candidate(peer, Role::Client, unix(at)).unwrap();
    candidate.authenticate(Method::Svid).is_ok()
}

/// Two generations of roots, hour by hour. An agent may be as late with roots as they are told before they sign, and every SVID
/// must be good until its end by whatever roots peers have then.
#[test]
fn whatever_is_rotated_every_svid_is_good_until_its_end() {
    let maker = maker();
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let key = NewKey::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut state = maker.first(start).unwrap();
    let mut told: Vec<Vec<CertificateDer<'static>>> = Vec::new();
    let mut issued = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for hour in 0..1000_u32 {
        let now = start + hour * HOUR;
        for _ in 0..8 {
            let Some(due) = due(&state, &TERMS, Wanted::Own(false), now) else { break };
            state = changed(&state, due, Wanted::Own(false), &maker, now).unwrap();
        }
        assert_eq!(due(&state, &TERMS, Wanted::Own(false), now), None, "it comes to rest");
        told.push(state.root_certificates());
        seen.extend(state.roots.iter().map(|root| root.authority.facts.fingerprint));
        if hour % 5 == 0 {
            let leaf = maker.svid(&state.intermediate, &own(), &key, TERMS.svid_ttl, now).unwrap();
            issued.push((hour, vec![leaf, state.intermediate.certificate.clone()]));
        }
        assert!(state.roots.len() <= 2, "old roots leave");
    }
    assert!(seen.len() >= 3, "roots were rotated: {}", seen.len());
    let late = (TERMS.distribute.as_secs() / 3600) as usize;
    for (hour, chain) in issued {
        let hour = hour as usize;
        let life = CertificateFacts::of(&chain[0]).unwrap();
        let left = life.not_after.duration_since(start + hour as u32 * HOUR).unwrap();
        assert!(left >= TERMS.svid_ttl - Duration::from_secs(1), "{hour}: {left:?}");
        for age in 0..6 {
            let at = start + (hour + age) as u32 * HOUR;
            for roots in [hour.saturating_sub(late), hour, (hour + age).min(told.len() - 1)] {
                assert!(proves(&chain, &told[roots], at), "issued at {hour}, by roots of {roots}");
            }
        }
    }
}

#[test]
fn a_new_root_is_told_before_it_signs_and_whoever_asks_gets_one() {
    let (maker, start) = (maker(), SystemTime::now());
    let mut state = maker.first(start).unwrap();
    assert_eq!(due(&state, &TERMS, Wanted::Own(false), start), None);
    assert_eq!(due(&state, &TERMS, Wanted::Own(true), start), Some(Due::Root));
    state = changed(&state, Due::Root, Wanted::Own(false), &maker, start).unwrap();
    assert_eq!(due(&state, &TERMS, Wanted::Own(true), start), Some(Due::Distributed(1)));
    let told = start + HOUR;
    state = changed(&state, Due::Distributed(1), Wanted::Own(false), &maker, told).unwrap();
    let before = told + TERMS.distribute - HOUR;
    // The intermediate is renewed meanwhile, and still by the old root.
    if let Some(due) = due(&state, &TERMS, Wanted::Own(true), before) {
        assert_eq!(due, Due::Intermediate(0));
        state = changed(&state, due, Wanted::Own(false), &maker, before).unwrap();
    }
    assert_eq!(
        due(&state, &TERMS, Wanted::Own(true), before),
        None,
        "another one has to wait its turn"
    );
    let after = told + TERMS.distribute;
    assert_eq!(due(&state, &TERMS, Wanted::Own(false), after), Some(Due::Intermediate(1)));
    state = changed(&state, Due::Intermediate(1), Wanted::Own(false), &maker, after).unwrap();
    assert_eq!(state.signer(), Some(1));
    // As long as an intermediate of the old one lives, it stays.
    let end = state.roots[0].signed_until;
    assert_ne!(due(&state, &TERMS, Wanted::Own(false), end), Some(Due::Retire(0)));
    let over = end + HOUR;
    let mut next = due(&state, &TERMS, Wanted::Own(false), over);
    if next == Some(Due::Intermediate(1)) {
        state = changed(&state, Due::Intermediate(1), Wanted::Own(false), &maker, over).unwrap();
        next = due(&state, &TERMS, Wanted::Own(false), over);
    }
    assert_eq!(next, Some(Due::Retire(0)));
}

#[test]
fn a_ca_that_nobody_looked_after_for_years_begins_again_with_a_new_root() {
    let (maker, start) = (maker(), SystemTime::now());
    let state = maker.first(start).unwrap();
    let late = start + 2 * TERMS.root_ttl;
    assert_eq!(due(&state, &TERMS, Wanted::Own(false), late), Some(Due::Root));
}

#[test]
fn what_is_written_is_read_again() {
    let state = first();
    let document = state.write();
    let again = State::read(&document, &domain()).unwrap();
    assert_eq!(*again.write(), *document);
    assert_eq!(again.root_certificates(), state.root_certificates());
    assert_eq!(again.signer(), Some(0));
    assert!(!format!("{again:?}").contains("PRIVATE"));
}

#[test]
fn a_document_that_makes_no_sense_is_refused_with_the_reason() {
    let document = String::from_utf8(first().write().to_vec()).unwrap();
    let other = String::from_utf8(first().write().to_vec()).unwrap();
    let part = |text: &str| {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        value
    };
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = part(&document);
        change(&mut value);
        State::read(value.to_string().as_bytes(), &domain()).unwrap_err().to_string()
    };
    for (error, words) in [
        (with(&|value| value["form"] = 3.into()), "has the form 3"),
        (with(&|value| value["signedBy"] = "x".into()), "`signedBy` in it"),
        (with(&|value| value["extra"] = 2.into()), "not the JSON"),
        (with(&|value| value["roots"] = serde_json::json!([])), "has 0 roots"),
        (with(&|value| value["intermediate"]["key"] = "".into()), "no private key"),
        (
            with(&|value| value["intermediate"] = part(&other)["intermediate"].clone()),
            "none of the roots",
        ),
        (
            with(&|value| {
                value["roots"][0]["authority"]["key"] =
                    part(&other)["roots"][0]["authority"]["key"].clone();
            }),
            "does not belong to the key",
        ),
        (with(&|value| value["roots"][0]["signedUntil"] = u64::MAX.into()), "out of all range"),
        (with(&|value| value["intermediate"]["certificate"] = "x".into()), "no certificate"),
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }
    let foreign = State::read(document.as_bytes(), &"other.org".parse().unwrap());
    assert!(matches!(foreign, Err(StateError::OtherDomain { .. })));
}

#[test]
fn what_proves_nothing_is_not_adopted() {
    let ca = ca();
    let key = NewKey::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    assert!(matches!(ca.issue(&own(), &key), Err(AuthorityError::None(_))));
    ca.adopt(first()).unwrap();
    let good = ca.issue(&own(), &key).unwrap();
    // Another root of the same name: the signature of the intermediate is not its own.
    let mut forged = first();
    let real: Root = forged.roots[0].clone();
    let mut other = first().roots[0].authority.clone();
    other.facts.subject = real.authority.facts.subject.clone();
    forged.roots[0].authority = other;
    assert!(matches!(ca.adopt(forged), Err(AuthorityError::Proof(_))));
    assert_eq!(ca.issue(&own(), &key).unwrap()[1], good[1], "the one before stays");
}

#[test]
fn an_svid_is_of_the_id_and_the_key_and_ends_in_time() {
    let ca = ca();
    ca.adopt(first()).unwrap();
    let key = NewKey::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let id: SpiffeId = "spiffe://example.org/ns/shop/sa/web".parse().unwrap();
    let chain = ca.issue(&id, &key).unwrap();
    let facts = CertificateFacts::of(&chain[0]).unwrap();
    assert_eq!(crate::spiffe::spiffe_id_of(&chain[0]), Ok(id));
    assert_eq!(facts.public_key, key.subject_public_key_info());
    let life = facts.not_after.duration_since(SystemTime::now()).unwrap();
    assert!(life <= TERMS.svid_ttl && life > TERMS.svid_ttl - HOUR, "{life:?}");
    assert!(proves(&chain, &ca.roots().borrow(), SystemTime::now()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_document_is_refused_and_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        thread_local!(static DOCUMENT: Vec<u8> = first().write().to_vec());
        let mut document = DOCUMENT.with(Clone::clone);
        let at = at.index(document.len());
        document[at] = byte;
        // A change that is none, of a time, or of white space is no damage.
        if let Ok(read) = State::read(&document, &domain()) {
            prop_assert_eq!(read.roots.len(), 1);
        }
        prop_assert!(State::read(&document[..at], &domain()).is_err());
    }
}

fn issuer_of(ca: &Ca, root: &Ca) -> Issuer {
    let key = ca.issuer.key().serialize_pem().into_bytes();
    let data = [
        ("tls.crt", pem_of(&ca.certificate).into_bytes()),
        ("tls.key", key),
        ("ca.crt", pem_of(&root.certificate).into_bytes()),
    ];
    let data = data.map(|(name, bytes)| (name.to_owned(), ByteString(bytes)));
    provided::read(&data.into(), SystemTime::now()).unwrap()
}

/// From the controller's own CA to somebody else's, which is renewed, then to one with another root, and back; hour by hour.
#[test]
fn whoever_makes_the_ca_every_svid_is_good_until_its_end() {
    let maker = maker();
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let key = NewKey::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let [root, other] = ["example.org", "example.com"].map(Ca::new);
    let below = |name: &str| root.intermediate(name, BasicConstraints::Unconstrained);
    let [first, renewed] = ["ca", "ca"].map(|name| issuer_of(&below(name), &root));
    let second = issuer_of(&other, &other);
    let mut state = maker.first(start).unwrap();
    let mut told: Vec<Vec<CertificateDer<'static>>> = Vec::new();
    let mut issued = Vec::new();
    let mut signers = Vec::new();
    for hour in 0..600_u32 {
        let now = start + hour * HOUR;
        let wanted = match hour {
            0..50 => Wanted::Own(false),
            50..150 => Wanted::Provided(Some(&first)),
            // It is broken for a while.
            150..200 => Wanted::Provided(None),
            200..300 => Wanted::Provided(Some(&renewed)),
            300..450 => Wanted::Provided(Some(&second)),
            _ => Wanted::Own(false),
        };
        for _ in 0..8 {
            let Some(due) = due(&state, &TERMS, wanted, now) else { break };
            state = changed(&state, due, wanted, &maker, now).unwrap();
            // As the next leader finds it.
            state = State::read(&state.write(), &domain()).unwrap();
        }
        assert_eq!(due(&state, &TERMS, wanted, now), None, "it comes to rest");
        told.push(state.root_certificates());
        let signer = &state.roots[state.signer().unwrap()].authority.facts.fingerprint;
        if signers.last() != Some(signer) {
            signers.push(*signer);
        }
        if hour % 5 == 0 {
            let leaf = maker.svid(&state.intermediate, &own(), &key, TERMS.svid_ttl, now).unwrap();
            let chain: Vec<_> = std::iter::once(leaf).chain(state.chain()).collect();
            assert!(chain.len() <= 4, "agents take no more");
            issued.push((hour as usize, chain));
        }
        assert!(state.roots.len() <= 3, "old roots leave: {}", state.roots.len());
    }
    assert_eq!(signers.len(), 5, "own, provided, renewed, another, own");
    assert_eq!(signers[1], first.authority.facts.fingerprint);
    assert_eq!(signers[2], renewed.authority.facts.fingerprint);
    assert_eq!(signers[3], second.authority.facts.fingerprint);
    assert_eq!(told[599].len(), 1, "of what others have made nothing is left");
    let late = (TERMS.distribute.as_secs() / 3600) as usize;
    for (hour, chain) in issued {
        for age in 0..6 {
            let at = start + (hour + age) as u32 * HOUR;
            for roots in [hour.saturating_sub(late), hour, (hour + age).min(told.len() - 1)] {
                assert!(proves(&chain, &told[roots], at), "issued at {hour}, by roots of {roots}");
            }
        }
    }
}

#[test]
fn a_ca_of_somebody_elses_has_to_prove_identities_of_this_trust_domain() {
    let (ca, root) = (ca(), Ca::new("example.org"));
    ca.try_out(&issuer_of(&root, &root)).unwrap();
    let below = root.intermediate("below", BasicConstraints::Constrained(1));
    ca.try_out(&issuer_of(&below, &root)).unwrap();
    let tried = |ca: &Authority, issuer: &Issuer| ca.try_out(issuer).unwrap_err().to_string();
    let error = tried(&ca, &issuer_of(&below, &Ca::new("example.org")));
    assert!(error.contains("does not prove"), "{error}");
    let limited = |host: &str| {
        let any = BasicConstraints::Unconstrained;
        let mut params = crate::trust::testing::authority("limited", any);
        params.custom_extensions.push(uris_of(host));
        issuer_of(&root.subordinate(params), &root)
    };
    ca.try_out(&limited("example.org")).unwrap();
    let error = tried(&ca, &limited("other.org"));
    assert!(error.contains("permit only"), "{error}");
}

/// Name constraints that permit URIs of one host alone (RFC 5280, 4.2.1.10).
fn uris_of(host: &str) -> CustomExtension {
    let element = |tag: u8, content: Vec<u8>| [vec![tag, content.len() as u8], content].concat();
    let subtree = element(0x30, element(0x86, host.into()));
    let content = element(0x30, element(0xa0, subtree));
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], content);
    extension.set_criticality(true);
    extension
}
