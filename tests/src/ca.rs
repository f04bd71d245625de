//! Certificates: the agents' own authority, and authorities of strangers; in memory, and as PEM files
//! for programs that read them.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use time::{Duration, OffsetDateTime};

use crate::binaries;
use crate::netns::must_succeed;

/// A certificate authority for one trust domain, or for none.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pem: String,
    /// What stands between its leaves and a root.
    chain: Vec<CertificateDer<'static>>,
    dir: Option<PathBuf>,
}

/// A leaf certificate with its key.
#[derive(Debug)]
pub struct Leaf {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    serial: SerialNumber,
    serial_text: String,
    certificate_pem: String,
    key_pem: String,
}

impl Clone for Leaf {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            serial: self.serial.clone(),
            serial_text: self.serial_text.clone(),
            certificate_pem: self.certificate_pem.clone(),
            key_pem: self.key_pem.clone(),
        }
    }
}

/// A certificate and its key in PEM files.
#[derive(Clone, Debug, Serialize)]
pub struct PemFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Leaf {
    /// The certificate in PEM, with what stands between it and a root.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The serial number in hexadecimal, as agents name it.
    pub fn serial(&self) -> &str {
        &self.serial_text
    }

    /// Writes `tls.crt` and `tls.key` into a directory.
    pub fn write(&self, dir: &Path) -> PemFiles {
        let files = PemFiles::in_dir(dir);
        fs::write(&files.certificate, &self.certificate_pem).expect("the certificate's file");
        let mut key = private_file(&files.key);
        key.write_all(self.key_pem.as_bytes()).expect("the key's file");
        files
    }
}

impl PemFiles {
    /// `tls.crt` and `tls.key` in a directory, which is made.
    pub fn in_dir(dir: &Path) -> Self {
        fs::create_dir_all(dir).expect("the directory of a certificate");
        Self { certificate: dir.join("tls.crt"), key: dir.join("tls.key") }
    }
}

/// A name in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum San {
    Uri(String),
    Dns(String),
}

impl San {
    pub fn dns(name: &str) -> Self {
        Self::Dns(name.to_owned())
    }

    fn to_rcgen(&self) -> SanType {
        match self {
            Self::Uri(text) => SanType::URI(text.as_str().try_into().expect("an ASCII URI")),
            Self::Dns(name) => SanType::DnsName(name.as_str().try_into().expect("a DNS name")),
        }
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
        Self::load(dir, 1)
    }

    /// A root in the directory of an embedded CA, by its number.
    pub fn load(dir: &Path, number: u32) -> Self {
        let name = if number == 1 { "ca".to_owned() } else { format!("ca-{number}") };
        let read = |extension: &str| {
            let file = dir.join(format!("{name}.{extension}"));
            fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        };
        let key = KeyPair::from_pem(&read("key")).expect("the root's key");
        let pem = read("crt");
        let issuer = Issuer::from_ca_cert_pem(&pem, key).expect("the root's certificate");
        Self { issuer, pem, chain: Vec::new(), dir: Some(dir.to_owned()) }
    }

    /// An authority no agent trusts, whatever trust domain it claims to speak for.
    pub fn stranger(trust_domain: &str) -> Self {
        Self::named("a stranger's authority", trust_domain)
    }

    /// An authority of a trust domain, with a name of its own.
    pub fn named(name: &str, trust_domain: &str) -> Self {
        Self::self_signed(authority(name, &[San::Uri(format!("spiffe://{trust_domain}"))]))
    }

    /// The same, valid for so long from now on.
    pub fn short(name: &str, trust_domain: &str, life: std::time::Duration) -> Self {
        let mut params = authority(name, &[San::Uri(format!("spiffe://{trust_domain}"))]);
        params.not_after = OffsetDateTime::now_utc() + life;
        Self::self_signed(params)
    }

    /// An authority that knows nothing of SPIFFE, as many an enterprise has one.
    pub fn private() -> Self {
        Self::self_signed(authority("a private authority", &[]))
    }

