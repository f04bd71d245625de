//! A chain that has been verified is believed again as long as, and only as long as, it would be verified again.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SerialNumber};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::CertificateRevocationListDer;

use super::*;
use crate::trust::testing::{Ca, Leaf, authenticate, authenticator, authority, crl, dns, svid};
use crate::trust::{
    Authenticator, Authorities, DomainTrust, Method, OnDoubt, Pin, Revocation, Trust, TrustBundle,
};

const WEB: &str = "spiffe://example.org/web";
const HOUR: u64 = 3600;

/// Everything that authenticates with the same proofs.
#[derive(Default)]
struct Node {
    verified: Arc<VerifiedChains>,
}

impl Node {
    fn authenticator(&self, trust: Trust) -> Authenticator {
        authenticator(trust.with_verified(self.verified.clone()))
    }

    fn by_bundle(&self, authorities: &[&Ca]) -> Authenticator {
        self.authenticator(Trust::of_bundles([bundle(authorities)]))
    }

    fn by_crls(
        &self,
        ca: &Ca,
        lists: &[CertificateRevocationListDer<'_>],
        unknown: OnDoubt,
        expired: OnDoubt,
    ) -> Authenticator {
        let revocation = Some(Arc::new(Revocation::new(lists, unknown, expired).unwrap()));
        let domain = DomainTrust { bundle: ca.bundle(), revocation };
        let trust = Trust::new([(ca.domain.parse().unwrap(), domain)].into());
        self.authenticator(trust)
    }

    /// Runs `work`, which must find this many proofs, and look for this many that are not there.
    #[track_caller]
    fn counting<R>(&self, hits: u64, misses: u64, work: impl FnOnce() -> R) -> R {
        let before = (self.verified.hits(), self.verified.misses());
        let result = work();
        let after = (self.verified.hits(), self.verified.misses());
        assert_eq!((after.0 - before.0, after.1 - before.1), (hits, misses), "hits, misses");
        result
    }
}

fn bundle(authorities: &[&Ca]) -> Arc<TrustBundle> {
    let domain = authorities[0].domain.parse().unwrap();
    let certificates = authorities.iter().map(|ca| ca.certificate.clone()).collect();
    Arc::new(TrustBundle::new(domain, certificates).unwrap())
}

fn verdict_at(
    authenticator: &Authenticator,
    leaf: &Leaf,
    role: Role,
    now: u64,
) -> Result<String, String> {
    authenticate(authenticator, leaf, role, at(now))
}

fn verdict(authenticator: &Authenticator, leaf: &Leaf) -> Result<String, String> {
    verdict_at(authenticator, leaf, Role::Client, now())
}

#[track_caller]
fn assert_believed(authenticator: &Authenticator, leaf: &Leaf) {
    assert_eq!(verdict(authenticator, leaf).as_deref(), Ok(WEB));
}

#[track_caller]
fn assert_refused(verdict: Result<String, String>, reason: &str) {
    let refusal = verdict.unwrap_err();
    assert!(refusal.contains(reason), "{refusal}");
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn now() -> u64 {
    UnixTime::now().as_secs()
}

fn time(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn web(ca: &Ca) -> Leaf {
    ca.issue(svid(WEB, |_| {}))
}

/// Below an intermediate authority, each valid for a time of its own.
fn below(ca: &Ca, intermediate: [u64; 2], leaf: [u64; 2]) -> Leaf {
    subordinate_and_leaf(ca, intermediate, leaf).1
}

fn subordinate_and_leaf(ca: &Ca, intermediate: [u64; 2], leaf: [u64; 2]) -> (Ca, Leaf) {
    let limit = |params: &mut CertificateParams, [from, until]: [u64; 2]| {
        (params.not_before, params.not_after) = (time(from).into(), time(until).into());
    };
    let mut params = authority("intermediate", BasicConstraints::Unconstrained);
    limit(&mut params, intermediate);
    let subordinate = ca.subordinate(params);
    let mut issued = subordinate.issue(svid(WEB, |params| limit(params, leaf)));
    issued.chain.push(subordinate.certificate.clone());
    (subordinate, issued)
}

#[test]
fn a_chain_is_verified_once_for_all_workloads() {
    let (node, ca) = (Node::default(), Ca::new("example.org"));
    let leaf = web(&ca);
    node.counting(0, 1, || assert_believed(&node.by_bundle(&[&ca]), &leaf));
    // As another workload has it, and after a publication: not the same bundle, but one with the same content.
    node.counting(2, 0, || {
        assert_believed(&node.by_bundle(&[&ca]), &leaf);
        assert_believed(&node.by_bundle(&[&ca]), &leaf);
    });
    node.counting(0, 1, || assert_believed(&node.by_bundle(&[&ca]), &web(&ca)));
    assert_eq!(node.verified.entries(), 2);
    let alone = authenticator(ca.trust());
    assert_believed(&alone, &leaf);
    assert_eq!(alone.trust.verified().misses(), 1, "nothing is in common unless it is said");
}

#[test]
fn another_bundle_is_another_question() {
    let (node, ca, other) = (Node::default(), Ca::new("example.org"), Ca::new("example.org"));
    let leaf = web(&ca);
    assert_believed(&node.by_bundle(&[&ca]), &leaf);
    node.counting(0, 1, || {
        assert_refused(verdict(&node.by_bundle(&[&other]), &leaf), "does not chain to the bundle");
    });
    node.counting(0, 1, || assert_believed(&node.by_bundle(&[&other, &ca]), &leaf));
    node.counting(1, 0, || assert_believed(&node.by_bundle(&[&ca]), &leaf));
}

#[test]
fn one_chain_is_not_another() {
    let (node, ca) = (Node::default(), Ca::new("example.org"));
    let first = ca.intermediate("first", BasicConstraints::Unconstrained);
    let mut leaf = web(&first);
    leaf.chain.push(first.certificate.clone());
    let authenticator = node.by_bundle(&[&ca]);
    assert_believed(&authenticator, &leaf);
    let mut without = Leaf { chain: leaf.chain.clone(), key: KeyPair::generate().unwrap() };
    without.chain.pop();
    node.counting(0, 1, || {
        assert_refused(verdict(&authenticator, &without), "an authority that is not known here")
    });
    // The same bytes in the same order, but cut elsewhere.
    let mut elsewhere = Leaf { chain: leaf.chain.clone(), key: KeyPair::generate().unwrap() };
    let [one, two] = &leaf.chain[..] else { panic!("two certificates") };
    let (head, tail) = two.split_at(1);
    elsewhere.chain = vec![[one, head].concat().into(), tail.to_vec().into()];
    assert_refused(verdict(&authenticator, &elsewhere), "cannot be parsed");
    // One certificate in place of another.
    let mut forged = leaf.chain[0].to_vec();
    *forged.last_mut().unwrap() ^= 1;
    leaf.chain[0] = forged.into();
    node.counting(0, 1, || {
        assert_refused(verdict(&authenticator, &leaf), "does not chain to the bundle")
    });
}

#[test]
fn a_crl_counts_from_the_moment_it_is_there() {
    let (node, ca) = (Node::default(), Ca::new("example.org"));
    let leaf = ca.issue(svid(WEB, |params| params.serial_number = Some(SerialNumber::from(7))));
    let later = time(now() + HOUR);
    let with = |serials: &[u64]| {
        let lists = [crl(&ca, serials, later)];
        node.by_crls(&ca, &lists, OnDoubt::Deny, OnDoubt::Deny)
    };
    assert_believed(&node.by_bundle(&[&ca]), &leaf);
    let harmless = with(&[8]);
    node.counting(0, 1, || assert_believed(&harmless, &leaf));
    node.counting(1, 0, || assert_believed(&harmless, &leaf));
    node.counting(0, 1, || assert_refused(verdict(&with(&[7, 8]), &leaf), "is revoked"));
    node.counting(1, 0, || assert_believed(&node.by_bundle(&[&ca]), &leaf));
}

#[test]
fn what_the_crls_do_not_say_is_not_taken_from_a_laxer_answer() {
    let (node, ca, other) = (Node::default(), Ca::new("example.org"), Ca::new("other.org"));
    let leaf = web(&ca);
    let elsewhere = [crl(&other, &[], time(now() + HOUR))];
    let lax = node.by_crls(&ca, &elsewhere, OnDoubt::Allow, OnDoubt::Deny);
    assert_believed(&lax, &leaf);
    node.counting(1, 0, || assert_believed(&lax, &leaf));
    let strict = node.by_crls(&ca, &elsewhere, OnDoubt::Deny, OnDoubt::Deny);
    assert_refused(verdict(&strict, &leaf), "no CRL here tells");
    let stale = [crl(&ca, &[], time(now() - HOUR))];
    let lax = node.by_crls(&ca, &stale, OnDoubt::Deny, OnDoubt::Allow);
    assert_believed(&lax, &leaf);
    node.counting(1, 0, || assert_believed(&lax, &leaf));
    let strict = node.by_crls(&ca, &stale, OnDoubt::Deny, OnDoubt::Deny);
    assert_refused(verdict(&strict, &leaf), "a CRL is overdue");
    let none = node.by_crls(&ca, &[], OnDoubt::Deny, OnDoubt::Deny);
    assert_refused(verdict(&none, &leaf), "no usable CRL");
}

#[test]
fn a_crl_that_has_run_out_speaks_for_nobody() {
    let (node, ca) = (Node::default(), Ca::new("example.org"));
    let leaf = web(&ca);
    let (now, end) = (now(), now() + HOUR);
    let lists = [crl(&ca, &[], time(end + HOUR)), crl(&ca, &[], time(end))];
    let authenticator = node.by_crls(&ca, &lists[1..], OnDoubt::Deny, OnDoubt::Deny);
    let verdict = |authenticator, time| verdict_at(authenticator, &leaf, Role::Client, time);
    assert!(verdict(&authenticator, now).is_ok());
    node.counting(1, 0, || assert!(verdict(&authenticator, end - 1).is_ok()));
    node.counting(0, 1, || assert_refused(verdict(&authenticator, end), "a CRL is overdue"));
    // The first of several to run out is what counts.
    let authenticator = node.by_crls(&ca, &lists, OnDoubt::Deny, OnDoubt::Deny);
    assert!(verdict(&authenticator, end - 1).is_ok());
    node.counting(1, 1, || {
        assert!(verdict(&authenticator, now).is_ok());
        let _ = verdict(&authenticator, end);
    });
    let lax = node.by_crls(&ca, &lists, OnDoubt::Deny, OnDoubt::Allow);
    assert!(verdict(&lax, now).is_ok());
    node.counting(1, 0, || assert!(verdict(&lax, end + 2 * HOUR).is_ok()));
}

#[test]
fn no_certificate_of_a_chain_is_believed_outside_its_time() {
    let (node, ca) = (Node::default(), Ca::new("example.org"));
    let authenticator = node.by_bundle(&[&ca]);
    let now = now();
    let (narrow, wide) = ([now - HOUR, now + HOUR], [now - 9 * HOUR, now + 9 * HOUR]);
    for leaf in [below(&ca, wide, narrow), below(&ca, narrow, wide)] {
        let verdict = |time| verdict_at(&authenticator, &leaf, Role::Server, time);
        assert!(verdict(now).is_ok());
        node.counting(2, 0, || narrow.map(|edge| verdict(edge).unwrap()));
        node.counting(0, 1, || assert_refused(verdict(narrow[0] - 1), "is not valid before"));
        node.counting(0, 1, || assert_refused(verdict(narrow[1] + 1), "has expired"));
        // As a live session is judged, whose certificate has expired meanwhile: at the time it began.
        node.counting(1, 0, || verdict(now).unwrap());
    }
}

/// An authority with this key that is good from one time to another.
fn limited(key: &KeyPair, [from, until]: [u64; 2]) -> Ca {
    let mut params = authority("an authority", BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (time(from).into(), time(until).into());
    let key = KeyPair::from_pem(&key.serialize_pem()).unwrap();
    Ca::with_params("example.org", &params, key)
}

#[test]
fn an_authority_vouches_for_nobody_once_it_has_expired() {
    let (node, key, now) = (Node::default(), KeyPair::generate().unwrap(), now());
    let ca = limited(&key, [now - HOUR, now + HOUR]);
    let leaf = web(&ca);
    let verdict =
        |authenticator: &Authenticator, time| verdict_at(authenticator, &leaf, Role::Client, time);
    let authenticator = node.by_bundle(&[&ca]);
    node.counting(1, 1, || [now, now + HOUR].map(|time| verdict(&authenticator, time).unwrap()));
    node.counting(0, 2, || {
        for _ in 0..2 {
            assert_refused(verdict(&authenticator, now + HOUR + 1), "has expired");
        }
    });
    // Unless it has another certificate, whichever comes first.
    let renewed = limited(&key, [now, now + 9 * HOUR]);
    for authorities in [[&ca, &renewed], [&renewed, &ca]] {
        let authenticator = node.by_bundle(&authorities);
        node.counting(2, 1, || {
            [1, 2, 9].map(|hours| verdict(&authenticator, now + hours * HOUR).unwrap())
        });
        assert_refused(verdict(&authenticator, now + 9 * HOUR + 1), "has expired");
    }
    // One that is to take over is trusted from the start.
    let next = limited(&KeyPair::generate().unwrap(), [now + HOUR, now + 9 * HOUR]);
    let authenticator = node.by_bundle(&[&ca, &next]);
    assert_believed(&authenticator, &web(&next));
}

#[test]
fn an_identity_says_until_when_it_rests_on_good_certificates() {
    let (node, now) = (Node::default(), now());
    let ends = [1, 2, 3].map(|hours| now + hours * HOUR);
    for (authority, intermediate, leaf) in [(0, 1, 2), (1, 0, 2), (2, 1, 0)] {
        let key = KeyPair::generate().unwrap();
        let span = |index: usize| [now - HOUR, ends[index]];
        let ca = limited(&key, span(authority));
        let mut leaf = below(&ca, span(intermediate), span(leaf));
        let authenticator = node.by_bundle(&[&Ca::new("example.org"), &ca]);
        let end = |leaf: &Leaf| {
            let candidate = authenticator.candidate(leaf.peer(), Role::Client, at(now)).unwrap();
            candidate.authenticate(Method::Svid).unwrap().validity.end()
        };
        // Proved, and found.
        assert_eq!([end(&leaf), end(&leaf)], [at(ends[0]); 2]);
        // What is not on the way does not count.
        leaf.chain.push(limited(&key, [now - 2 * HOUR, now - HOUR]).certificate);
        assert_eq!(end(&leaf), at(ends[0]));
    }
}

#[test]
fn a_proof_for_one_role_is_none_for_the_other() {
    let (node, ca) = (Node::default(), Ca::new("example.org"));
    let authenticator = node.by_bundle(&[&ca]);
    let client = ca.issue(svid(WEB, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    }));
    let verdict = |role| verdict_at(&authenticator, &client, role, now());
    assert!(verdict(Role::Client).is_ok());
    node.counting(1, 0, || assert!(verdict(Role::Client).is_ok()));
    node.counting(0, 1, || assert_refused(verdict(Role::Server), "extended key usage"));
}

#[test]
fn a_signature_that_does_not_count_is_none_though_somebody_else_counts_it() {
    let (node, ca) = (Node::default(), Ca::new("example.org"));
    let (leaf, lax) = (web(&ca), node.by_bundle(&[&ca]));
    assert_believed(&lax, &leaf);
    let algorithms = WebPkiSupportedAlgorithms { all: &[], ..lax.algorithms };
    let strict = Authenticator { algorithms, ..node.by_bundle(&[&ca]) };
    assert_refused(verdict(&strict, &leaf), "not accepted here");
}

/// One proof serves both methods that need one, and an identity has what its method proves and no more.
#[test]
fn what_was_proved_is_what_the_method_proves() {
    let (node, ca) = (Node::default(), Ca::new("example.org"));
    let leaf = ca.issue(svid(WEB, |params| params.subject_alt_names.push(dns("web.example.org"))));
    let authenticator = node.by_bundle(&[&ca]);
    assert_believed(&authenticator, &leaf);
    let authorities = Authorities { anchors: ca.bundle().anchors().clone(), revocation: None };
    let candidate = authenticator.candidate(leaf.peer(), Role::Client, at(now())).unwrap();
    let proved = |method| {
        let identity = candidate.authenticate(method).unwrap();
        assert!(identity.matches(&Pin::Certificate(Fingerprint::of(&leaf.chain[0]))));
        assert!(!identity.matches(&Pin::Certificate(Fingerprint::of(&ca.certificate))));
        let id = identity.spiffe_id().map(ToString::to_string);
        let uri = identity.uri(|uri| Some(uri.to_owned()));
        (id, uri, identity.has_dns_name("web.example.org"))
    };
    let web = || Some(WEB.to_owned());
    node.counting(2, 0, || {
        assert_eq!(proved(Method::Svid), (web(), None, false));
        assert_eq!(proved(Method::Chain(&authorities)), (None, web(), true));
    });
    node.counting(0, 0, || assert_eq!(proved(Method::Key), (None, None, false)));
}

#[test]
fn what_cannot_be_verified_is_not_remembered() {
    let (node, ca, stranger) = (Node::default(), Ca::new("example.org"), Ca::new("example.org"));
    let authenticator = node.by_bundle(&[&ca]);
    let now = now();
    let (valid, over) = ([now - HOUR, now + HOUR], [now - 2 * HOUR, now - HOUR]);
    let refused = [
        web(&stranger),
        below(&ca, valid, over),
        below(&ca, over, valid),
        below(&stranger, valid, valid),
        ca.issue(svid(WEB, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        })),
    ];
    node.counting(0, 2 * 5, || {
        for leaf in refused.iter().chain(&refused) {
            assert!(verdict(&authenticator, leaf).is_err());
        }
    });
    let revoked = ca.issue(svid(WEB, |params| params.serial_number = Some(SerialNumber::from(7))));
    let lists = [crl(&ca, &[7], time(now + HOUR))];
    let by_crls = node.by_crls(&ca, &lists, OnDoubt::Deny, OnDoubt::Deny);
    assert_refused(verdict(&by_crls, &revoked), "is revoked");
    assert_eq!(node.verified.entries(), 0);
}

#[test]
fn certificates_that_nobody_has_vouched_for_take_no_room() {
    let (node, ca) = (Node::default(), Ca::new("example.org"));
    let authenticator = node.by_bundle(&[&ca]);
    let now = now();
    let valid = [now - HOUR, now + HOUR];
    let leaf = below(&ca, valid, valid);
    let padding = [
        b"padding".to_vec(),
        Ca::new("stranger").certificate.to_vec(),
        ca.certificate.to_vec(),
        leaf.chain[1].to_vec(),
    ];
    for padding in padding {
        let mut padded = Leaf { chain: leaf.chain.clone(), key: KeyPair::generate().unwrap() };
        padded.chain.push(padding.into());
        node.counting(0, 2, || {
            assert_believed(&authenticator, &padded);
            assert_believed(&authenticator, &padded);
        });
    }
    assert_eq!(node.verified.entries(), 0);
}

/// A claim about a chain that nobody has.
fn claim(number: u64) -> Claim {
    let chain = Fingerprint::of(&number.to_be_bytes());
    let anchors = Fingerprint::of(b"");
    Claim { chain, role: Role::Client, anchors, revocation: None, algorithms: (0, 0) }
}

#[test]
fn what_is_in_use_outlives_any_number_of_others() {
    let chains = VerifiedChains::default();
    let capacity = CAPACITY as u64;
    chains.remember(claim(0), Validity::ALWAYS);
    for number in 1..4 * capacity {
        chains.remember(claim(number), Validity::ALWAYS);
        assert!(chains.entries() <= CAPACITY);
        if number % (capacity / 4) == 0 {
            let found = chains.find(&claim(0), Validity::ALWAYS, at(0));
            assert!(found.is_some(), "after {number} others");
        }
    }
    assert!(chains.entries() >= CAPACITY / 2);
    for number in 1..4 * capacity {
        let is_recent = number >= 4 * capacity - capacity / 2;
        let is_long_gone = number < 3 * capacity;
        let is_there = chains.lock().recent.contains_key(&claim(number))
            || chains.lock().older.contains_key(&claim(number));
        assert!(is_there || !is_recent, "{number}");
        assert!(!is_there || !is_long_gone, "{number}");
    }
}

/// Times after `middle`, at and next to which something may begin or end.
fn moment(middle: u64) -> impl Strategy<Value = u64> {
    (0..6u64, 0..3u64).prop_map(move |(hours, seconds)| middle + hours * HOUR + seconds - 1)
}

/// From one such time to another.
fn span(middle: u64) -> impl Strategy<Value = [u64; 2]> {
    prop::array::uniform2(moment(middle)).prop_map(|[one, two]| [one.min(two), one.max(two)])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With 2050 among the times: from then on certificates write them differently (RFC 5280, 4.1.2.5).
    #[test]
    fn an_answer_is_what_it_would_be_without_proofs(
        (intermediate, leaf, next_updates, moments) in prop_oneof![
            Just(1_900_000_000),
            Just(2_524_608_000 - 3 * HOUR),
        ]
            .prop_flat_map(|middle| (
                span(middle),
                span(middle),
                prop::array::uniform2(moment(middle)),
                prop::collection::vec(moment(middle), 24),
            )),
        crls in prop::option::of(prop::array::uniform2(prop_oneof![
            Just(OnDoubt::Allow),
            Just(OnDoubt::Deny),
        ])),
    ) {
        let (node, ca) = (Node::default(), Ca::new("example.org"));
        let (subordinate, leaf) = subordinate_and_leaf(&ca, intermediate, leaf);
        let lists = [(&ca, next_updates[0]), (&subordinate, next_updates[1])]
            .map(|(issuer, next_update)| crl(issuer, &[], time(next_update)));
        let authenticator = |node: &Node| match crls {
            Some([unknown, expired]) => node.by_crls(&ca, &lists, unknown, expired),
            None => node.by_bundle(&[&ca]),
        };
        let mut believed = 0;
        for now in moments {
            let afresh = verdict_at(&authenticator(&Node::default()), &leaf, Role::Client, now);
            believed += u64::from(afresh.is_ok());
            prop_assert_eq!(verdict_at(&authenticator(&node), &leaf, Role::Client, now), afresh);
        }
        prop_assert_eq!(node.verified.hits(), believed.saturating_sub(1));
    }

    #[test]
    fn a_proof_is_found_by_its_claim_and_at_its_time_only(
        asked in prop::collection::vec((0..40u64, any::<bool>(), 0..100u64), 1..100),
        end in 1..100u64,
    ) {
        let chains = VerifiedChains::default();
        let validity = Validity::before(time(end));
        let mut remembered = std::collections::HashSet::new();
        for (number, remember, now) in asked {
            if remember {
                chains.remember(claim(number), validity);
                remembered.insert(number);
            }
            let holds = |claim: &Claim| chains.find(claim, Validity::ALWAYS, at(now)).is_some();
            let expected = remembered.contains(&number) && now < end;
            prop_assert_eq!(holds(&claim(number)), expected);
            let other = Claim { role: Role::Server, ..claim(number) };
            prop_assert!(!holds(&other));
        }
        prop_assert_eq!(chains.entries(), remembered.len());
    }
}
