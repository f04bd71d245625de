//! The authorities that the system trusts, in the files of its distribution.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;

use crate::sys::files::{self, ReadError};
use crate::trust::Anchors;
use crate::x509::{self, CertificateFacts, FileError, Fingerprint};

/// Files with all of them. The first that exists is read.
const FILES: [&str; 5] = [
    // Debian, Arch, Gentoo
    "/etc/ssl/certs/ca-certificates.crt",
    // Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    // openSUSE
    "/etc/ssl/ca-bundle.pem",
    // Alpine
    "/etc/ssl/cert.pem",
];

/// Variables that name another file, or directories of files, as for OpenSSL (SSL_CTX_set_default_verify_paths(3)).
const FILE_VARIABLE: &str = "SSL_CERT_FILE";
const DIRECTORY_VARIABLE: &str = "SSL_CERT_DIR";

/// No file has a usable authority. Holds the problem of each file.
#[derive(Debug)]
pub struct NoAuthorities(Vec<FileError>);

impl fmt::Display for NoAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the system has no trusted authorities: ")?;
        if self.0.is_empty() {
            let files = FILES.join(", ");
            return write!(
                f,
                "none of {files} is there; install the package ca-certificates, or set {FILE_VARIABLE}"
            );
        }
        let problems: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&problems.join("; "))
    }
}

impl std::error::Error for NoAuthorities {}

/// Reads them. A single authority that is unusable is skipped.
///
/// # Errors
/// If there is no usable authority at all.
pub fn read() -> Result<(Vec<CertificateDer<'static>>, Fingerprint), NoAuthorities> {
    let paths = paths(env::var_os(FILE_VARIABLE), env::var_os(DIRECTORY_VARIABLE));
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for path in &paths {
        match read_file(path) {
            Ok(more) => found.extend(more),
            Err(problem) => problems.push(problem),
        }
    }
    let all = found.len();
    found.retain(is_usable);
    if found.len() < all {
        tracing::debug!(passed_over = all - found.len(), "authorities of the system");
    }
    if found.is_empty() {
        return Err(NoAuthorities(problems));
    }
    let everything = Fingerprint::of_sequence(found.iter().map(AsRef::as_ref));
    Ok((found, everything))
}

fn paths(file: Option<OsString>, directories: Option<OsString>) -> Vec<PathBuf> {
    if file.is_none() && directories.is_none() {
        let first = FILES.iter().map(PathBuf::from).find(|path| path.exists());
        return first.into_iter().collect();
    }
    let mut paths: Vec<_> = file.into_iter().map(PathBuf::from).collect();
    let directories: Vec<_> = directories.iter().flat_map(env::split_paths).collect();
    for entry in directories.iter().flat_map(|directory| directory.read_dir()).flatten().flatten() {
        paths.push(entry.path());
    }
    paths
}

fn read_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let text = match files::read(path, files::AUTHORITIES) {
        Ok(text) => text,
        // Directories for OpenSSL may have subdirectories.
        Err(ReadError::NotRegular("a directory")) => return Ok(Vec::new()),
        Err(error) => return Err(FileError::Unreadable { path: path.to_owned(), error }),
    };
    x509::readable_certificates(&text)
        .map_err(|error| FileError::Malformed { path: path.to_owned(), error })
}

fn is_usable(certificate: &CertificateDer<'static>) -> bool {
    CertificateFacts::of(certificate).is_ok()
        && Anchors::new(std::slice::from_ref(certificate)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::testing::Ca;

    #[test]
    fn variables_name_a_file_and_directories_of_files() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("more")).unwrap();
        std::fs::write(at("more/a.pem"), "").unwrap();
        let found = paths(Some(at("one.pem").into()), Some(at("more").into()));
        assert_eq!(found, [at("one.pem"), at("more/a.pem")]);
    }

    #[test]
    fn one_that_cannot_be_used_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let ca = Ca::new("example.org");
        let good = bad.replace("AAAA", &{
            use base64ct::{Base64, Encoding};
            Base64::encode_string(&ca.certificate)
        });
        std::fs::write(&path, format!("{bad}{good}")).unwrap();
        assert_eq!(read_file(&path).unwrap(), std::slice::from_ref(&ca.certificate));
    }
}
