//! Issues SVIDs from the active root.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rcgen::{Issuer, KeyPair as IssuedKey, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::CryptoProvider;
use rustls_pki_types::PrivateKeyDer;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::directory::unusable;
use super::roots::{RootState, RootStatus, Roots};
use super::{CaError, UnusableRoot};
use crate::follow::{Problem, jitter};
use crate::identity::issuing::{self, CLOCK_SKEW};
use crate::identity::renewal::renewal_of;
use crate::identity::{Snapshot, Svid};
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::sys::watch::Watch;
use crate::trust::{Trust, TrustBundle};
use crate::x509::{Fingerprint, KeyPair};

/// A CA that is read again when its directory changes.
pub struct EmbeddedCa {
    directory: PathBuf,
    trust_domain: TrustDomain,
    provider: Arc<CryptoProvider>,
    roots: ArcSwap<Roots>,
    /// Why the current content of the directory is not used, if it is not.
    state: watch::Sender<Option<Problem>>,
}

impl std::fmt::Debug for EmbeddedCa {
    /// Without keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedCa").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl EmbeddedCa {
    /// # Errors
    /// If the directory has no active root.
    pub fn load(
        directory: &Path,
        trust_domain: &TrustDomain,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, CaError> {
        let roots = read(directory, trust_domain)?;
        Ok(Self {
            directory: directory.to_owned(),
            trust_domain: trust_domain.clone(),
            provider,
            roots: ArcSwap::from_pointee(roots),
            state: watch::Sender::new(None),
        })
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    #[must_use]
    pub fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    /// Reads the directory again whenever it changes, as long as the CA is in use.
    pub async fn keep_current(ca: std::sync::Weak<Self>) {
        let Some(directory) = ca.upgrade().map(|ca| ca.directory.join("ca.crt")) else {
            return;
        };
        let mut watch = Watch::new([directory]);
        loop {
            watch.changed().await;
            let Some(ca) = ca.upgrade() else {
                return;
            };
            ca.reload();
        }
    }

    fn reload(&self) {
        match read(&self.directory, &self.trust_domain) {
            Ok(roots) => {
                let now = SystemTime::now();
                let fingerprints = |roots: &Roots| -> Vec<_> {
                    roots.status(now).iter().map(|r| (r.facts.fingerprint, r.has_key)).collect()
                };
                let is_new = fingerprints(&roots) != fingerprints(&self.roots.load());
                if is_new || self.state.borrow().is_some() {
                    tracing::info!(directory = %self.directory.display(), roots = fingerprints(&roots).len(), "CA read again");
                    self.roots.store(Arc::new(roots));
                    self.state.send_replace(None);
                }
            }
            Err(error) => {
                self.state.send_if_modified(|state| {
                    let problem = Some(Problem::from(error));
                    let is_new = *state != problem;
                    *state = problem;
                    is_new
                });
            }
        }
    }

    /// Notifies of changed roots. Holds the reason why the current content of the directory is not used.
    pub fn subscribe(&self) -> watch::Receiver<Option<Problem>> {
        self.state.subscribe()
    }

    #[must_use]
    pub fn roots(&self) -> Vec<RootStatus> {
        self.roots.load().status(SystemTime::now())
    }

    /// True if a root is trusted.
    pub fn trusts(&self, root: Fingerprint) -> bool {
        let is_it = |status: &RootStatus| {
            status.facts.fingerprint == root && status.state != RootState::Expired
        };
        self.roots().iter().any(is_it)
    }

    /// The current bundle.
    ///
    /// # Errors
    /// If no root is trusted any more.
    pub fn trust(&self) -> Result<Trust, CaError> {
        let authorities = self.roots.load().trusted(SystemTime::now());
        let bundle = TrustBundle::new(self.trust_domain.clone(), authorities)?;
        Ok(Trust::of_bundles([Arc::new(bundle)]))
    }

    /// Issues an SVID with a new key. Also returns the fingerprint of its root.
    ///
    /// # Errors
    /// If no root is active, or if its certificate and key are not those of a CA.
    pub fn issue(&self, id: &SpiffeId, ttl: Duration) -> Result<(Snapshot, Fingerprint), CaError> {
        let key = Zeroizing::new(IssuedKey::generate_for(&PKCS_ECDSA_P256_SHA256)?);
        let now = SystemTime::now();
        let roots = self.roots.load();
        let Some((root, root_key)) =
            roots.active(now).and_then(|root| root.key.as_deref().map(|key| (root, key)))
        else {
            return Err(CaError::NoActiveRoot);
        };
        let (not_before, not_after) = (now - CLOCK_SKEW, (now + ttl).min(root.facts.not_after));
        let serial = issuing::serial(self.provider.secure_random);
        let params = issuing::svid(id, serial, not_before, not_after)?;
        let issuer = Issuer::from_ca_cert_der(&root.certificate, root_key)?;
        let certificate = params.signed_by(&*key, &issuer)?;
        let der = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|reason| rustls::Error::General(reason.to_owned()))?;
        let pair = KeyPair::new(vec![certificate.der().clone()], &Zeroizing::new(der))?;
        let svid = Svid { id: Some(id.clone()), key: pair.key, facts: pair.facts, issued: now };
        let next_renewal = renewal_of(&svid, jitter(self.provider.secure_random));
        let snapshot = Snapshot {
            svid: Arc::new(svid),
            trust: self.trust()?,
            next_renewal: Some(next_renewal),
        };
        Ok((snapshot, root.facts.fingerprint))
    }
}

/// Reads the roots of a directory.
///
/// # Errors
/// If none of them is active.
pub fn read(directory: &Path, trust_domain: &TrustDomain) -> Result<Roots, CaError> {
    let roots = Roots::read(directory, trust_domain)?;
    if roots.active(SystemTime::now()).is_none() {
        return Err(unusable(&directory.join("ca.crt"), UnusableRoot::NoneActive));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spiffe::spiffe_id_of;

    const TTL: Duration = Duration::from_secs(3600);

    #[test]
    fn a_new_ca_issues_svids_that_keep_the_rules() {
        let directory = tempfile::tempdir().unwrap();
        let domain = "example.org".parse().unwrap();
        Roots::init(directory.path(), &domain).unwrap();
        let provider = Arc::new(crate::peer::crypto_provider());
        let ca = EmbeddedCa::load(directory.path(), &domain, provider).unwrap();
        let id: SpiffeId = "spiffe://example.org/web".parse().unwrap();
        let [one, other] = [(); 2].map(|()| ca.issue(&id, TTL).unwrap().0.svid);
        assert_eq!(spiffe_id_of(&one.key.cert[0]), Ok(id));
        assert_ne!(one.facts.serial, other.facts.serial);
        assert_ne!(one.facts.spki, other.facts.spki);
        let life = one.facts.not_after.duration_since(one.facts.not_before).unwrap();
        assert!(life <= TTL + CLOCK_SKEW + Duration::from_secs(1), "{life:?}");
    }

    #[test]
    fn issuing_moves_to_the_new_root_and_a_broken_directory_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let domain = "example.org".parse().unwrap();
        Roots::init(directory.path(), &domain).unwrap();
        let provider = Arc::new(crate::peer::crypto_provider());
        let ca = EmbeddedCa::load(directory.path(), &domain, provider).unwrap();
        let id: SpiffeId = "spiffe://example.org/web".parse().unwrap();
        let (before, root) = ca.issue(&id, TTL).unwrap();
        let before = before.svid;
        let [new, _] = Roots::rotate(directory.path(), &domain, Duration::ZERO).unwrap();
        ca.reload();
        let after = ca.issue(&id, TTL).unwrap().0.svid;
        assert_ne!(before.facts.issuer, after.facts.issuer);
        assert!(ca.trusts(root));
        std::fs::write(new, "nonsense").unwrap();
        ca.reload();
        assert!(ca.subscribe().borrow().is_some());
        assert_eq!(ca.issue(&id, TTL).unwrap().0.svid.facts.issuer, after.facts.issuer);
    }

    #[test]
    fn a_ca_that_is_made_anew_is_another_one_although_it_bears_the_same_name() {
        let directory = tempfile::tempdir().unwrap();
        let domain = "example.org".parse().unwrap();
        let files = Roots::init(directory.path(), &domain).unwrap();
        let provider = Arc::new(crate::peer::crypto_provider());
        let ca = EmbeddedCa::load(directory.path(), &domain, provider).unwrap();
        let (_, root) = ca.issue(&"spiffe://example.org/web".parse().unwrap(), TTL).unwrap();
        for file in files {
            std::fs::remove_file(file).unwrap();
        }
        Roots::init(directory.path(), &domain).unwrap();
        ca.reload();
        assert!(!ca.trusts(root));
    }
}
