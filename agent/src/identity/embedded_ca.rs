//! The embedded CA: a key and a certificate in a directory, from which every agent that has them issues the
//! SVIDs of its own workloads. For trying Sheath out and for installations with one operator.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Snapshot, Svid};
use crate::spiffe::{BundleError, SpiffeId, TrustBundle, TrustDomain};

const CERTIFICATE_FILE: &str = "ca.crt";
const KEY_FILE: &str = "ca.key";

/// How long a root certificate lives.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Certificates are valid from a little before they are made: the peer's clock may be behind.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// What can go wrong with the embedded CA.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("cannot read {}: {error}; `sheath ca init` makes a CA", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("cannot write {}: {error}", path.display())]
    Unwritable { path: PathBuf, error: std::io::Error },
    #[error("{} exists; a CA is never overwritten", .0.display())]
    Exists(PathBuf),
    #[error("{}: {reason}", path.display())]
    Unusable { path: PathBuf, reason: String },
    #[error("cannot issue a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    #[error("cannot use an issued key: {0}")]
    Key(#[from] rustls::Error),
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// A loaded CA.
pub struct EmbeddedCa {
    issuer: Issuer<'static, KeyPair>,
    bundle: Arc<TrustBundle>,
    provider: Arc<CryptoProvider>,
    svid_ttl: Duration,
    /// When the CA's own certificate expires.
    not_after: SystemTime,
}

impl std::fmt::Debug for EmbeddedCa {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedCa")
            .field("trust_domain", self.bundle.trust_domain())
            .finish_non_exhaustive()
    }
}

impl EmbeddedCa {
    /// Makes a new CA in `directory`, creating the directory if need be. Returns the two files' paths.
    ///
    /// # Errors
    /// [`CaError::Exists`] if either file is there already.
    pub fn init(directory: &Path, trust_domain: &TrustDomain) -> Result<[PathBuf; 2], CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let now = SystemTime::now();
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("Sheath CA of {trust_domain}"));
        params.subject_alt_names = vec![uri(&trust_domain.id())?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + ROOT_LIFETIME).into();
        let certificate = params.self_signed(&key)?;
        let unwritable = |path: &Path, error| CaError::Unwritable { path: path.to_owned(), error };
        fs::create_dir_all(directory).map_err(|error| unwritable(directory, error))?;
        let paths = [CERTIFICATE_FILE, KEY_FILE].map(|file| directory.join(file));
        if let Some(taken) = paths.iter().find(|path| path.exists()) {
            return Err(CaError::Exists(taken.clone()));
        }
        let [certificate_path, key_path] = &paths;
        write_new(key_path, 0o600, &key.serialize_pem()).map_err(|e| unwritable(key_path, e))?;
        write_new(certificate_path, 0o644, &certificate.pem())
            .map_err(|e| unwritable(certificate_path, e))?;
        Ok(paths)
    }

    /// Loads the CA from `directory`.
    ///
    /// # Errors
    /// If a file is missing or unreadable, if key and certificate do not belong together, or if the CA is of
    /// another trust domain.
    pub fn load(
        directory: &Path,
        trust_domain: &TrustDomain,
        svid_ttl: Duration,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, CaError> {
        let certificate_path = directory.join(CERTIFICATE_FILE);
        let key_path = directory.join(KEY_FILE);
        let read = |path: &Path| {
            fs::read_to_string(path)
                .map_err(|error| CaError::Unreadable { path: path.to_owned(), error })
        };
        let certificate_pem = read(&certificate_path)?;
        let key_pem = read(&key_path)?;
        let unusable =
            |path: &Path, reason: String| CaError::Unusable { path: path.to_owned(), reason };
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| unusable(&certificate_path, format!("no certificate: {error}")))?;
        let key = KeyPair::from_pem(&key_pem)
            .map_err(|error| unusable(&key_path, format!("no private key: {error}")))?;
        let not_after = check_root(&certificate, &key, trust_domain)
            .map_err(|reason| unusable(&certificate_path, reason))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        let bundle = TrustBundle::new(trust_domain.clone(), &[certificate])?;
        Ok(Self { issuer, bundle: Arc::new(bundle), provider, svid_ttl, not_after })
    }

    /// Issues an SVID with a new key.
    pub fn issue(&self, id: &SpiffeId) -> Result<Snapshot, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let now = SystemTime::now();
        let (not_before, not_after) = (now - CLOCK_SKEW, (now + self.svid_ttl).min(self.not_after));
        let serial = self.serial();
        let mut params = CertificateParams::default();
        // An empty subject would make the alternative name critical, which some peers refuse.
        params.distinguished_name = common_name("Sheath workload");
        params.subject_alt_names = vec![uri(id.as_str())?];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.use_authority_key_identifier_extension = true;
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|reason| rustls::Error::General(reason.to_owned()))?;
        let key = CertifiedKey::from_der(vec![certificate.der().clone()], key, &self.provider)?;
        Ok(Snapshot {
            svid: Arc::new(Svid {
                id: id.clone(),
                key: Arc::new(key),
                serial: serial.iter().map(|byte| format!("{byte:02x}")).collect(),
                issued: now,
                not_before,
                not_after,
            }),
            bundle: self.bundle.clone(),
        })
    }

    /// 127 random bits: positive, and unique without a register (RFC 5280, 4.1.2.2).
    fn serial(&self) -> [u8; 16] {
        let mut serial = [0; 16];
        if self.provider.secure_random.fill(&mut serial).is_err() {
            // Without randomness no key could have been made either.
            serial = [1; 16];
        }
        serial[0] = serial[0] & 0x3f | 0x40;
        serial
    }
}

