//! What is read here is what webpki, the judge of everything else, reads.

use proptest::prelude::*;
use rcgen::{BasicConstraints, CustomExtension, SanType};
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;
use x509_parser::prelude::FromDer;

use super::*;
use crate::trust::testing::{Ca, authority, dns, uri};

/// An authority with constraints, and with names of several kinds.
fn constrained() -> CertificateDer<'static> {
    let mut params = authority("constrained", BasicConstraints::Unconstrained);
    params.subject_alt_names = vec![
        uri("spiffe://example.org"),
        dns("example.org"),
        SanType::IpAddress("10.0.0.1".parse().unwrap()),
    ];
    // Permitted: the URI `a.org`, the DNS name `b.org`. Excluded: the address 10.0.0.0/8.
    let content = b"\x30\x22\xa0\x12\x30\x07\x86\x05a.org\x30\x07\x82\x05b.org\
        \xa1\x0c\x30\x0a\x87\x08\x0a\x00\x00\x00\xff\x00\x00\x00";
    let extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], content.to_vec());
    params.custom_extensions.push(extension);
    Ca::with_params("example.org", &params, rcgen::KeyPair::generate().unwrap()).certificate
}

#[test]
fn what_was_written_is_read() {
    let der = constrained();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let constraints = NameConstraints::of(&certificate).unwrap().unwrap();
    let text = |names: &[Name<'_>]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(text(&constraints.permitted), ["the URI `a.org`", "the dNSName `b.org`"]);
    assert_eq!(text(&constraints.excluded), ["the iPAddress `10.0.0.0/255.0.0.0`"]);
    let names = text(&names_of(&certificate, true).unwrap());
    assert_eq!(names[..2], ["the URI `spiffe://example.org`", "the dNSName `example.org`"]);
    assert_eq!(names.len(), 4, "{names:?}");
}

proptest! {
    /// Nothing is lost that webpki has found.
    #[test]
    fn damage_does_not_make_constraints_or_names_vanish(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut der = constrained().to_vec();
        // Where the extensions are; elsewhere it is somebody else's.
        let start = der.windows(3).position(|bytes| bytes == [0x55, 0x1d, 0x11]).unwrap();
        let end = der.windows(3).rposition(|bytes| bytes == [0x55, 0x1d, 0x1e]).unwrap() + 50;
        for (place, byte) in changes {
            der[start + place.index(end - start)] = byte;
        }
        let der = CertificateDer::from(der);
        let Ok(anchor) = webpki::anchor_from_trusted_cert(&der) else { return Ok(()) };
        let Ok((_, certificate)) = X509Certificate::from_der(&der) else { return Ok(()) };
        if anchor.name_constraints.is_some() {
            prop_assert!(!matches!(NameConstraints::of(&certificate), Ok(None)));
        }
        let Ok(seen) = EndEntityCert::try_from(&der) else { return Ok(()) };
        if let Ok(names) = names_of(&certificate, true) {
            let uris = names.iter().filter_map(|name| match name {
                Name::Uri(uri) => Some(*uri),
                _ => None,
            });
            prop_assert!(seen.valid_uri_names().eq(uris));
        }
    }
}
