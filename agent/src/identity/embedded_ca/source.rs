//! The embedded CA as a source of identities.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::issue::read;
use super::{CaError, EmbeddedCa};
use crate::follow::{Backoff, Check, Following, Problem};
use crate::identity::renewal;
use crate::identity::{Shared, Snapshot, Source, SourceSettings, Update, Updates};
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::trust::Trust;
use crate::x509::Fingerprint;

/// The directory of a CA, and the lifetime of the SVIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaSettings {
    pub dir: PathBuf,
    pub trust_domain: TrustDomain,
    pub svid_ttl: Duration,
}

impl SourceSettings for CaSettings {
    fn kind(&self) -> &'static str {
        "ca"
    }

    /// Needs a tokio runtime.
    fn open(&self, shared: &mut Shared) -> Result<Arc<dyn Source>, Problem> {
        let ca = shared.get_or_make(&self.dir, |provider| {
            let ca = EmbeddedCa::load(&self.dir, &self.trust_domain, provider.clone())?;
            let ca = Arc::new(ca);
            tokio::spawn(EmbeddedCa::keep_current(Arc::downgrade(&ca)));
            Ok::<_, CaError>(ca)
        })?;
        Ok(Arc::new(CaSource { ca, ttl: self.svid_ttl }))
    }

    fn check(&self, _: &str, _: Option<&SpiffeId>) -> Option<Check> {
        let Self { dir, trust_domain, .. } = self;
        let dir = dir.display();
        Some(match read(&self.dir, trust_domain) {
            Ok(_) => Check::Good { found: format!("CA of {trust_domain} in {dir}") },
            Err(error) => Check::Bad {
                found: error.to_string(),
                advice: format!(
                    "`sheath ca init --dir {dir} --trust-domain {trust_domain}` makes a CA; or copy the one of the other nodes"
                ),
            },
        })
    }
}

/// Issues SVIDs of one lifetime.
#[derive(Debug)]
struct CaSource {
    ca: Arc<EmbeddedCa>,
    ttl: Duration,
}

impl CaSource {
    /// The same SVID with the current roots; `None` if its own root is not trusted any more.
    fn refreshed(&self, snapshot: &Snapshot, root: Fingerprint) -> Option<Snapshot> {
        if !self.ca.trusts(root) {
            return None;
        }
        let trust: Trust = self.ca.trust().ok()?;
        Some(Snapshot { trust, ..snapshot.clone() })
    }
}

impl Source for CaSource {
    fn follow(self: Arc<Self>, updates: Updates) -> Following {
        Box::pin(async move {
            let Some(id) = updates.workload().spiffe_id.clone() else {
                return updates.send(Update::Failed(CaError::NoSpiffeId.into())).await;
            };
            let mut backoff = Backoff::new(self.ca.provider().secure_random);
            let mut roots = self.ca.subscribe();
            loop {
                let (mut current, root) = match self.ca.issue(&id, self.ttl) {
                    Ok((snapshot, root)) => {
                        backoff.reset();
                        tracing::info!(workload = updates.workload().name, %id, serial = snapshot.svid.facts.serial, "SVID issued");
                        updates.send(Update::Snapshot(snapshot.clone())).await?;
                        // The SVID was issued from memory. The directory may still be invalid.
                        let problem = roots.borrow().clone();
                        if let Some(problem) = problem {
                            updates.send(Update::Failed(problem)).await?;
                        }
                        (snapshot, root)
                    }
                    Err(error) => {
                        updates.send(Update::Failed(error.into())).await?;
                        tokio::time::sleep(backoff.pause()).await;
                        continue;
                    }
                };
                // Until the SVID must be renewed, only the roots can change.
                loop {
                    let planned = current.next_renewal.unwrap_or(SystemTime::now());
                    tokio::select! {
                        () = renewal::due(&current.svid, planned) => break,
                        changed = roots.changed() => {
                            if changed.is_err() {
                                return Ok(());
                            }
                        }
                    }
                    let problem = roots.borrow_and_update().clone();
                    match (problem, self.refreshed(&current, root)) {
                        (Some(problem), _) => updates.send(Update::Failed(problem)).await?,
                        (None, None) => break,
                        (None, Some(snapshot)) => {
                            updates.send(Update::Snapshot(snapshot.clone())).await?;
                            current = snapshot;
                        }
                    }
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Membership, Roots, WorkloadRef};
    use tokio::sync::{mpsc, watch};

    #[tokio::test]
    async fn svids_are_renewed_and_roots_follow_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let domain = "example.org".parse().unwrap();
        Roots::init(directory.path(), &domain).unwrap();
        let provider = Arc::new(crate::peer::crypto_provider());
        let ca = Arc::new(EmbeddedCa::load(directory.path(), &domain, provider).unwrap());
        let workload = WorkloadRef {
            id: 1,
            name: "web".to_owned(),
            spiffe_id: Some("spiffe://example.org/web".parse().unwrap()),
            processes: watch::Sender::default().subscribe(),
            membership: Membership(Arc::new(|_| false)),
        };
        tokio::spawn(EmbeddedCa::keep_current(Arc::downgrade(&ca)));
        let (sender, mut updates) = mpsc::channel(4);
        let source = Arc::new(CaSource { ca, ttl: Duration::from_secs(4) });
        tokio::spawn(source.follow(Updates::new(sender, workload, 1)));
        let mut next = async || match updates.recv().await {
            Some((_, _, Update::Snapshot(snapshot))) => snapshot,
            other => panic!("{other:?}"),
        };
        let [first, second] = [next().await, next().await];
        assert_eq!(first.svid.id, second.svid.id);
        assert_ne!(first.svid.facts.serial, second.svid.facts.serial);
        Roots::rotate(directory.path(), &domain, Duration::from_secs(3600)).unwrap();
        let mut latest = second;
        while latest.trust.domain(&domain).unwrap().bundle.authorities().len() < 2 {
            latest = next().await;
        }
    }
}
