//! Services without an agent.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{SET, rules};
use super::selector::Selector;
use super::status::Status;
use super::text::{DnsNameText, NamespaceChoice, PeriodText, Place};
use super::tls::{RULES, with_standard_tls};
use crate::desired::Family;

with_standard_tls! {
    /// A service without an agent, and how pods speak TLS with it. They themselves go on in plaintext, to the address that
    /// they know.
    #[derive(CustomResource)]
    #[kube(
        group = "sheath.dev",
        version = "v1alpha1",
        kind = "ExternalPeer",
        plural = "externalpeers",
        category = "sheath",
        namespaced,
        status = "Status",
        doc = "A service without an agent, and how pods speak TLS with it.",
        printcolumn(name = "Match", type_ = "string", json_path = ".spec.match"),
        printcolumn(name = "Certificate", type_ = "string", json_path = ".spec.certificate"),
        printcolumn(
            name = "Accepted",
            type_ = "string",
            json_path = ".status.conditions[?(@.type=='Accepted')].status"
        ),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )]
    #[schemars(extend("x-kubernetes-validations" = rules(&[&RULES[..], &[(
        "!has(self.exportTo) || !has(self.selector)",
        "selector is for pods of this namespace, and exportTo names others; write two objects",
    )][..]].concat())))]
    pub struct ExternalPeerSpec {
        /// Where it is: destinations, or DNS names, with or without a port.
        #[serde(rename = "match")]
        #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = SET))]
        pub places: Vec<Place>,
        /// Which pods may use it; without it, all of the namespace. For others it is as if it was not there.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub selector: Option<Selector>,
        /// Namespaces whose pods may use it, or `*` for all; without it, this one alone. It counts only in the namespace that
        /// Sheath is installed in: elsewhere somebody could decide whom pods of others believe.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = SET))]
        pub export_to: Vec<NamespaceChoice>,
        /// Which addresses of a DNS name count: `ipv4Only`, `ipv6Only` or `both`, which is the default.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub family: Option<Family>,
        /// The server name to ask for, where it is not the DNS name in `match`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub sni: Option<DnsNameText>,
        /// How long dialling may take.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub connect_timeout: Option<PeriodText>,
    }
}
