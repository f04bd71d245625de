//! Identities from files: for each workload a chain, its key, and optionally a bundle. They are read again when they
//! change.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::SecureRandom;

use super::{Shared, Snapshot, Source, SourceSettings, Svid, Update, Updates};
use crate::follow::{Backoff, Check, Following, Problem};
use crate::spiffe::SpiffeId;
use crate::sys::watch::Watch;
use crate::trust::{BundleError, Trust, TrustBundle};
use crate::x509::{CertificateFile, FileError, Fingerprint, KeyPair, KeyPairError, KeyPairFiles};

/// A chain, its key, and optionally the bundle of its trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    pub pair: KeyPairFiles,
    pub bundle: Option<BundleFile>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleFile {
    pub path: PathBuf,
    /// False if the file may be missing; then there is no bundle.
    pub required: bool,
}

/// Follows the files of one workload's identity.
#[derive(Debug)]
struct FileSource {
    files: IdentityFiles,
    random: &'static dyn SecureRandom,
}

/// Digests of what was published last.
#[derive(Clone, Debug, Default)]
struct Known {
    all: Option<Fingerprint>,
    leaf: Option<Fingerprint>,
    /// A bundle that existed once must not go missing.
    has_bundle: bool,
}

struct Read {
    snapshot: Snapshot,
    known: Known,
}

/// Why the files are invalid.
#[derive(Debug, thiserror::Error)]
enum FilesError {
    #[error(transparent)]
    KeyPair(#[from] KeyPairError),
    #[error(transparent)]
    Unfit(#[from] super::svid::UnfitCertificate),
    #[error(transparent)]
    Bundle(#[from] FileError),
    #[error(transparent)]
    Unusable(#[from] BundleError),
    #[error("{} is a bundle, but the certificate has no SPIFFE ID that says of which trust domain", .0.display())]
    BundleOfNobody(PathBuf),
}

impl SourceSettings for IdentityFiles {
    fn kind(&self) -> &'static str {
        "files"
    }

    fn open(&self, shared: &mut Shared) -> Result<Arc<dyn Source>, Problem> {
        let random = shared.provider().secure_random;
        Ok(Arc::new(FileSource { files: self.clone(), random }))
    }

    fn check(&self, workload: &str, expected: Option<&SpiffeId>) -> Option<Check> {
        Some(match self.read(expected, &Known::default()) {
            Ok(read) => {
                let name = read.snapshot.svid.name();
                Check::Good { found: format!("`{workload}` is {name}") }
            }
            Err(error) => Check::Bad {
                found: format!("`{workload}`: {error}"),
                advice: "the agent refuses the workload's connections until its files can be used"
                    .to_owned(),
            },
        })
    }
}

impl IdentityFiles {
    fn paths(&self) -> Vec<PathBuf> {
        let bundle = self.bundle.as_ref().map(|bundle| &bundle.path);
        let pair = &self.pair;
        [Some(&pair.certificate), Some(&pair.key), bundle].into_iter().flatten().cloned().collect()
    }

    /// Reads all files, or fails.
    fn read(&self, expected: Option<&SpiffeId>, known: &Known) -> Result<Read, FilesError> {
        let pair = KeyPair::read(&self.pair)?;
        let svid = Svid::new(pair, expected, known.leaf)?;
        let (trust, bundle_bytes) = self.read_bundle(&svid, known)?;
        let mut all: Vec<u8> = svid.key.cert.iter().flat_map(|der| der.to_vec()).collect();
        let has_bundle = !bundle_bytes.is_empty();
        all.extend(bundle_bytes);
        let known = Known {
            all: Some(Fingerprint::of(&all)),
            leaf: Some(svid.facts.fingerprint),
            has_bundle,
        };
        let snapshot = Snapshot { svid: Arc::new(svid), trust, next_renewal: None };
        Ok(Read { snapshot, known })
    }

    fn read_bundle(&self, svid: &Svid, known: &Known) -> Result<(Trust, Vec<u8>), FilesError> {
        let Some(file) = &self.bundle else {
            return Ok((Trust::default(), Vec::new()));
        };
        let bundle = match CertificateFile::read(&file.path) {
            Err(error) if error.is_missing() && !file.required && !known.has_bundle => {
                return Ok((Trust::default(), Vec::new()));
            }
            bundle => bundle?,
        };
        let Some(id) = &svid.id else {
            return Err(FilesError::BundleOfNobody(file.path.clone()));
        };
        let CertificateFile { certificates, bytes } = bundle;
        let bundle = TrustBundle::new(id.trust_domain().clone(), certificates)?;
        Ok((Trust::of_bundles([Arc::new(bundle)]), bytes))
    }
}

impl Source for FileSource {
    fn follow(self: Arc<Self>, updates: Updates) -> Following {
        Box::pin(async move {
            let mut watch = Watch::new(self.files.paths());
            let mut backoff = Backoff::new(self.random);
            let expected = updates.workload().spiffe_id.clone();
            let mut known = Known::default();
            let mut failure: Option<Problem> = None;
            loop {
                // The file system may be slow.
                let (this, id, before) = (self.clone(), expected.clone(), known.clone());
                let reading =
                    tokio::task::spawn_blocking(move || this.files.read(id.as_ref(), &before));
                let read = match reading.await {
                    Ok(read) => read.map_err(Problem::from),
                    Err(error) => Err(error.into()),
                };
                match read {
                    Ok(read) => {
                        backoff.reset();
                        if known.all != read.known.all || failure.is_some() {
                            updates.send(Update::Snapshot(read.snapshot)).await?;
                        }
                        known = read.known;
                        failure = None;
                        watch.changed().await;
                    }
                    Err(error) => {
                        // Reported once, not at every retry.
                        if failure.as_ref() != Some(&error) {
                            updates.send(Update::Failed(error.clone())).await?;
                        }
                        failure = Some(error);
                        tokio::select! {
                            () = watch.changed() => {}
                            () = tokio::time::sleep(backoff.pause()) => {}
                        }
                    }
                }
            }
        })
    }
}
