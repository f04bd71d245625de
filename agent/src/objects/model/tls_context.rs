//! Certificates in Secrets.

use std::sync::Arc;

use super::tls::object_name;
use super::wrong::{Within, Wrong};
use crate::objects::schema::text::DataKey;
use crate::objects::schema::tls_context as schema;
use crate::trust::OnDoubt;

/// A certificate in a Secret, and authorities beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsContext {
    pub secret: Arc<str>,
    /// The key of the authorities.
    pub ca: String,
    pub crl: Option<Crl>,
}

/// CRLs, in the same object as the authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crl {
    pub key: String,
    pub unknown: OnDoubt,
    pub expired: OnDoubt,
}

/// Where cert-manager writes the authorities.
const CA: &str = "ca.crt";

impl TlsContext {
    /// # Errors
    /// What makes no sense, with its field.
    pub fn parse(spec: &schema::TlsContextSpec) -> Result<Self, Wrong> {
        let crl = spec.crl.as_ref().map(|crl| Crl::new(&crl.key, crl.unknown, crl.expired));
        Ok(Self {
            secret: object_name(&spec.secret).within("secret")?,
            ca: data_key(spec.ca.as_ref().map_or(CA, |key| &key.0)).within("ca")?,
            crl: crl.transpose()?,
        })
    }
}

impl Crl {
    /// # Errors
    /// If there can be no such key.
    pub fn new(
        key: &DataKey,
        unknown: Option<OnDoubt>,
        expired: Option<OnDoubt>,
    ) -> Result<Self, Wrong> {
        let key = data_key(&key.0).within("crl.key")?;
        Ok(Self { key, unknown: unknown.unwrap_or_default(), expired: expired.unwrap_or_default() })
    }
}

/// # Errors
/// If it cannot be a key of a Secret or ConfigMap.
pub fn data_key(text: &str) -> Result<String, Wrong> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let fits = !text.is_empty() && text.len() <= 253 && text.bytes().all(allowed);
    match fits && ![".", ".."].contains(&text) {
        true => Ok(text.to_owned()),
        false => {
            Err(Wrong::new(format!("`{text}` is no key of a Secret or ConfigMap, like `ca.crt`")))
        }
    }
}
