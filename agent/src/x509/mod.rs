//! Certificates, keys and CRLs as files and messages hold them, and what people want to know about them.

mod facts;
mod fingerprint;
mod pem;

pub use facts::{CertificateFacts, CrlFacts, next_update};
pub use fingerprint::Fingerprint;
pub use pem::{X509Error, certificates, concatenated_certificates, crls, private_key};
