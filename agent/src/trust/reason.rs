//! Reasons why a chain or a CRL is refused, for operators: the library's own texts are names from its code.

use rustls_pki_types::UnixTime;
use webpki::Error;

/// Why webpki refuses something. The text goes on after "does not chain to ...: ".
#[must_use]
pub fn reason(error: &Error) -> String {
    match error {
        Error::CertExpired { not_after, .. } => {
            return format!("a certificate has expired, at {}", time(*not_after));
        }
        Error::CertNotValidYet { not_before, .. } => {
            return format!("a certificate is not valid before {}", time(*not_before));
        }
        Error::CrlExpired { next_update, .. } => {
            return format!("a CRL is overdue since {}", time(*next_update));
        }
        _ => {}
    }
    named(error).to_owned()
}

fn named(error: &Error) -> &'static str {
    match error {
        Error::UnknownIssuer => {
            "it is issued by an authority that is not known here, or an intermediate was not sent"
        }
        Error::CertRevoked => "a certificate is revoked",
        Error::UnknownRevocationStatus => "no CRL here tells whether a certificate is revoked",
        Error::CertDistrusted => "a certificate is not to be trusted any more",
        Error::CaUsedAsEndEntity => "the peer's own certificate is that of an authority",
        Error::EndEntityUsedAsCa => "a certificate was issued by one that is no authority",
        Error::PathLenConstraintViolated => {
            "there are more intermediates than an authority allows (pathLenConstraint)"
        }
        Error::NameConstraintViolation => {
            "a name lies outside the name constraints of an authority"
        }
        Error::UnsupportedNameType
        | Error::MalformedNameConstraint
        | Error::InvalidNetworkMaskConstraint => {
            "an authority has name constraints of a kind that cannot be checked here"
        }
        Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => {
            "the extended key usage lacks what the certificate is used for (clientAuth or serverAuth)"
        }
        Error::InvalidSignatureForPublicKey | Error::SignatureAlgorithmMismatch => {
            "a signature in it is wrong"
        }
        Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            "a certificate is signed by a key or an algorithm that is not accepted here"
        }
        Error::UnsupportedCriticalExtension => {
            "a certificate has a critical extension that is not known here"
        }
        Error::UnsupportedCertVersion => "a certificate is not of X.509 version 3",
        Error::InvalidCertValidity => "a certificate ends before it begins",
        Error::MaximumNameConstraintComparisonsExceeded
        | Error::MaximumPathBuildCallsExceeded
        | Error::MaximumPathDepthExceeded
        | Error::MaximumSignatureChecksExceeded => "the chain takes too much work to verify",
        Error::CertNotValidForName(_) => "the certificate is for another name",
        Error::InvalidCrlSignatureForPublicKey => "the signature of a CRL is wrong",
        Error::IssuerNotCrlSigner => {
            "an authority signs CRLs, but its certificate does not let it (cRLSign)"
        }
        Error::UnsupportedDeltaCrl => "it is a delta CRL, which is not supported",
        Error::UnsupportedIndirectCrl => "it is an indirect CRL, which is not supported",
        Error::UnsupportedCrlVersion => "it is not of CRL version 2",
        Error::InvalidCrlNumber => "its number is not one (crlNumber)",
        Error::UnsupportedCrlIssuingDistributionPoint
        | Error::UnsupportedRevocationReason
        | Error::UnsupportedRevocationReasonsPartitioning => {
            "it is about some certificates or reasons only, which is not supported"
        }
        Error::UnsupportedCrlSignatureAlgorithmContext(_)
        | Error::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => {
            "it is signed by a key or an algorithm that is not accepted here"
        }
        Error::BadDer
        | Error::BadDerTime
        | Error::TrailingData(_)
        | Error::ExtensionValueInvalid
        | Error::MalformedExtensions
        | Error::MalformedDnsIdentifier
        | Error::InvalidSerialNumber => "it is malformed",
        _ => "it breaks a rule of X.509",
    }
}

/// In RFC 3339.
fn time(time: UnixTime) -> impl std::fmt::Display {
    let since_epoch = std::time::Duration::from_secs(time.as_secs().min(LAST));
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since_epoch)
}

/// 9999-12-31T23:59:59Z, after which there is no time in a certificate (RFC 5280, 4.1.2.5.2).
const LAST: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told() {
        let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let expired = Error::CertExpired { time: at(9), not_after: at(1_900_000_000) };
        assert_eq!(reason(&expired), "a certificate has expired, at 2030-03-17T17:46:40Z");
        let never = Error::CrlExpired { time: at(0), next_update: at(u64::MAX) };
        assert_eq!(reason(&never), "a CRL is overdue since 9999-12-31T23:59:59Z");
    }

    #[test]
    fn no_name_of_the_library_is_in_a_reason() {
        for error in
            [Error::UnknownIssuer, Error::CertRevoked, Error::UnsupportedDeltaCrl, Error::BadDer]
        {
            assert!(!reason(&error).contains(&format!("{error:?}")), "{error:?}");
        }
    }
}
