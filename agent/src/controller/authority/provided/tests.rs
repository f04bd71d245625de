use super::*;
use crate::controller::authority::state::pem_of;
use crate::trust::testing::{Ca, authority, svid};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};

type Data = BTreeMap<String, ByteString>;

/// A Secret with the certificates of a chain, a key, and roots.
pub fn secret(chain: &[&CertificateDer<'_>], key: &KeyPair, roots: &[&CertificateDer<'_>]) -> Data {
    let all = |certificates: &[&CertificateDer<'_>]| -> String {
        certificates.iter().map(|certificate| pem_of(certificate)).collect()
    };
    let entries = [(CERTIFICATE, all(chain)), (KEY, key.serialize_pem()), (ROOTS, all(roots))];
    entries.map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes()))).into()
}

fn of(ca: &Ca, above: &[&Ca], root: Option<&Ca>) -> Data {
    let chain: Vec<_> = std::iter::once(ca).chain(above.iter().copied()).collect();
    let chain: Vec<_> = chain.iter().map(|ca| &ca.certificate).collect();
    let roots: Vec<_> = root.iter().map(|ca| &ca.certificate).collect();
    secret(&chain, ca.issuer.key(), &roots)
}

fn reason(data: &Data) -> String {
    read(data, SystemTime::now()).unwrap_err().to_string()
}

#[test]
fn a_root_or_what_is_below_one_can_be_used() {
    let root = Ca::new("example.org");
    let alone = read(&of(&root, &[], Some(&root)), SystemTime::now()).unwrap();
    assert_eq!(alone.above.chain, []);
    assert_eq!(alone.above.anchors, std::slice::from_ref(&root.certificate));
    // Without ca.crt, and with the root behind its own, as some write it.
    let said = read(&of(&root, &[], None), SystemTime::now()).unwrap();
    assert_eq!(said.above, alone.above);
    let below = root.intermediate("below", BasicConstraints::Constrained(1));
    for data in [of(&below, &[], Some(&root)), of(&below, &[&root], None)] {
        let issuer = read(&data, SystemTime::now()).unwrap();
        assert_eq!(issuer.above.chain, std::slice::from_ref(&below.certificate));
        assert_eq!(issuer.above.anchors, std::slice::from_ref(&root.certificate));
        assert!(issuer.above.ends > SystemTime::now());
    }
}

#[test]
fn what_is_no_ca_or_of_no_use_is_refused_with_the_reason() {
    let root = Ca::new("example.org");
    let with = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = authority("below", BasicConstraints::Unconstrained);
        change(&mut params);
        let below = root.subordinate(params);
        reason(&of(&below, &[], Some(&root)))
    };
    let without = |entry: &str| {
        let mut data = of(&root, &[], Some(&root));
        data.remove(entry);
        reason(&data)
    };
    let server = {
        let leaf = root.issue(svid("spiffe://example.org/x", |_| {}));
        reason(&secret(&[&leaf.chain[0]], &leaf.key, &[&root.certificate]))
    };
    let mut rubbish = of(&root, &[], None);
    rubbish.insert(CERTIFICATE.to_owned(), ByteString(b"rubbish".to_vec()));
    let other = KeyPair::generate().unwrap();
    let one = root.intermediate("one", BasicConstraints::Unconstrained);
    let two = one.intermediate("two", BasicConstraints::Unconstrained);
    let three = two.intermediate("three", BasicConstraints::Unconstrained);
    let past = SystemTime::now() - std::time::Duration::from_secs(3600);
    let future = SystemTime::now() + std::time::Duration::from_secs(3600);
    for (found, words) in [
        (server, "`isCA: true`"),
        (with(&|params| params.is_ca = IsCa::NoCa), "is no authority"),
        (with(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))), "allows 0"),
        (with(&|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]), "no keyCertSign"),
        (with(&|params| params.not_after = past.into()), "has ended"),
        (with(&|params| params.not_before = future.into()), "is not valid yet"),
        (without(CERTIFICATE), "it has no `tls.crt`"),
        (without(KEY), "it has no `tls.key`"),
        (reason(&rubbish), "its `tls.crt`"),
        (reason(&secret(&[&root.certificate], &other, &[])), "does not belong to the key"),
        (reason(&of(&one, &[], None)), "it has no root"),
        (reason(&of(&three, &[&two, &one], Some(&root))), "more than 2 certificates"),
    ] {
        assert!(found.contains(words), "{words}: {found}");
    }
    // Two below it: it has to allow as many.
    let narrow = root.intermediate("narrow", BasicConstraints::Constrained(1));
    let below = narrow.intermediate("below", BasicConstraints::Unconstrained);
    let found = reason(&of(&below, &[&narrow], Some(&root)));
    assert!(found.contains("allows 1 authorities below it (pathlen), and 2 are needed"), "{found}");
}
