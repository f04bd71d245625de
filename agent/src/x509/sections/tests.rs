use super::*;
use proptest::prelude::*;

const ONE: &str = "-----BEGIN X509 CRL-----\nAAAA\nBBBB\n-----END X509 CRL-----\n";

fn labels(text: &str) -> Result<Vec<&str>, PemError> {
    sections(text.as_bytes()).map(|found| found.iter().map(|section| section.label).collect())
}

#[test]
fn every_section_is_found_however_files_were_joined_and_written() {
    let joined = format!("{}{ONE}", ONE.trim_end());
    for text in [
        ONE.repeat(2),
        joined.clone(),
        joined.replace('\n', "\r\n"),
        joined.replace('\n', "\r"),
        joined.replace('\n', " \n\n"),
        format!("\u{feff}{joined}"),
        format!("{ONE}\u{feff}{ONE}"),
        format!("{}\u{feff}{ONE}", ONE.trim_end()),
        format!("# first\n{ONE}Issuer: x\n\n{}", ONE.trim_end()),
        joined.replace("-----BEGIN", "  -----BEGIN"),
    ] {
        assert_eq!(labels(&text), Ok(vec!["X509 CRL"; 2]), "{text:?}");
        for section in sections(text.as_bytes()).unwrap() {
            let body: Vec<u8> =
                section.body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
            assert_eq!(body, b"AAAABBBB", "{text:?}");
        }
    }
}

#[test]
fn a_text_of_which_a_section_would_be_lost_is_refused() {
    for (text, expected) in [
        (ONE.replace("CRL-----\nA", "CRL----\nA"), PemError::BadBegin(1)),
        (ONE.replacen('\n', "", 1), PemError::BadBegin(1)),
        (ONE.replace("BEGIN X509", "BEGIN x509"), PemError::BadBegin(1)),
        (ONE.replace("BEGIN X509 CRL", "BEGIN "), PemError::BadBegin(1)),
        (ONE.replace("BEGIN", "Begin"), PemError::BadBegin(1)),
        (format!("the CRL: {ONE}"), PemError::BadBegin(1)),
        (ONE.replace("-----BEGIN", "----BEGIN"), PemError::NoBegin(4)),
        (format!("{ONE}{ONE}").replacen("-----END", "----END", 1), PemError::NoEnd(1)),
        (ONE.replace("END X509 CRL-----", "END X509 CRL----"), PemError::BadEnd(4)),
        (ONE.replace("END X509 CRL-----", "END X509 CRL----- AAAA"), PemError::BadEnd(4)),
        (ONE.replace("\n-----END", "-----END"), PemError::BadEnd(3)),
        (ONE.replace("END X509 CRL", "END CERTIFICATE"), PemError::OtherEnd { begin: 1, line: 4 }),
        (ONE[..ONE.len() / 2].to_owned(), PemError::NoEnd(1)),
        (format!("{ONE}{}", &ONE[..20]), PemError::BadBegin(5)),
    ] {
        assert_eq!(labels(&text), Err(expected), "{text:?}");
    }
    let utf_16: Vec<u8> = ONE.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(sections(&[b"\xff\xfe".as_slice(), &utf_16].concat()).err(), Some(PemError::Utf16));
}

proptest! {
    /// Whatever is done to a file: as many sections as it has BEGIN lines, or none.
    #[test]
    fn there_are_as_many_sections_as_begin_lines(
        parts in proptest::collection::vec(prop_oneof![
            Just("-----BEGIN X509 CRL-----"), Just("-----END X509 CRL-----"), Just("\n"), Just("\r\n"), Just("AAAA"),
            Just("-----BEGIN A-----\nAAAA\n-----END A-----"), Just("\u{feff}"), Just(" "), Just("-"), Just("-----"),
            Just("BEGIN "), Just("END "), Just("text"),
        ], 0..24),
    ) {
        let text = parts.concat();
        if let Ok(found) = sections(text.as_bytes()) {
            prop_assert_eq!(found.len(), text.matches("-----BEGIN").count());
        }
    }

    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = sections(&bytes);
    }
}
