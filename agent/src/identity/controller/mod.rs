//! Identities of pods from the cluster's controller. The key of each is made here, is in memory alone, and goes nowhere; the
//! controller certifies it for the service account that the pod has.

mod check;
mod error;
mod roots;
mod sign;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use sheath_common::pod_uid::PodUid;

use crate::controller_api::LinkSettings;
use crate::follow::{Backoff, Check, Following, Problem, Unfollowed, jitter};
use crate::identity::renewal::{self, renewal_of};
use crate::identity::{Shared, Snapshot, Source, SourceSettings, Svid, Update, Updates};
use crate::spiffe::SpiffeId;
use crate::trust::Trust;

use error::ControllerError;
use roots::{Controller, is_proved};

pub use check::check;

/// The controller, and the pod that the identity is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerSettings {
    pub link: LinkSettings,
    pub pod: PodUid,
}

impl SourceSettings for ControllerSettings {
    fn kind(&self) -> &'static str {
        "controller"
    }

    /// Needs a tokio runtime.
    fn open(&self, shared: &mut Shared) -> Result<Arc<dyn Source>, Problem> {
        // One connection for all pods of the node.
        let key = format!("{:?}", self.link);
        let controller = shared.get_or_make(Path::new(&key), |provider| {
            Ok::<_, ControllerError>(Arc::new(Controller::start(&self.link, provider.clone())))
        })?;
        Ok(Arc::new(ControllerSource { controller, pod: self.pod }))
    }

    fn check(&self, _: &str, _: Option<&SpiffeId>) -> Option<Check> {
        // Pods are not in the configuration. The controller is asked once, for all of them.
        None
    }
}

/// Follows one pod.
#[derive(Debug)]
struct ControllerSource {
    controller: Arc<Controller>,
    pod: PodUid,
}

impl Source for ControllerSource {
    fn follow(self: Arc<Self>, updates: Updates) -> Following {
        Box::pin(async move {
            let random = self.controller.link.provider().secure_random;
            let mut backoff = Backoff::new(random);
            let mut has_identity = false;
            loop {
                match self.identity(&updates).await {
                    Ok(snapshot) => {
                        backoff.reset();
                        has_identity = true;
                        self.keep(snapshot, &updates).await?;
                    }
                    Err(error) => {
                        let is_refused = error.is_refusal();
                        let problem = error.into();
                        updates
                            .send(match has_identity {
                                true => Update::Failed(problem),
                                false if is_refused => Update::Refused(problem),
                                false => Update::Waiting(problem),
                            })
                            .await?;
                        tokio::time::sleep(backoff.pause()).await;
                    }
                }
            }
        })
    }
}

impl ControllerSource {
    /// A new identity.
    async fn identity(&self, updates: &Updates) -> Result<Snapshot, ControllerError> {
        let bundle = self.controller.bundle().await?;
        let expected = updates.workload().spiffe_id.as_ref();
        let svid = sign::svid(&self.controller.link, self.pod, expected).await?;
        let provider = self.controller.link.provider();
        is_proved(&svid, &bundle, provider)?;
        tracing::info!(workload = updates.workload().name, id = %svid.name(), serial = svid.facts.serial, "SVID received");
        let next_renewal = renewal_of(&svid, jitter(provider.secure_random));
        Ok(Snapshot {
            svid: Arc::new(svid),
            trust: Trust::of_bundles([bundle]),
            next_renewal: Some(next_renewal),
        })
    }

    /// Tells an identity, and its trust whenever roots change, until there must be another one.
    async fn keep(&self, mut current: Snapshot, updates: &Updates) -> Result<(), Unfollowed> {
        let mut roots = self.controller.roots();
        roots.mark_unchanged();
        updates.send(Update::Snapshot(current.clone())).await?;
        let planned = current.next_renewal.unwrap_or(SystemTime::now());
        loop {
            tokio::select! {
                () = renewal::due(&current.svid, planned) => return Ok(()),
                changed = roots.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
            }
            let told = roots.borrow_and_update().clone();
            match told {
                // What is known of roots stays.
                Err(_) => {}
                Ok(bundle) => {
                    let svid: &Svid = &current.svid;
                    // Nobody takes it for anything any more.
                    if is_proved(svid, &bundle, self.controller.link.provider()).is_err() {
                        return Ok(());
                    }
                    current.trust = Trust::of_bundles([bundle]);
                    updates.send(Update::Snapshot(current.clone())).await?;
                }
            }
        }
    }
}
