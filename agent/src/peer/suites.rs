//! The cipher suites and key agreements that there are, by the names that IANA and OpenSSL give them.

use rustls::SupportedCipherSuite;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};

/// Between agents: TLS 1.3 alone. The first group resists an attacker who records today and has a quantum
/// computer later.
#[must_use]
pub fn crypto_provider() -> CryptoProvider {
    provider(
        SUITES.iter().map(|suite| suite.suite).filter(|suite| suite.tls13().is_some()).collect(),
        GROUPS.iter().map(|group| group.group).collect(),
    )
}

pub(super) fn provider(
    cipher_suites: Vec<SupportedCipherSuite>,
    kx_groups: Vec<&'static dyn SupportedKxGroup>,
) -> CryptoProvider {
    CryptoProvider { cipher_suites, kx_groups, ..aws_lc_rs::default_provider() }
}

/// A cipher suite by its names.
pub(super) struct Suite {
    pub suite: SupportedCipherSuite,
    pub iana: &'static str,
    pub openssl: Option<&'static str>,
}

/// A key agreement by its names.
pub(super) struct Group {
    pub group: &'static dyn SupportedKxGroup,
    pub names: &'static [&'static str],
}

/// The names of all cipher suites that there are to choose from.
pub fn suite_names() -> impl Iterator<Item = &'static str> {
    SUITES.iter().flat_map(|suite| [Some(suite.iana), suite.openssl]).flatten()
}

/// The names of all key agreements that there are to choose from.
pub fn curve_names() -> impl Iterator<Item = &'static str> {
    GROUPS.iter().flat_map(|group| group.names.iter().copied())
}

/// In order of preference. Without forward secrecy or without an AEAD there is nothing to choose.
pub(super) static SUITES: [Suite; 9] = [
    Suite {
        suite: aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        iana: "TLS_AES_128_GCM_SHA256",
        openssl: None,
    },
    Suite {
        suite: aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        iana: "TLS_AES_256_GCM_SHA384",
        openssl: None,
    },
    Suite {
        suite: aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        iana: "TLS_CHACHA20_POLY1305_SHA256",
        openssl: None,
    },
    Suite {
        suite: aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        iana: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        openssl: Some("ECDHE-ECDSA-AES128-GCM-SHA256"),
    },
    Suite {
        suite: aws_lc_rs::cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        iana: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        openssl: Some("ECDHE-RSA-AES128-GCM-SHA256"),
    },
    Suite {
        suite: aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        iana: "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        openssl: Some("ECDHE-ECDSA-AES256-GCM-SHA384"),
    },
    Suite {
        suite: aws_lc_rs::cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        iana: "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        openssl: Some("ECDHE-RSA-AES256-GCM-SHA384"),
    },
    Suite {
        suite: aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        iana: "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        openssl: Some("ECDHE-ECDSA-CHACHA20-POLY1305"),
    },
    Suite {
        suite: aws_lc_rs::cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        iana: "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        openssl: Some("ECDHE-RSA-CHACHA20-POLY1305"),
    },
];

pub(super) static GROUPS: [Group; 4] = [
    Group { group: aws_lc_rs::kx_group::X25519MLKEM768, names: &["X25519MLKEM768"] },
    Group { group: aws_lc_rs::kx_group::X25519, names: &["X25519"] },
    Group {
        group: aws_lc_rs::kx_group::SECP256R1,
        names: &["P-256", "secp256r1", "prime256v1", "CurveP256"],
    },
    Group { group: aws_lc_rs::kx_group::SECP384R1, names: &["P-384", "secp384r1", "CurveP384"] },
];
