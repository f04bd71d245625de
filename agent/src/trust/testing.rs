//! Authorities and certificates for unit tests.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};

use super::{Authenticator, Method, PeerChain, Trust, TrustBundle};
use crate::flow::Role;

/// An authority of a trust domain.
pub struct Ca {
    pub domain: String,
    pub certificate: CertificateDer<'static>,
    pub issuer: Issuer<'static, KeyPair>,
}

/// A leaf with its chain up to but without the authority.
pub struct Leaf {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: KeyPair,
}

impl Leaf {
    pub fn peer(&self) -> PeerChain<'_> {
        let (leaf, intermediates) = self.chain.split_first().unwrap();
        PeerChain { leaf, intermediates }
    }

    pub fn certified(&self) -> Arc<CertifiedKey> {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        Arc::new(CertifiedKey::from_der(self.chain.clone(), key, &provider()).unwrap())
    }
}

pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

/// An SVID as it should be, but for `change`.
pub fn svid(id: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(id)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    params
}

pub fn authority(name: &str, constraints: BasicConstraints) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Ca {
    pub fn new(domain: &str) -> Self {
        Self::with_key(domain, &format!("CA of {domain}"), KeyPair::generate().unwrap())
    }

    pub fn with_key(domain: &str, name: &str, key: KeyPair) -> Self {
        Self::with_params(domain, &authority(name, BasicConstraints::Unconstrained), key)
    }

    pub fn with_params(domain: &str, params: &CertificateParams, key: KeyPair) -> Self {
        let certificate = params.self_signed(&key).unwrap();
        let certificate = certificate.der().clone();
        Self {
            domain: domain.to_owned(),
            issuer: Issuer::from_ca_cert_der(&certificate, key).unwrap(),
            certificate,
        }
    }

    /// An authority below this one.
    pub fn intermediate(&self, name: &str, constraints: BasicConstraints) -> Self {
        self.subordinate(authority(name, constraints))
    }

    pub fn subordinate(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let certificate = certificate.der().clone();
        Self {
            domain: self.domain.clone(),
            issuer: Issuer::from_ca_cert_der(&certificate, key).unwrap(),
            certificate,
        }
    }

    pub fn issue(&self, params: CertificateParams) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { chain: vec![certificate.der().clone()], key }
    }

    pub fn bundle(&self) -> Arc<TrustBundle> {
        let domain = self.domain.parse().unwrap();
        Arc::new(TrustBundle::new(domain, vec![self.certificate.clone()]).unwrap())
    }

    pub fn trust(&self) -> Trust {
        Trust::of_bundles([self.bundle()])
    }
}

/// What everybody here verifies signatures with.
fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

pub fn authenticator(trust: Trust) -> Authenticator {
    Authenticator { trust, algorithms: provider().signature_verification_algorithms }
}

/// The SPIFFE ID that a leaf proves at a time, or why it proves none.
pub fn authenticate(
    authenticator: &Authenticator,
    leaf: &Leaf,
    role: Role,
    now: UnixTime,
) -> Result<String, String> {
    let candidate = authenticator.candidate(leaf.peer(), role, now);
    let identity = candidate.and_then(|candidate| candidate.authenticate(Method::Svid));
    identity
        .map(|identity| identity.spiffe_id().unwrap().to_string())
        .map_err(|error| error.to_string())
}

/// A CRL of `ca` that revokes some serial numbers.
pub fn crl(
    ca: &Ca,
    serials: &[u64],
    next_update: SystemTime,
) -> CertificateRevocationListDer<'static> {
    let revoked = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: SystemTime::now().into(),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: (SystemTime::now() - Duration::from_secs(7200)).into(),
        next_update: next_update.into(),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&ca.issuer).unwrap().der().clone()
}