    fn self_signed(params: CertificateParams) -> Self {
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem, chain: Vec::new(), dir: None }
    }

    /// An authority that this one vouches for. Its leaves bring its certificate along.
    pub fn intermediate(&self, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name = common_name(name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let chain = vec![certificate.der().clone()];
        Self { issuer: Issuer::new(params, key), pem: certificate.pem(), chain, dir: None }
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("a certificate")
    }

    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// Writes the authority's own certificate to a file, for those who trust it.
    pub fn write_certificate(&self, file: &Path) {
        fs::write(file, &self.pem).expect("the authority's certificate");
    }

    /// Copies the authority's files, as an operator does for a second node.
    pub fn copy_to(&self, target: &Path) {
        let dir = self.dir.as_ref().expect("an authority made by `sheath ca init`");
        fs::create_dir_all(target).expect("the copy's directory");
        for name in ["ca.crt", "ca.key"] {
            fs::copy(dir.join(name), target.join(name)).expect("copying the authority");
        }
    }

    /// An SVID that is valid now.
    pub fn issue(&self, spiffe_id: &str) -> Leaf {
        self.issue_named(&[San::Uri(spiffe_id.to_owned())])
    }

    /// An SVID that was valid until an hour ago.
    pub fn issue_expired(&self, spiffe_id: &str) -> Leaf {
        let now = OffsetDateTime::now_utc();
        let names = [San::Uri(spiffe_id.to_owned())];
        self.issue_for(&names, now - Duration::hours(3), now - Duration::hours(1))
    }

    /// An SVID that is valid from an hour from now on.
    pub fn issue_for_later(&self, spiffe_id: &str) -> Leaf {
        let now = OffsetDateTime::now_utc();
        let names = [San::Uri(spiffe_id.to_owned())];
        self.issue_for(&names, now + Duration::hours(1), now + Duration::hours(2))
    }

    /// A certificate with these names that is valid now.
    pub fn issue_named(&self, names: &[San]) -> Leaf {
        self.issue_named_for(names, std::time::Duration::from_hours(1))
    }

    /// The same, valid for so long from now on.
    pub fn issue_named_for(&self, names: &[San], life: std::time::Duration) -> Leaf {
        let now = OffsetDateTime::now_utc();
        self.issue_for(names, now - Duration::hours(1), now + life)
    }

    /// An SVID that is valid for so long from now on.
    pub fn issue_short(&self, spiffe_id: &str, life: std::time::Duration) -> Leaf {
        self.issue_named_for(&[San::Uri(spiffe_id.to_owned())], life)
    }

    /// Writes a CRL that revokes these certificates, in place of the file before.
    pub fn write_crl(&self, revoked: &[&Leaf], file: &Path) {
        self.write_crl_for(revoked, std::time::Duration::from_hours(1), file);
    }

    /// The same, with the next one due after so long.
    pub fn write_crl_for(&self, revoked: &[&Leaf], life: std::time::Duration, file: &Path) {
        let now = OffsetDateTime::now_utc();
        let entry = |leaf: &&Leaf| RevokedCertParams {
            serial_number: leaf.serial.clone(),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now - Duration::hours(1),
            next_update: now + life,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let pem = list.signed_by(&self.issuer).expect("a CRL").pem().expect("PEM");
        replace(file, &pem);
    }

    fn issue_for(&self, names: &[San], from: OffsetDateTime, until: OffsetDateTime) -> Leaf {
        let mut params = CertificateParams::default();
        params.not_before = from;
        params.not_after = until;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name = common_name("a leaf");
        params.subject_alt_names = names.iter().map(San::to_rcgen).collect();
        let serial = rand_serial();
        params.serial_number = Some(serial.into());
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &self.issuer).expect("a certificate");
        Leaf {
            serial: serial.into(),
            serial_text: format!("{serial:016x}"),
            chain: [leaf.der().clone()].into_iter().chain(self.chain.clone()).collect(),
            key: PrivateKeyDer::try_from(key.serialize_der()).expect("a PKCS#8 key"),
            certificate_pem: if self.chain.is_empty() {
                leaf.pem()
            } else {
                format!("{}{}", leaf.pem(), self.pem)
            },
            key_pem: key.serialize_pem(),
        }
    }
}

/// What the certificate of a root says.
fn authority(name: &str, names: &[San]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = common_name(name);
    params.subject_alt_names = names.iter().map(San::to_rcgen).collect();
    params
}

/// Replaces a file as a whole.
pub fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).expect("a new file");
    fs::rename(&new, file).expect("replacing a file");
}

/// Writes the certificates of several authorities, in place of the file before.
pub fn write_bundle(authorities: &[&Ca], file: &Path) {
    let text: String = authorities.iter().map(|ca| ca.pem.as_str()).collect();
    replace(file, &text);
}

/// Eight bytes, and positive: rcgen writes it as it is.
fn rand_serial() -> u64 {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).expect("random bytes");
    u64::from_le_bytes(bytes) >> 2 | 1 << 62
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// A new file that its owner alone can read.
fn private_file(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).expect("the key's file")
}

/// The SHA-256 of the first certificate in a PEM file, in hexadecimal.
pub fn fingerprint(certificate: &Path) -> String {
    sha256(&CertificateDer::from_pem_file(certificate).expect("a certificate"))
}

/// The same of a certificate that is not in a file.
pub fn sha256(certificate: &CertificateDer<'_>) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