/// Returns when the certificate expires.
fn check_root(
    certificate: &CertificateDer<'_>,
    key: &KeyPair,
    trust_domain: &TrustDomain,
) -> Result<SystemTime, String> {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| e.to_string())?;
    if parsed.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(key) {
        return Err("the certificate does not belong to the key beside it".to_owned());
    }
    let domain = trust_domain.id();
    let named = parsed.subject_alternative_name().ok().flatten().is_some_and(|names| {
        let is_domain =
            |name: &GeneralName<'_>| matches!(name, GeneralName::URI(uri) if *uri == domain);
        names.value.general_names.iter().any(is_domain)
    });
    if !named {
        return Err(format!("the certificate is not of the trust domain {trust_domain}"));
    }
    if !parsed.validity().is_valid() {
        return Err(format!(
            "the certificate is valid from {} to {}, not now",
            parsed.validity().not_before,
            parsed.validity().not_after
        ));
    }
    let not_after = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(not_after))
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn uri(text: &str) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(text.try_into()?))
}

/// Writes a file that did not exist, with its mode from the first moment on.
fn write_new(path: &Path, mode: u32, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spiffe::spiffe_id_of;
    use std::os::unix::fs::PermissionsExt;

    fn load(directory: &Path, domain: &str) -> Result<EmbeddedCa, CaError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        EmbeddedCa::load(directory, &domain.parse().unwrap(), Duration::from_secs(3600), provider)
    }

    #[test]
    fn a_new_ca_issues_svids_that_keep_the_rules() {
        let directory = tempfile::tempdir().unwrap();
        let domain = "example.org".parse().unwrap();
        let [_, key] = EmbeddedCa::init(directory.path(), &domain).unwrap();
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let ca = load(directory.path(), "example.org").unwrap();
        let id: SpiffeId = "spiffe://example.org/web".parse().unwrap();
        let snapshot = ca.issue(&id).unwrap();
        let chain = &snapshot.svid.key.cert;
        assert_eq!(spiffe_id_of(&chain[0]), Ok(id));
        let other = ca.issue(&snapshot.svid.id).unwrap();
        assert_ne!(snapshot.svid.serial, other.svid.serial);
        assert_ne!(chain, &other.svid.key.cert);
    }

    #[test]
    fn a_ca_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let domain = "example.org".parse().unwrap();
        EmbeddedCa::init(directory.path(), &domain).unwrap();
        let before = fs::read(directory.path().join(KEY_FILE)).unwrap();
        assert!(matches!(EmbeddedCa::init(directory.path(), &domain), Err(CaError::Exists(_))));
        assert_eq!(before, fs::read(directory.path().join(KEY_FILE)).unwrap());
    }

    #[test]
    fn a_ca_that_does_not_fit_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(load(directory.path(), "example.org"), Err(CaError::Unreadable { .. })));
        EmbeddedCa::init(directory.path(), &"example.org".parse().unwrap()).unwrap();
        assert!(matches!(load(directory.path(), "other.org"), Err(CaError::Unusable { .. })));
        let other = tempfile::tempdir().unwrap();
        EmbeddedCa::init(other.path(), &"example.org".parse().unwrap()).unwrap();
        fs::copy(other.path().join(KEY_FILE), directory.path().join(KEY_FILE)).unwrap();
        let error = load(directory.path(), "example.org").unwrap_err();
        assert!(error.to_string().contains("does not belong to the key"));
    }
}
