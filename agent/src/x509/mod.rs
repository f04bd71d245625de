//! Certificates, keys and CRLs as files and messages hold them, and facts about them for people.

mod facts;
mod files;
mod fingerprint;
mod key_kind;
mod key_pair;
mod pem;
mod sections;

pub use facts::{CertificateFacts, CrlFacts, next_update};
pub use files::{CertificateFile, FileError};
pub use fingerprint::Fingerprint;
pub use key_kind::{UnusableKey, why_unusable};
pub use key_pair::{KeyPair, KeyPairError, KeyPairFiles};
pub use pem::{
    MOST_CERTIFICATES, X509Error, certificates, concatenated_certificates, crls, private_key,
    readable_certificates,
};
pub use sections::{PemError, Section, sections};
