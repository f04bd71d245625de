//! The roots of an embedded CA, as they lie in its directory.
//!
//! The first is `ca.crt` with `ca.key`; later ones are `ca-2.crt`, `ca-3.crt` and so on. A root is trusted as
//! soon as its certificate is there, and issued from once it has been valid for [`CLOCK_SKEW`]: a certificate
//! that becomes valid tomorrow is thus trusted a day before anything is issued from it, on every node that has
//! the directory, without a word between them. Where a key is missing, its root is only trusted.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64ct::{Base64, Encoding};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use super::CaError;
use crate::spiffe::TrustDomain;
use crate::sys::files::{self, IfThere, ReadError};
use crate::x509::{self, CertificateFacts};

/// How long a root lives.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Certificates are valid from a little before they are used: the peer's clock may be behind.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// One root.
pub struct Root {
    /// 1 for `ca.crt`, and so on.
    pub number: u32,
    pub certificate: CertificateDer<'static>,
    pub facts: CertificateFacts,
    /// `None` where the root is only trusted.
    pub key: Option<Zeroizing<KeyPair>>,
}

/// All roots of a directory, by number.
pub struct Roots {
    roots: Vec<Root>,
}

/// What a root is for at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootState {
    /// Trusted, and issued from later.
    Next,
    /// Trusted and issued from.
    Active,
    /// Still trusted.
    Old,
    Expired,
}

impl RootState {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Old => "old",
            Self::Expired => "expired",
        }
    }
}

/// A root for people.
#[derive(Clone, Debug)]
pub struct RootStatus {
    pub file: String,
    pub state: RootState,
    /// When issuing from it begins or has begun.
    pub active_from: SystemTime,
    pub facts: CertificateFacts,
    pub has_key: bool,
}

impl Root {
    fn active_from(&self) -> SystemTime {
        self.facts.not_before + CLOCK_SKEW
    }

    /// Orders roots by age. Times in certificates are whole seconds, so the number has to help.
    fn age(&self) -> (SystemTime, u32) {
        (self.active_from(), self.number)
    }

    fn is_expired(&self, now: SystemTime) -> bool {
        self.facts.not_after <= now
    }
}

impl Roots {
    /// Reads a directory.
    ///
    /// # Errors
    /// If there is no root, or if one is not what it should be: not of the trust domain, or with a key that is
    /// not its own. A CA that is half right is none.
    pub fn read(directory: &Path, trust_domain: &TrustDomain) -> Result<Self, CaError> {
        let numbers = numbers(directory)?;
        let roots = numbers
            .into_iter()
            .map(|number| read_root(directory, number, trust_domain))
            .collect::<Result<_, _>>()?;
        Ok(Self { roots })
    }

    /// The trust domain of the CA in a directory, by its first root.
    pub fn trust_domain(directory: &Path) -> Result<TrustDomain, CaError> {
        let first = numbers(directory)?.into_iter().next().unwrap_or(1);
        let path = certificate_path(directory, first);
        let certificate = read_certificate(&path)?;
        uri_names(&certificate)
            .iter()
            .find_map(|uri| uri.strip_prefix("spiffe://"))
            .and_then(|name| name.parse().ok())
            .ok_or_else(|| unusable(&path, "of no trust domain".to_owned()))
    }

    /// Makes the first root of a new CA, creating the directory if need be. Returns the two files' paths.
    ///
    /// # Errors
    /// [`CaError::Exists`] if there is one already.
    pub fn init(directory: &Path, trust_domain: &TrustDomain) -> Result<[PathBuf; 2], CaError> {
        fs::create_dir_all(directory)
            .map_err(|error| CaError::Unwritable { path: directory.to_owned(), error })?;
        make_root(directory, 1, trust_domain, SystemTime::now())
    }

    /// Makes the next root, to be issued from once `overlap` has passed.
    ///
    /// # Errors
    /// If there is a next root already: one change at a time.
    pub fn rotate(
        directory: &Path,
        trust_domain: &TrustDomain,
        overlap: Duration,
    ) -> Result<[PathBuf; 2], CaError> {
        let roots = Self::read(directory, trust_domain)?;
        let now = SystemTime::now();
        if let Some(next) = roots.roots.iter().find(|root| now < root.active_from()) {
            return Err(CaError::Refused(format!(
                "{} is not in use yet; a further root would be one too many",
                certificate_path(directory, next.number).display()
            )));
        }
        let last = roots.roots.iter().map(|root| root.number).max().unwrap_or_default();
        make_root(directory, last + 1, trust_domain, now + overlap)
    }

