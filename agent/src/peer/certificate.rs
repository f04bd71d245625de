//! The certificate that our side presents.

use std::sync::Arc;

use rustls::sign::CertifiedKey;

/// Which certificate our side presents to a peer.
#[derive(Clone, Debug)]
pub enum PresentedCertificate {
    /// The workload's own.
    Svid,
    /// None at all: one-way TLS.
    Nothing,
    /// One with a name, if it could be read.
    Named { context: String, key: Option<Arc<CertifiedKey>> },
}

/// Why there is no certificate to present.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCertificate {
    #[error("a server has to present a certificate, and `certificate` is `none`")]
    Server,
    #[error("the certificate of the TLS context `{0}` could not be read")]
    Unreadable(String),
}

impl PresentedCertificate {
    /// The certificate with its key, or `None` if none is to be presented. `svid` is the workload's own.
    ///
    /// # Errors
    /// If the files of a named certificate could not be read.
    pub fn of_client(
        &self,
        svid: &Arc<CertifiedKey>,
    ) -> Result<Option<Arc<CertifiedKey>>, NoCertificate> {
        match self {
            Self::Svid => Ok(Some(svid.clone())),
            Self::Nothing => Ok(None),
            Self::Named { key: Some(key), .. } => Ok(Some(key.clone())),
            Self::Named { context, key: None } => Err(NoCertificate::Unreadable(context.clone())),
        }
    }

    /// The same for a server, which has to present one.
    ///
    /// # Errors
    /// If there is none.
    pub fn of_server(&self, svid: &Arc<CertifiedKey>) -> Result<Arc<CertifiedKey>, NoCertificate> {
        self.of_client(svid)?.ok_or(NoCertificate::Server)
    }
}
