//! Makes, rotates and retires the roots of an embedded CA, for `sheath ca`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use zeroize::Zeroizing;

use super::directory::{certificate_path, key_path};
use super::{CaError, Roots};
use crate::identity::issuing::{self, CLOCK_SKEW};
use crate::spiffe::TrustDomain;
use crate::sys::files::{self, IfThere};

/// How long a root lives.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
impl Roots {
    /// Makes the first root of a new CA, creating the directory if need be. Returns the two files' paths.
    ///
    /// # Errors
    /// [`CaError::Exists`] if there is one already.
    pub fn init(directory: &Path, trust_domain: &TrustDomain) -> Result<[PathBuf; 2], CaError> {
        fs::create_dir_all(directory)
            .map_err(|error| CaError::Unwritable { path: directory.to_owned(), error })?;
        make_root(directory, 1, trust_domain, SystemTime::now())
    }

    /// Makes the next root. It becomes active after `overlap`.
    ///
    /// # Errors
    /// If there is already a root that is not active yet.
    pub fn rotate(
        directory: &Path,
        trust_domain: &TrustDomain,
        overlap: Duration,
    ) -> Result<[PathBuf; 2], CaError> {
        let roots = Self::read(directory, trust_domain)?;
        let now = SystemTime::now();
        if let Some(next) = roots.roots.iter().find(|root| now < root.active_from()) {
            return Err(CaError::NextNotInUse(certificate_path(directory, next.number)));
        }
        let last = roots.roots.iter().map(|root| root.number).max().unwrap_or_default();
        make_root(directory, last + 1, trust_domain, now + overlap)
    }

    /// Removes the roots before the active one. Peers then refuse the SVIDs that they issued.
    ///
    /// # Errors
    /// If the active root has been active for less than `after`: SVIDs of the root before may still be in use.
    pub fn retire(
        directory: &Path,
        trust_domain: &TrustDomain,
        after: Duration,
    ) -> Result<Vec<PathBuf>, CaError> {
        let roots = Self::read(directory, trust_domain)?;
        let now = SystemTime::now();
        let Some(active) = roots.active(now) else {
            return Err(CaError::NoActiveRoot);
        };
        let since = now.duration_since(active.active_from()).unwrap_or_default();
        if since < after {
            let wait = Duration::from_secs((after - since).as_secs() + 1);
            return Err(CaError::OldInUse { wait });
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
}

/// Makes a root that is issued from beginning with `active_from`.
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
    // Each root needs a unique name: of two with the same name, verifiers may try the wrong one.
    let name = match number {
        1 => format!("Sheath CA of {trust_domain}"),
        _ => format!("Sheath CA {number} of {trust_domain}"),
    };
    let params = issuing::authority(
        &name,
        trust_domain,
        0,
        active_from - CLOCK_SKEW,
        active_from + ROOT_LIFETIME,
    )?;
    let certificate = params.self_signed(&*key)?;
    let [certificate_path, key_path] = &paths;
    // The key first: agents look for the certificate.
    let key_pem = Zeroizing::new(key.serialize_pem());
    let write = |path: &Path, mode, text: &str| {
        files::write(path, mode, text.as_bytes(), IfThere::Keep)
            .map_err(|error| CaError::Unwritable { path: path.to_owned(), error })
    };
    write(key_path, 0o600, &key_pem)?;
    write(certificate_path, 0o644, &certificate.pem())?;
    Ok(paths)
}

#[cfg(test)]
mod tests;
