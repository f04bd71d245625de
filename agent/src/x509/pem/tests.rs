use super::*;
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair};

fn made() -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    (CertificateParams::new(vec!["web".to_owned()]).unwrap().self_signed(&key).unwrap(), key)
}

#[test]
fn certificates_and_the_key_are_found_among_other_sections() {
    let (certificate, key) = made();
    let text =
        format!("# comment\n{}\n{}{}", certificate.pem(), key.serialize_pem(), certificate.pem());
    assert_eq!(certificates(text.as_bytes()).unwrap(), vec![certificate.der().clone(); 2]);
    let found = private_key(text.as_bytes()).unwrap();
    assert_eq!(found.secret_der(), key.serialize_der());
}

#[test]
fn what_is_missing_or_doubled_is_named() {
    let (certificate, key) = made();
    let pem = certificate.pem();
    assert_eq!(certificates(b"nothing"), Err(X509Error::NoCertificate));
    assert_eq!(private_key(pem.as_bytes()).unwrap_err(), X509Error::NoKey);
    let twice = key.serialize_pem().repeat(2);
    assert_eq!(private_key(twice.as_bytes()).unwrap_err(), X509Error::SeveralKeys);
    assert_eq!(crls(b"nothing"), Err(X509Error::NoCrl));
    assert!(matches!(crls(pem.as_bytes()), Err(X509Error::Misplaced { line: 1, .. })));
    let cut = &pem[..pem.len() / 2];
    assert!(matches!(certificates(cut.as_bytes()), Err(X509Error::Pem(_))));
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(certificates(nonsense.as_bytes()), Err(X509Error::BadCertificate(1)));
}

#[test]
fn keys_are_found_in_every_shape_that_programs_give_them() {
    let key = made().1;
    let (pem, der) = (key.serialize_pem(), key.serialize_der());
    let joined: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    for text in [
        pem.replace('\n', "\r\n"),
        pem.replace('\n', " \n\n"),
        pem.trim_end().to_owned(),
        format!("-----BEGIN PRIVATE KEY-----\n{joined}\n-----END PRIVATE KEY-----"),
        format!(
            "-----BEGIN X9.42 DH PARAMETERS-----\n???\n-----END X9.42 DH PARAMETERS-----\n{pem}"
        ),
    ] {
        assert_eq!(private_key(text.as_bytes()).unwrap().secret_der(), der, "{text}");
    }
    for (label, is_it) in [
        ("RSA PRIVATE KEY", matches!(shape("RSA PRIVATE KEY", &pem), PrivateKeyDer::Pkcs1(_))),
        ("EC PRIVATE KEY", matches!(shape("EC PRIVATE KEY", &pem), PrivateKeyDer::Sec1(_))),
    ] {
        assert!(is_it, "{label}");
    }
    for text in [
        pem.replace("-----END PRIVATE", "-----END OTHER"),
        pem.replacen('\n', "\nX-Proc-Type: 4,CLEAR\n", 1),
        pem.replace("KEY-----\n", "KEY----\n"),
    ] {
        assert!(matches!(private_key(text.as_bytes()), Err(X509Error::Pem(_))), "{text}");
    }
}

fn shape(label: &str, pem: &str) -> PrivateKeyDer<'static> {
    private_key(pem.replace("PRIVATE KEY", label).as_bytes()).unwrap().clone_key()
}

/// A key that has lost its line breaks is one long first line.
#[test]
fn errors_do_not_repeat_what_the_file_holds() {
    let key = made().1.serialize_pem().replace('\n', "");
    for text in [key.clone(), key.replace("KEY-----", "KEY----")] {
        let error = private_key(text.as_bytes()).unwrap_err();
        assert!(matches!(error, X509Error::Pem(_)), "{error}");
        let said = format!("{error} {error:?}");
        assert!(said.chars().filter(char::is_ascii_digit).count() < 4, "{said}");
    }
}

#[test]
fn concatenated_der_is_taken_apart() {
    let (certificate, _) = made();
    let one = certificate.der();
    let both = [one.as_ref(), one.as_ref()].concat();
    assert_eq!(concatenated_certificates(&both).unwrap(), vec![one.clone(); 2]);
    assert_eq!(concatenated_certificates(&[]), Err(X509Error::NoCertificate));
    let cut = &both[..both.len() - 1];
    assert_eq!(concatenated_certificates(cut), Err(X509Error::BadCertificate(2)));
}

