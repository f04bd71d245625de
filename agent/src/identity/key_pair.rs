//! A certificate chain and the key that belongs to it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::config::KeyPairFiles;
use crate::x509::{self, CertificateFacts, X509Error};

/// Longest file that is read: what is longer is something else.
const LONGEST_FILE: u64 = 1024 * 1024;
/// Mode bits by which others than the owner could read a key.
const READABLE_BY_OTHERS: u32 = 0o044;

/// A chain and its key, known to belong together.
#[derive(Clone, Debug)]
pub struct KeyPair {
    pub key: Arc<CertifiedKey>,
    /// Of the leaf.
    pub facts: CertificateFacts,
}

/// Why a chain and a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyPairError {
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{}: {error}", path.display())]
    Malformed { path: PathBuf, error: X509Error },
    #[error(
        "{} may be read by others than its owner (mode {mode:04o}); `chmod 600` it, or say allowReadableKey",
        path.display()
    )]
    ReadableKey { path: PathBuf, mode: u32 },
    #[error(transparent)]
    Certificate(#[from] X509Error),
    #[error("the key does not belong to the certificate")]
    Mismatch,
    #[error("the key cannot be used: {0}")]
    Key(rustls::Error),
}

impl KeyPair {
    /// # Errors
    /// If the key is not that of the first certificate.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &Zeroizing<PrivateKeyDer<'static>>,
        provider: &CryptoProvider,
    ) -> Result<Self, KeyPairError> {
        let leaf = chain.first().ok_or(X509Error::NoCertificate)?;
        let facts = CertificateFacts::of(leaf)?;
        // The provider takes the key over; the copy that it parses it from is wiped with `key`.
        let signing =
            provider.key_provider.load_private_key(key.clone_key()).map_err(KeyPairError::Key)?;
        if !belongs(signing.as_ref(), &facts) {
            return Err(KeyPairError::Mismatch);
        }
        Ok(Self { key: Arc::new(CertifiedKey::new(chain, signing)), facts })
    }

    /// Reads both files. The key is looked at before the certificate is: of two files that are being replaced
    /// one after the other, what does not fit together is refused.
    pub fn read(files: &KeyPairFiles, provider: &CryptoProvider) -> Result<Self, KeyPairError> {
        let key = read_key(&files.key, files.allow_readable_key)?;
        let text = read(&files.certificate)?;
        let chain = x509::certificates(&text)
            .map_err(|error| KeyPairError::Malformed { path: files.certificate.clone(), error })?;
        Self::new(chain, &key, provider)
    }
}

/// A provider that cannot tell the public key of a private one leaves the proof to the handshake.
fn belongs(key: &dyn SigningKey, leaf: &CertificateFacts) -> bool {
    key.public_key().is_none_or(|public| public.as_ref() == leaf.public_key.as_slice())
}

fn read_key(
    path: &Path,
    allow_readable: bool,
) -> Result<Zeroizing<PrivateKeyDer<'static>>, KeyPairError> {
    let unreadable = |error| KeyPairError::Unreadable { path: path.to_owned(), error };
    let file = File::open(path).map_err(unreadable)?;
    // Of the very file that is read, not of what the path may have become.
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
    if mode & READABLE_BY_OTHERS != 0 && !allow_readable {
        return Err(KeyPairError::ReadableKey { path: path.to_owned(), mode });
    }
    let text = Zeroizing::new(read_file(file).map_err(unreadable)?);
    x509::private_key(&text)
        .map_err(|error| KeyPairError::Malformed { path: path.to_owned(), error })
}

/// A file that is small, as those with certificates are.
pub fn read(path: &Path) -> Result<Vec<u8>, KeyPairError> {
    File::open(path)
        .and_then(read_file)
        .map_err(|error| KeyPairError::Unreadable { path: path.to_owned(), error })
}

fn read_file(file: File) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len().min(LONGEST_FILE);
    // Room for all of it at once: a key that is read must not leave copies behind as the buffer grows.
    let mut bytes = Vec::with_capacity(length as usize + 1);
    file.take(LONGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 1 MiB"));
    }
    Ok(bytes)
}