    /// Removes the roots before the active one. What they issued is not believed any more.
    ///
    /// # Errors
    /// If the active root has not been active for `after` yet, so that certificates of the one before may still
    /// be in use.
    pub fn retire(
        directory: &Path,
        trust_domain: &TrustDomain,
        after: Duration,
    ) -> Result<Vec<PathBuf>, CaError> {
        let roots = Self::read(directory, trust_domain)?;
        let now = SystemTime::now();
        let Some(active) = roots.active(now) else {
            return Err(CaError::Refused("no root is active".to_owned()));
        };
        let since = now.duration_since(active.active_from()).unwrap_or_default();
        if since < after {
            let wait = Duration::from_secs((after - since).as_secs() + 1);
            return Err(CaError::Refused(format!(
                "certificates of earlier roots may still be in use; wait {}, or say --force",
                humantime::format_duration(wait)
            )));
        }
        let old = roots.roots.iter().filter(|root| root.age() < active.age());
        let mut removed = Vec::new();
        for root in old {
            for path in [certificate_path(directory, root.number), key_path(directory, root.number)]
            {
                match fs::remove_file(&path) {
                    Ok(()) => removed.push(path),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(CaError::Unwritable { path, error }),
                }
            }
        }
        Ok(removed)
    }

    /// The root to issue from: the youngest that is due and has a key here.
    #[must_use]
    pub fn active(&self, now: SystemTime) -> Option<&Root> {
        self.roots
            .iter()
            .filter(|root| root.key.is_some() && root.active_from() <= now && !root.is_expired(now))
            .max_by_key(|root| root.age())
    }

    /// Everything that is trusted.
    #[must_use]
    pub fn trusted(&self, now: SystemTime) -> Vec<CertificateDer<'static>> {
        let valid = self.roots.iter().filter(|root| !root.is_expired(now));
        valid.map(|root| root.certificate.clone()).collect()
    }

    /// Everything that is trusted, as a file for others.
    #[must_use]
    pub fn bundle_pem(&self, now: SystemTime) -> String {
        let pem = |der: CertificateDer<'static>| {
            let encoded = Base64::encode_string(&der);
            let lines: Vec<_> = encoded
                .as_bytes()
                .chunks(64)
                .map(|line| String::from_utf8_lossy(line).into_owned())
                .collect();
            let body = lines.join("\n");
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        };
        self.trusted(now).into_iter().map(pem).collect()
    }

    #[must_use]
    pub fn status(&self, now: SystemTime) -> Vec<RootStatus> {
        let active = self.active(now).map(|root| root.number);
        let state = |root: &Root| match () {
            () if root.is_expired(now) => RootState::Expired,
            () if Some(root.number) == active => RootState::Active,
            () if now < root.active_from() => RootState::Next,
            () => RootState::Old,
        };
        self.roots
            .iter()
            .map(|root| RootStatus {
                file: file_name(root.number, "crt"),
                state: state(root),
                active_from: root.active_from(),
                facts: root.facts.clone(),
                has_key: root.key.is_some(),
            })
            .collect()
    }
}

fn file_name(number: u32, extension: &str) -> String {
    match number {
        1 => format!("ca.{extension}"),
        _ => format!("ca-{number}.{extension}"),
    }
}

fn certificate_path(directory: &Path, number: u32) -> PathBuf {
    directory.join(file_name(number, "crt"))
}

fn key_path(directory: &Path, number: u32) -> PathBuf {
    directory.join(file_name(number, "key"))
}

