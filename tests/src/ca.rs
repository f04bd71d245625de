//! Certificates: the agents' own authority, and authorities of strangers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};

use crate::binaries;
use crate::netns::must_succeed;

/// A certificate authority for one trust domain.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    dir: Option<PathBuf>,
}

/// A leaf certificate with its key.
#[derive(Debug)]
pub struct Leaf {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Leaf {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Ca {
    /// Runs `sheath ca init` and loads what it wrote.
    pub fn init(dir: &Path, trust_domain: &str) -> Self {
        must_succeed(
            Command::new(binaries::sheath())
                .args(["ca", "init", "--trust-domain", trust_domain, "--dir"])
                .arg(dir),
        );
        let read = |name| fs::read_to_string(dir.join(name)).expect("what `sheath ca init` wrote");
        let key = KeyPair::from_pem(&read("ca.key")).expect("ca.key");
        let issuer = Issuer::from_ca_cert_pem(&read("ca.crt"), key).expect("ca.crt");
        Self { issuer, dir: Some(dir.to_owned()) }
    }

    /// An authority no agent trusts, whatever trust domain it claims to speak for.
    pub fn stranger(trust_domain: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "a stranger's authority");
        params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))];
        let key = KeyPair::generate().expect("a key");
        Self { issuer: Issuer::new(params, key), dir: None }
    }

    /// Copies the authority's files, as an operator does for a second node.
    pub fn copy_to(&self, target: &Path) {
        let dir = self.dir.as_ref().expect("an authority made by `sheath ca init`");
        fs::create_dir_all(target).expect("the copy's directory");
        for name in ["ca.crt", "ca.key"] {
            fs::copy(dir.join(name), target.join(name)).expect("copying the authority");
        }
    }

    /// A certificate that is valid now.
    pub fn issue(&self, spiffe_id: &str) -> Leaf {
        let now = OffsetDateTime::now_utc();
        self.issue_for(spiffe_id, now - Duration::hours(1), now + Duration::hours(1))
    }

    /// A certificate that was valid until an hour ago.
    pub fn issue_expired(&self, spiffe_id: &str) -> Leaf {
        let now = OffsetDateTime::now_utc();
        self.issue_for(spiffe_id, now - Duration::hours(3), now - Duration::hours(1))
    }

    fn issue_for(&self, spiffe_id: &str, from: OffsetDateTime, until: OffsetDateTime) -> Leaf {
        let mut params = CertificateParams::default();
        params.not_before = from;
        params.not_after = until;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![uri(spiffe_id)];
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &self.issuer).expect("a certificate");
        Leaf {
            chain: vec![leaf.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).expect("a PKCS#8 key"),
        }
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("an ASCII URI"))
}
