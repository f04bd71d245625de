//! A certificate chain and the key that belongs to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::{
    CertificateFacts, CertificateFile, FileError, UnusableKey, X509Error, private_key, why_unusable,
};
use crate::sys::files;

/// Mode bits by which others than the owner could read a key.
const READABLE_BY_OTHERS: u32 = 0o044;
/// Mode bits by which others could replace a key. `allowReadableKey` does not allow that.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The files of a certificate chain and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPairFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Others than the owner may read the key.
    pub allow_readable_key: bool,
}

/// A chain and its key. They match.
#[derive(Clone, Debug)]
pub struct KeyPair {
    pub key: Arc<CertifiedKey>,
    /// Of the leaf.
    pub facts: CertificateFacts,
}

/// Why a chain and a key are invalid.
#[derive(Debug, thiserror::Error)]
pub enum KeyPairError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "{} may be read by others than its owner (mode {mode:04o}); `chmod 600` it, or say allowReadableKey",
        path.display()
    )]
    ReadableKey { path: PathBuf, mode: u32 },
    #[error("{} may be written by others than its owner (mode {mode:04o}); `chmod 600` it", path.display())]
    WritableKey { path: PathBuf, mode: u32 },
    #[error(transparent)]
    Certificate(#[from] X509Error),
    #[error("the key does not belong to the certificate")]
    Mismatch,
    #[error("the key cannot be used: {0}")]
    Key(UnusableKey),
    #[error("{}: the key cannot be used: {reason}", path.display())]
    KeyFile { path: PathBuf, reason: UnusableKey },
}

impl KeyPair {
    /// # Errors
    /// If the key is not that of the first certificate.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &Zeroizing<PrivateKeyDer<'static>>,
    ) -> Result<Self, KeyPairError> {
        let leaf = chain.first().ok_or(X509Error::NoCertificate)?;
        let facts = CertificateFacts::of(leaf)?;
        // Not through the provider, which would keep a copy and not wipe it.
        let signing = any_supported_type(key).map_err(|error| {
            tracing::debug!(%error, "key refused");
            KeyPairError::Key(why_unusable(key))
        })?;
        if !belongs(signing.as_ref(), &facts) {
            return Err(KeyPairError::Mismatch);
        }
        Ok(Self { key: Arc::new(CertifiedKey::new(chain, signing)), facts })
    }

    /// Reads both files. If they are being replaced one after the other, the pair may not match, and is refused.
    ///
    /// # Errors
    /// If a file cannot be read, if others may access the key, or if the two do not match.
    pub fn read(files: &KeyPairFiles) -> Result<Self, KeyPairError> {
        let key = read_key(&files.key, files.allow_readable_key)?;
        let chain = CertificateFile::read(&files.certificate)?.certificates;
        Self::new(chain, &key).map_err(|error| match error {
            KeyPairError::Key(reason) => KeyPairError::KeyFile { path: files.key.clone(), reason },
            other => other,
        })
    }
}

/// True also if the provider cannot derive the public key: then the handshake will tell.
fn belongs(key: &dyn SigningKey, leaf: &CertificateFacts) -> bool {
    key.public_key().is_none_or(|public| public.as_ref() == leaf.public_key.as_slice())
}

fn read_key(
    path: &Path,
    allow_readable: bool,
) -> Result<Zeroizing<PrivateKeyDer<'static>>, KeyPairError> {
    let unreadable = |error| FileError::Unreadable { path: path.to_owned(), error };
    let file = files::open(path).map_err(unreadable)?;
    let mode = file.mode();
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(KeyPairError::WritableKey { path: path.to_owned(), mode });
    }
    if mode & READABLE_BY_OTHERS != 0 && !allow_readable {
        return Err(KeyPairError::ReadableKey { path: path.to_owned(), mode });
    }
    let text = Zeroizing::new(file.read(files::CREDENTIALS).map_err(unreadable)?);
    let key = private_key(&text);
    Ok(key.map_err(|error| FileError::Malformed { path: path.to_owned(), error })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    /// A key pair in two files, and another key.
    fn files(directory: &Path) -> (KeyPairFiles, String) {
        let [key, other] = [(); 2].map(|()| rcgen::KeyPair::generate().unwrap());
        let params = rcgen::CertificateParams::new(vec!["web".to_owned()]).unwrap();
        let files = KeyPairFiles {
            certificate: directory.join("tls.crt"),
            key: directory.join("tls.key"),
            allow_readable_key: false,
        };
        fs::write(&files.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
        (files, other.serialize_pem())
    }

    #[test]
    fn a_chain_is_read_with_the_key_that_belongs_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let (files, other) = files(directory.path());
        assert!(KeyPair::read(&files).is_ok());
        fs::write(&files.key, other).unwrap();
        assert!(matches!(KeyPair::read(&files), Err(KeyPairError::Mismatch)));
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_unless_that_is_allowed() {
        let directory = tempfile::tempdir().unwrap();
        let (mut files, _) = files(directory.path());
        for mode in [0o640, 0o604, 0o444] {
            fs::set_permissions(&files.key, fs::Permissions::from_mode(mode)).unwrap();
            files.allow_readable_key = false;
            assert!(matches!(KeyPair::read(&files), Err(KeyPairError::ReadableKey { .. })));
            files.allow_readable_key = true;
            assert!(KeyPair::read(&files).is_ok());
        }
    }

    #[test]
    fn a_key_that_no_handshake_can_be_signed_with_is_named_with_its_file_and_kind() {
        let directory = tempfile::tempdir().unwrap();
        let (files, _) = files(directory.path());
        // PrivateKeyInfo of an X25519 key (RFC 8410, 7).
        let key = [
            &[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x6e, 4, 0x22, 4, 0x20][..],
            &[7; 32],
        ];
        let text = <base64ct::Base64 as base64ct::Encoding>::encode_string(&key.concat());
        let text = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
        fs::write(&files.key, text).unwrap();
        let error = KeyPair::read(&files).unwrap_err().to_string();
        assert!(error.contains("tls.key") && error.contains("an X25519 key"), "{error}");
    }

    #[test]
    fn what_cannot_be_a_key_pair_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (files, _) = files(directory.path());
        for mode in [0o620, 0o602] {
            fs::set_permissions(&files.key, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(KeyPair::read(&files), Err(KeyPairError::WritableKey { .. })));
        }
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&files.certificate, "nonsense").unwrap();
        let error = KeyPair::read(&files).unwrap_err().to_string();
        assert!(error.contains("tls.crt") && error.contains("no certificate"), "{error}");
        fs::write(&files.key, vec![b'x'; 2 * 1024 * 1024]).unwrap();
        assert!(matches!(KeyPair::read(&files), Err(KeyPairError::File(_))));
        fs::remove_file(&files.key).unwrap();
        assert!(matches!(KeyPair::read(&files), Err(KeyPairError::File(_))));
    }
}
