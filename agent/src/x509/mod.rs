//! Certificates, keys and CRLs as files and messages hold them, and what people want to know about them.

mod facts;
mod fingerprint;
mod key_kind;
mod pem;
mod sections;

pub use facts::{CertificateFacts, CrlFacts, next_update};
pub use fingerprint::Fingerprint;
pub use key_kind::why_unusable;
pub use pem::{
    MOST_CERTIFICATES, X509Error, certificates, concatenated_certificates, crls, private_key,
    readable_certificates,
};
pub use sections::{PemError, Section, sections};
