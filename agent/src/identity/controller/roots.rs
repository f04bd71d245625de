//! The roots of the trust domain, followed for all pods of the node at once.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::ControllerError;
use crate::controller_api::identities::{FollowRootsRequest, IdentitiesClient, Roots};
use crate::controller_api::{LONGEST_MESSAGE, Link, LinkSettings};
use crate::flow::Role;
use crate::follow::{Backoff, Problem};
use crate::identity::Svid;
use crate::trust::{Authenticator, Method, PeerChain, Trust, TrustBundle};

/// Roots that a trust domain may have at a time.
const MOST_ROOTS: usize = 64;
/// How long a pod waits for roots before it says that there are none.
const PATIENCE: Duration = Duration::from_secs(5);

/// The roots; or why there are none yet.
pub type Told = Result<Arc<TrustBundle>, Problem>;

/// The controller, for all pods of the node.
#[derive(Debug)]
pub struct Controller {
    pub link: Arc<Link>,
    roots: watch::Receiver<Told>,
    following: AbortHandle,
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.following.abort();
    }
}

/// No answer has come yet.
#[derive(Debug, thiserror::Error)]
#[error("the controller is asked for the roots of the trust domain")]
struct Asked;

impl Controller {
    /// Begins to follow the roots. Needs a tokio runtime.
    pub fn start(settings: &LinkSettings, provider: Arc<CryptoProvider>) -> Self {
        let link = Arc::new(Link::new(settings.clone(), provider));
        let (sender, roots) = watch::channel(Err(Asked.into()));
        let following = tokio::spawn(follow(link.clone(), sender)).abort_handle();
        Self { link, roots, following }
    }

    pub fn roots(&self) -> watch::Receiver<Told> {
        self.roots.clone()
    }

    /// The roots, which may have to be waited for.
    ///
    /// # Errors
    /// If there are none in time.
    pub async fn bundle(&self) -> Result<Arc<TrustBundle>, ControllerError> {
        let mut roots = self.roots.clone();
        let told = tokio::time::timeout(PATIENCE, roots.wait_for(Result::is_ok)).await;
        if let Ok(Ok(told)) = told
            && let Ok(bundle) = &*told
        {
            return Ok(bundle.clone());
        }
        let now = self.roots.borrow().clone();
        now.map_err(ControllerError::Roots)
    }
}

/// Follows the roots. Never ends. What was told stays when nothing more is heard.
async fn follow(link: Arc<Link>, sender: watch::Sender<Told>) {
    let mut backoff = Backoff::new(link.provider().secure_random);
    loop {
        let error = stream(&link, &sender, &mut backoff).await;
        if !matches!(error, ControllerError::Ended) {
            tracing::warn!(%error, "no roots of the controller");
        }
        sender.send_if_modified(|told| match told {
            Ok(_) => false,
            Err(problem) => {
                *problem = error.into();
                true
            }
        });
        tokio::time::sleep(backoff.pause()).await;
    }
}

/// One stream, until it ends.
async fn stream(
    link: &Link,
    sender: &watch::Sender<Told>,
    backoff: &mut Backoff,
) -> ControllerError {
    let opened = link
        .call(|carrier| {
            let mut client =
                IdentitiesClient::new(carrier).max_decoding_message_size(LONGEST_MESSAGE);
            async move { client.follow_roots(FollowRootsRequest {}).await }
        })
        .await;
    let mut stream = match opened {
        Ok(stream) => stream.into_inner(),
        Err(error) => return error.into(),
    };
    loop {
        let bundle = match stream.message().await {
            Ok(Some(roots)) => bundle(roots, link),
            Ok(None) => return ControllerError::Ended,
            Err(status) => return crate::controller_api::LinkError::from(status).into(),
        };
        let bundle = match bundle {
            Ok(bundle) => bundle,
            Err(error) => return error,
        };
        backoff.reset();
        sender.send_if_modified(|told| {
            let is_new =
                told.as_ref().map_or(true, |known| known.authorities() != bundle.authorities());
            if is_new {
                tracing::info!(roots = bundle.authorities().len(), "roots of the trust domain");
                *told = Ok(Arc::new(bundle));
            }
            is_new
        });
    }
}

/// # Errors
/// If they cannot be roots.
pub fn bundle(roots: Roots, link: &Link) -> Result<TrustBundle, ControllerError> {
    let certificates = roots.certificates;
    if certificates.len() > MOST_ROOTS {
        return Err(ControllerError::TooMany(certificates.len(), MOST_ROOTS));
    }
    let domain = link.settings().spiffe_id.trust_domain().clone();
    let authorities = certificates.into_iter().map(CertificateDer::from).collect();
    Ok(TrustBundle::new(domain, authorities)?)
}

/// Whether peers that have these roots take an SVID for what it says.
///
/// # Errors
/// Why not.
pub fn is_proved(
    svid: &Svid,
    bundle: &Arc<TrustBundle>,
    provider: &CryptoProvider,
) -> Result<(), ControllerError> {
    let authenticator = Authenticator {
        trust: Trust::of_bundles([bundle.clone()]),
        algorithms: provider.signature_verification_algorithms,
    };
    let [leaf, intermediates @ ..] = svid.key.cert.as_slice() else {
        return Ok(());
    };
    let peer = PeerChain { leaf, intermediates };
    authenticator.candidate(peer, Role::Server, UnixTime::now())?.authenticate(Method::Svid)?;
    Ok(())
}
