//! Where the identities of pods come from.

use std::path::PathBuf;
use std::sync::Arc;

use crate::controller_api::LinkSettings;
use crate::follow::{Check, Following, Problem};
use crate::identity::{
    CaSettings, ControllerSettings, Shared, Source, SourceSettings, SpireSelector, SpireSettings,
    Update, Updates, check_controller,
};
use crate::kubernetes::{Pod, Unsupported};
use crate::peer::crypto_provider;
use crate::spiffe::SpiffeId;

/// The source of the identities of all pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodIdentities {
    /// The embedded CA: this node holds the CA's key.
    Ca(CaSettings),
    /// A SPIRE agent, which attests pods by its Kubernetes attestor.
    Spire { socket: PathBuf },
    /// The cluster's controller, which knows pods as the API server does.
    Controller(LinkSettings),
}

impl PodIdentities {
    /// The source for one pod.
    #[must_use]
    pub fn of(&self, pod: &Pod) -> Arc<dyn SourceSettings> {
        match self {
            Self::Ca(settings) => Arc::new(settings.clone()),
            Self::Spire { socket } => Arc::new(SpireSettings {
                socket: socket.clone(),
                // An entry has some of these: by its uid, as SPIRE's controller manager writes it, or by what it is.
                selectors: [
                    format!("pod-uid:{}", pod.uid),
                    format!("ns:{}", pod.namespace),
                    format!("sa:{}", pod.service_account),
                ]
                .map(|value| SpireSelector { kind: "k8s".to_owned(), value })
                .into(),
            }),
            Self::Controller(link) => {
                Arc::new(ControllerSettings { link: link.clone(), pod: pod.uid })
            }
        }
    }
}

impl PodIdentities {
    /// For `sheath check`: whether identities can be had now, where all pods have the same way to them.
    pub async fn check(&self) -> Option<Check> {
        match self {
            Self::Controller(link) => {
                Some(check_controller(link, Arc::new(crypto_provider())).await)
            }
            Self::Ca(_) | Self::Spire { .. } => None,
        }
    }
}

/// The source for pods that get no identity. Their connections are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoIdentities {
    pub reason: Unsupported,
}

impl SourceSettings for NoIdentities {
    fn kind(&self) -> &'static str {
        "none"
    }

    fn open(&self, _: &mut Shared) -> Result<Arc<dyn Source>, Problem> {
        Ok(Arc::new(*self))
    }

    fn check(&self, _: &str, _: Option<&SpiffeId>) -> Option<Check> {
        None
    }
}

impl Source for NoIdentities {
    fn follow(self: Arc<Self>, updates: Updates) -> Following {
        Box::pin(async move {
            updates.send(Update::Waiting(self.reason.into())).await?;
            std::future::pending().await
        })
    }
}
