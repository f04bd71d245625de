//! Certificates in Secrets.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::TlsContextStatus;
use super::text::{DataKey, ObjectNameText};
use crate::trust::OnDoubt;

/// A certificate in a Secret of the type `kubernetes.io/tls` of the same namespace, and authorities beside it. When the
/// Secret changes, connections that are open stay.
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "sheath.dev",
    version = "v1alpha1",
    kind = "TlsContext",
    plural = "tlscontexts",
    category = "sheath",
    namespaced,
    status = "TlsContextStatus",
    doc = "A certificate in a Secret, for ExternalPeers and for clients without an agent.",
    printcolumn(name = "Secret", type_ = "string", json_path = ".spec.secret"),
    printcolumn(name = "Not After", type_ = "date", json_path = ".status.notAfter"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(deny_unknown_fields)]
pub struct TlsContextSpec {
    /// The Secret, of the type `kubernetes.io/tls`: `tls.crt` is the chain, `tls.key` its key.
    pub secret: ObjectNameText,
    /// The Secret's key with the authorities that `trust.tlsContext` stands for. The default is `ca.crt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<DataKey>,
    /// CRLs of these authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl: Option<SecretCrl>,
}

/// CRLs in a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretCrl {
    /// The key of the Secret.
    pub key: DataKey,
    /// Certificates whose issuer has no CRL there: `deny` (the default) or `allow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<OnDoubt>,
    /// CRLs that are past their next update: `deny` (the default) or `allow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expired: Option<OnDoubt>,
}
