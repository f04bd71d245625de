//! Contexts for tests, and what they are made of, so that rustls can play the other end.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};

use super::{Contexts, Inbound, Target, crypto_provider};
use crate::shares::{Limits, Share, Shares};
use crate::trust::Expectation;
use crate::trust::testing::{Ca, svid};

pub(crate) use super::encounter::with_server_blocking;

/// Contexts of a workload that may be called by `callers`.
pub(crate) fn contexts(
    provider: CryptoProvider,
    ca: &Ca,
    key: Arc<CertifiedKey>,
    callers: &[&str],
) -> Contexts {
    let inbound = Inbound { callers: ids(callers), standard: None };
    Contexts::new(Arc::new(provider), key, ca.trust(), &inbound).unwrap()
}

/// The same with an SVID and one cipher suite.
pub(crate) fn contexts_with_suite(ca: &Ca, id: &str, callers: &[&str], suite: usize) -> Contexts {
    let mut provider = crypto_provider();
    provider.cipher_suites = vec![provider.cipher_suites[suite]];
    contexts(provider, ca, ca.issue(svid(id, |_| {})).certified(), callers)
}

/// What a workload may take; `buffers` is in bytes.
pub(crate) fn share(buffers: usize) -> Arc<Share> {
    let limits = Limits { flows: None, handshakes_per_second: 1000, buffers };
    Shares::new(limits, 2).of(1)
}

pub(crate) fn ids(texts: &[&str]) -> Expectation {
    Expectation::of(texts.iter().map(|text| text.parse().unwrap()).collect(), Vec::new())
}

impl Contexts {
    /// What our own client shakes hands with, within [`with_server_blocking`].
    pub(crate) fn client_config(&self) -> ClientConfig {
        ClientConfig::clone(&self.client(&Target::Agent(ids(&[]))).unwrap().config)
    }

    /// What our own server shakes hands with.
    pub(crate) fn server_config(&self) -> ServerConfig {
        ServerConfig::clone(&self.server(true).unwrap().config)
    }
}
