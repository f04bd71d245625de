//! TLS configurations for tests, and what they are made of, so that rustls can play the other end.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};

use super::TlsConfigs;
use crate::limits::{Limits, Quota, Quotas};
use crate::peer::{Inbound, Target, crypto_provider};
use crate::trust::testing::{Ca, svid};

pub(crate) use crate::peer::testing::ids;

pub(crate) use super::handshake_context::with_server_blocking;

/// Of a workload that may be called by `callers`.
pub(crate) fn configs(
    provider: CryptoProvider,
    ca: &Ca,
    key: Arc<CertifiedKey>,
    callers: &[&str],
) -> TlsConfigs {
    let inbound = Inbound { callers: ids(callers), standard: None };
    TlsConfigs::new(Arc::new(provider), key, ca.trust(), &inbound).unwrap()
}

/// The same with an SVID and one cipher suite.
pub(crate) fn configs_with_suite(ca: &Ca, id: &str, callers: &[&str], suite: usize) -> TlsConfigs {
    let mut provider = crypto_provider();
    provider.cipher_suites = vec![provider.cipher_suites[suite]];
    configs(provider, ca, ca.issue(svid(id, |_| {})).certified(), callers)
}

/// What a workload may take; `buffers` is in bytes.
pub(crate) fn quota(buffers: usize) -> Arc<Quota> {
    let limits = Limits { flows: None, handshakes_per_second: 1000, buffers };
    Quotas::new(limits, 2).of(1)
}

impl TlsConfigs {
    /// What our own client begins a handshake with, within [`with_server_blocking`].
    pub(crate) fn client_config(&self) -> ClientConfig {
        ClientConfig::clone(&self.client(&Target::Agent(ids(&[]))).unwrap().config)
    }

    /// What our own server begins a handshake with.
    pub(crate) fn server_config(&self) -> ServerConfig {
        ServerConfig::clone(&self.server(true).unwrap().config)
    }
}