#[test]
fn no_entry_of_a_file_is_lost_without_a_word() {
    let certificate = made().0;
    let pem = certificate.pem();
    let joined = format!("{}{pem}", pem.trim_end());
    for text in [joined.clone(), format!("\u{feff}{joined}"), joined.replace("CERT", "X509 CERT")] {
        assert_eq!(
            certificates(text.as_bytes()).unwrap(),
            vec![certificate.der().clone(); 2],
            "{text}"
        );
    }
    for (label, wanted) in [
        ("TRUSTED CERTIFICATE", "openssl x509"),
        ("X509 CRL", "no place in a file of certificates"),
        ("PKCS7", "begins a section `PKCS7`"),
    ] {
        let text = format!("{pem}{}", pem.replace("CERTIFICATE", label));
        let error = certificates(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(wanted), "{label}: {error}");
    }
    assert_eq!(certificates(certificate.der()), Err(X509Error::Der));
}

#[test]
fn an_encrypted_key_is_said_to_be_one() {
    let pem = made().1.serialize_pem();
    for text in [
        pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
        pem.replace("PRIVATE KEY", "EC PRIVATE KEY").replacen(
            '\n',
            "\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n",
            1,
        ),
    ] {
        assert_eq!(private_key(text.as_bytes()).unwrap_err(), X509Error::EncryptedKey, "{text}");
    }
    let text = pem.replace("PRIVATE KEY", "OPENSSH PRIVATE KEY");
    assert!(private_key(text.as_bytes()).unwrap_err().to_string().contains("ssh-keygen"));
}

proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (certificates(&bytes), concatenated_certificates(&bytes), crls(&bytes));
        let _ = private_key(&bytes);
    }
}

/// DER has no BEGIN lines: what is behind one list must not be lost either.
#[test]
fn two_lists_in_der_are_not_taken_for_one() {
    use crate::trust::testing::{Ca, crl};
    use crate::trust::{OnDoubt, Revocation};
    let ca = Ca::new("example.org");
    let list = crl(&ca, &[7], std::time::SystemTime::now());
    let usable = |der: &[u8]| {
        let lists = crls(der).unwrap();
        Revocation::new(&lists, OnDoubt::Allow, OnDoubt::Deny).is_ok()
    };
    assert!(usable(&list));
    assert!(!usable(&[list.as_ref(), list.as_ref()].concat()));
}

/// What files are made of: a certificate, a key, a CRL and parameters, and what stands between them.
fn pieces() -> &'static [String] {
    static PIECES: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    PIECES.get_or_init(|| {
        let (certificate, key) = made();
        let certificate = certificate.pem();
        vec![
            certificate.trim_end().to_owned(),
            certificate.clone(),
            certificate.replace("CERTIFICATE", "X509 CERTIFICATE"),
            certificate.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
            certificate.replace("CERTIFICATE", "X509 CRL").trim_end().to_owned(),
            certificate.replace("CERTIFICATE", "X509 CRL"),
            key.serialize_pem(),
            key.serialize_pem().trim_end().to_owned(),
            certificate.replace("CERTIFICATE", "DH PARAMETERS"),
            "\n".to_owned(),
            "\r\n# text\r\n".to_owned(),
            "\u{feff}".to_owned(),
            "-----BEGIN CERTIFICATE-----\n".to_owned(),
            "-----END CERTIFICATE-----".to_owned(),
        ]
    })
}

proptest! {
    /// Whatever is joined, and wherever a character is lost or doubled: all of it is read, or none.
    #[test]
    fn no_entry_is_lost_from_a_file_that_is_accepted(
        parts in proptest::collection::vec(0..14_usize, 0..6),
        spot: prop::sample::Index,
        damage in 0..3_usize,
    ) {
        let mut text: String = parts.iter().map(|part| pieces()[*part].as_str()).collect();
        let at = text.char_indices().map(|(at, _)| at).nth(spot.index(text.chars().count().max(1)));
        match (at, damage) {
            (Some(at), 1) => drop(text.remove(at)),
            (Some(at), 2) => text.insert(at, text[at..].chars().next().unwrap_or('-')),
            _ => {}
        }
        let begun = |words: &[&str]| -> usize {
            let labels = text.split("-----BEGIN ").skip(1).filter_map(|rest| rest.split("-----").next());
            labels.filter(|label| words.iter().any(|word| label.contains(word))).count()
        };
        let all = text.matches("-----BEGIN").count();
        let beside = begun(&["PRIVATE KEY", "PARAMETERS"]);
        if let Ok(found) = certificates(text.as_bytes()) {
            prop_assert_eq!(found.len() + beside, all);
        }
        if let Ok(found) = crls(text.as_bytes()) {
            prop_assert_eq!(found.len(), all);
        }
        if private_key(text.as_bytes()).is_ok() {
            prop_assert_eq!(begun(&["PRIVATE KEY"]), 1);
            prop_assert_eq!(begun(&["CERTIFICATE", "PRIVATE KEY", "PARAMETERS"]), all);
        }
    }
}