/// Numbers of the roots in a directory, in order.
fn numbers(directory: &Path) -> Result<Vec<u32>, CaError> {
    let unreadable = |error: ReadError| unreadable(&directory.join("ca.crt"), error);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| unreadable(error.into()))? {
        let name = entry.map_err(|error| unreadable(error.into()))?.file_name();
        let number = name.to_str().and_then(|name| {
            let stem = name.strip_suffix(".crt")?;
            if stem == "ca" {
                return Some(1);
            }
            let number = stem.strip_prefix("ca-")?.parse().ok()?;
            // Not `ca-02.crt`, which would be read as another file.
            (number > 1 && file_name(number, "crt") == name).then_some(number)
        });
        numbers.extend(number);
    }
    if numbers.is_empty() {
        return Err(unreadable(ReadError::Missing));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn read_root(directory: &Path, number: u32, trust_domain: &TrustDomain) -> Result<Root, CaError> {
    let path = certificate_path(directory, number);
    let certificate = read_certificate(&path)?;
    let facts =
        CertificateFacts::of(&certificate).map_err(|error| unusable(&path, error.to_string()))?;
    if !uri_names(&certificate).contains(&trust_domain.id()) {
        let reason = format!("the certificate is not of the trust domain {trust_domain}");
        return Err(unusable(&path, reason));
    }
    let key_path = key_path(directory, number);
    let read_key = || -> Result<_, ReadError> {
        let file = files::open(&key_path)?;
        let mode = file.mode();
        Ok((Zeroizing::new(file.read(files::CREDENTIALS)?), mode))
    };
    let key = match read_key() {
        Ok((pem, mode)) => {
            // Whoever can read it can be anybody.
            if mode & 0o066 != 0 {
                let reason =
                    format!("others than its owner may use it (mode {mode:04o}); `chmod 600` it");
                return Err(unusable(&key_path, reason));
            }
            // Not by rcgen's own way, which leaves copies behind.
            let der =
                x509::private_key(&pem).map_err(|error| unusable(&key_path, error.to_string()))?;
            let key = KeyPair::try_from(&*der).map_err(|_| {
                unusable(&key_path, format!("the key cannot be used: {}", x509::why_unusable(&der)))
            })?;
            let key = Zeroizing::new(key);
            if rcgen::PublicKeyData::subject_public_key_info(&*key) != facts.public_key {
                let reason = "the certificate does not belong to the key beside it".to_owned();
                return Err(unusable(&path, reason));
            }
            Some(key)
        }
        // The certificate alone is enough for those who are only meant to trust it.
        Err(ReadError::Missing) => None,
        Err(error) => return Err(unreadable(&key_path, error)),
    };
    Ok(Root { number, certificate, facts, key })
}

fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, CaError> {
    let pem = files::read(path, files::CREDENTIALS).map_err(|error| unreadable(path, error))?;
    let mut found = x509::certificates(&pem).map_err(|error| unusable(path, error.to_string()))?;
    match (found.pop(), found.len()) {
        (Some(certificate), 0) => Ok(certificate),
        _ => Err(unusable(path, "more than one certificate, where one root is wanted".to_owned())),
    }
}

fn uri_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let names = parsed.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names);
    names
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        })
        .collect()
}

fn unusable(path: &Path, reason: String) -> CaError {
    CaError::Unusable { path: path.to_owned(), reason }
}

fn unreadable(path: &Path, error: ReadError) -> CaError {
    CaError::Unreadable { path: path.to_owned(), error }
}

/// `active_from` is when issuing from it begins.
fn make_root(
    directory: &Path,
    number: u32,
    trust_domain: &TrustDomain,
    active_from: SystemTime,
) -> Result<[PathBuf; 2], CaError> {
    let paths = [certificate_path(directory, number), key_path(directory, number)];
    if let Some(taken) = paths.iter().find(|path| path.exists()) {
        return Err(CaError::Exists(taken.clone()));
    }
    let key = Zeroizing::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?);
    let mut params = CertificateParams::default();
    // Each root needs a name of its own: where two bear the same, verifiers try the wrong one first.
    let name = match number {
        1 => format!("Sheath CA of {trust_domain}"),
        _ => format!("Sheath CA {number} of {trust_domain}"),
    };
    params.distinguished_name = common_name(&name);
    params.subject_alt_names = vec![uri(&trust_domain.id())?];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (active_from - CLOCK_SKEW).into();
    params.not_after = (active_from + ROOT_LIFETIME).into();
    let certificate = params.self_signed(&*key)?;
    let [certificate_path, key_path] = &paths;
    // The key first: agents look for certificates.
    let key_pem = Zeroizing::new(key.serialize_pem());
    let write = |path: &Path, mode, text: &str| {
        files::write(path, mode, text.as_bytes(), IfThere::Keep)
            .map_err(|error| CaError::Unwritable { path: path.to_owned(), error })
    };
    write(key_path, 0o600, &key_pem)?;
    write(certificate_path, 0o644, &certificate.pem())?;
    Ok(paths)
}

