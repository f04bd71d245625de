//! Alerts (RFC 8446, 6).

use std::fmt;

/// An `AlertDescription`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Alert(pub u8);

/// The alert that ends one direction in order, as the content of a record.
pub const CLOSE_NOTIFY: [u8; 2] = Alert::CLOSE_NOTIFY.content();

impl Alert {
    pub const CLOSE_NOTIFY: Self = Self(0);
    pub const UNEXPECTED_MESSAGE: Self = Self(10);
    pub const BAD_RECORD_MAC: Self = Self(20);
    pub const RECORD_OVERFLOW: Self = Self(22);
    pub const ILLEGAL_PARAMETER: Self = Self(47);
    pub const DECODE_ERROR: Self = Self(50);
    pub const INTERNAL_ERROR: Self = Self(80);
    pub const USER_CANCELED: Self = Self(90);

    /// As the content of a record. The level says nothing any more, but has to be there.
    #[must_use]
    pub const fn content(self) -> [u8; 2] {
        const WARNING: u8 = 1;
        const FATAL: u8 = 2;
        let is_closure = self.0 == Self::CLOSE_NOTIFY.0 || self.0 == Self::USER_CANCELED.0;
        [if is_closure { WARNING } else { FATAL }, self.0]
    }

    /// The name that the standards give it, and what a peer means by it.
    fn meaning(self) -> Option<(&'static str, &'static str)> {
        let known = MEANINGS.iter().find(|(number, _, _)| *number == self.0);
        known.map(|(_, name, meaning)| (*name, *meaning))
    }
}

/// What the alerts of a peer mean, and what to do about them (RFC 8446, 6 and the IANA registry of alerts). Many are about
/// our own certificate, so it is the peer's log that says more.
const MEANINGS: [(u8, &str, &str); 31] = [
    (0, "close_notify", "it closed the session"),
    (10, "unexpected_message", "it got a message that has no place there; its log may say more"),
    (20, "bad_record_mac", "a record was damaged on the way to it"),
    (21, "decryption_failed", "a record was damaged on the way to it"),
    (22, "record_overflow", "it takes only shorter records"),
    (30, "decompression_failure", "it wants compression, which TLS has no more"),
    (
        40,
        "handshake_failure",
        "it has no cipher suite, group or signature algorithm in common with this side, or wants a certificate",
    ),
    (41, "no_certificate", "it wants a certificate; see `certificate`"),
    (42, "bad_certificate", "it refuses our certificate; its log says why"),
    (43, "unsupported_certificate", "it does not take certificates of the kind of ours"),
    (44, "certificate_revoked", "our certificate is on a CRL of its"),
    (45, "certificate_expired", "our certificate has expired, or its clock is wrong"),
    (46, "certificate_unknown", "it refuses our certificate; its log says why"),
    (47, "illegal_parameter", "it does not take a parameter of this side's"),
    (48, "unknown_ca", "it does not know the authority that issued our certificate"),
    (49, "access_denied", "it knows who we are, and does not let us in"),
    (50, "decode_error", "it could not read a message"),
    (51, "decrypt_error", "it found a signature or a key wrong"),
    (60, "export_restriction", "it wants cryptography that is withdrawn"),
    (
        70,
        "protocol_version",
        "it speaks none of the TLS versions that are offered; see `minVersion`",
    ),
    (71, "insufficient_security", "it wants stronger cipher suites or groups"),
    (80, "internal_error", "something failed on its side; its log says what"),
    (86, "inappropriate_fallback", "it takes this for an older version of TLS than need be"),
    (90, "user_canceled", "it gave up"),
    (100, "no_renegotiation", "it was asked to negotiate anew, which it does not"),
    (109, "missing_extension", "it misses an extension in what this side sent"),
    (110, "unsupported_extension", "it got an extension that it did not ask for"),
    (112, "unrecognized_name", "it does not know the server name that it was asked for; see `sni`"),
    (115, "unknown_psk_identity", "it does not know a key that was agreed on before"),
    (116, "certificate_required", "it wants a certificate, and was shown none; see `certificate`"),
    (
        120,
        "no_application_protocol",
        "it speaks none of the protocols that are offered; see `alpn`",
    ),
];

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.meaning() {
            Some((name, meaning)) => write!(f, "{name}: {meaning}"),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.meaning() {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}