pub fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

pub fn uri(text: &str) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(text.try_into()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn domain() -> TrustDomain {
        "example.org".parse().unwrap()
    }

    fn states(directory: &Path) -> Vec<RootState> {
        let roots = Roots::read(directory, &domain()).unwrap();
        roots.status(SystemTime::now()).iter().map(|root| root.state).collect()
    }

    #[test]
    fn a_ca_is_never_overwritten_and_its_key_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let [_, key] = Roots::init(directory.path(), &domain()).unwrap();
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let before = fs::read(&key).unwrap();
        assert!(matches!(Roots::init(directory.path(), &domain()), Err(CaError::Exists(_))));
        assert_eq!(before, fs::read(&key).unwrap());
    }

    #[test]
    fn the_next_root_is_trusted_at_once_and_active_after_the_overlap() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        Roots::init(directory, &domain()).unwrap();
        Roots::rotate(directory, &domain(), Duration::from_secs(3600)).unwrap();
        assert_eq!(states(directory), [RootState::Active, RootState::Next]);
        let roots = Roots::read(directory, &domain()).unwrap();
        let now = SystemTime::now();
        assert_eq!(roots.trusted(now).len(), 2);
        assert_eq!(roots.active(now + Duration::from_secs(3700)).unwrap().number, 2);
        assert!(matches!(
            Roots::rotate(directory, &domain(), Duration::ZERO),
            Err(CaError::Refused(_))
        ));
    }

    #[test]
    fn old_roots_are_retired_when_nothing_of_them_can_be_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        Roots::init(directory, &domain()).unwrap();
        Roots::rotate(directory, &domain(), Duration::ZERO).unwrap();
        assert_eq!(states(directory), [RootState::Old, RootState::Active]);
        let refused = Roots::retire(directory, &domain(), Duration::from_secs(3600));
        assert!(matches!(refused, Err(CaError::Refused(_))));
        assert_eq!(Roots::retire(directory, &domain(), Duration::ZERO).unwrap().len(), 2);
        assert_eq!(states(directory), [RootState::Active]);
        assert!(Roots::retire(directory, &domain(), Duration::ZERO).unwrap().is_empty());
    }

    #[test]
    fn a_root_without_its_key_is_trusted_but_not_issued_from() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        Roots::init(directory, &domain()).unwrap();
        let [_, key] = Roots::rotate(directory, &domain(), Duration::ZERO).unwrap();
        fs::remove_file(key).unwrap();
        let roots = Roots::read(directory, &domain()).unwrap();
        let now = SystemTime::now();
        assert_eq!(roots.trusted(now).len(), 2);
        assert_eq!(roots.active(now).unwrap().number, 1);
    }

    #[test]
    fn a_ca_that_does_not_fit_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let missing = Roots::read(directory.path(), &domain());
        assert!(matches!(missing, Err(CaError::Unreadable { .. })));
        let [certificate, key] = Roots::init(directory.path(), &domain()).unwrap();
        let other = "other.org".parse().unwrap();
        let foreign = Roots::read(directory.path(), &other);
        assert!(matches!(foreign, Err(CaError::Unusable { .. })));
        let elsewhere = tempfile::tempdir().unwrap();
        let [_, other_key] = Roots::init(elsewhere.path(), &domain()).unwrap();
        fs::copy(other_key, &key).unwrap();
        let error = Roots::read(directory.path(), &domain()).err().unwrap();
        assert!(error.to_string().contains("does not belong to the key"));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Roots::read(directory.path(), &domain()).err().unwrap();
        assert!(error.to_string().contains("chmod 600"), "{error}");
        fs::write(certificate, "nonsense").unwrap();
        assert!(Roots::read(directory.path(), &domain()).is_err());
    }
}
