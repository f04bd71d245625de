//! For `sheath check`: whether the controller is reached, takes the agent's token, and has the roots that are here.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use tonic::Code;

use super::ControllerError;
use super::roots::bundle;
use crate::controller_api::identities::{FollowRootsRequest, IdentitiesClient};
use crate::controller_api::{Link, LinkError, LinkSettings};
use crate::follow::Check;
use crate::x509::CertificateFile;

/// How long the roots may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the controller. Changes nothing.
pub async fn check(settings: &LinkSettings, provider: Arc<CryptoProvider>) -> Check {
    let link = Link::new(settings.clone(), provider);
    let address = &settings.address;
    match roots_fit(&link).await {
        Ok(true) => Check::Good {
            found: format!(
                "the controller at {address} is {}, takes this agent's token, and its roots are those in {}",
                settings.spiffe_id,
                settings.roots.display()
            ),
        },
        Ok(false) => Check::Doubtful {
            found: format!(
                "the controller at {address} has other roots than {}",
                settings.roots.display()
            ),
            advice: "while roots change, a file of the kubelet's is up to two minutes behind; look again then".to_owned(),
        },
        Err(error) => failed(&error),
    }
}

async fn roots_fit(link: &Link) -> Result<bool, ControllerError> {
    let answer = link
        .call(|carrier| async move {
            IdentitiesClient::new(carrier).follow_roots(FollowRootsRequest {}).await
        })
        .await?;
    let mut stream = answer.into_inner();
    let told = match tokio::time::timeout(PATIENCE, stream.message()).await {
        Ok(Ok(Some(roots))) => bundle(roots, link)?,
        Ok(Ok(None)) => return Err(ControllerError::Ended),
        Ok(Err(status)) => return Err(LinkError::from(status).into()),
        Err(_) => return Err(LinkError::Silent(PATIENCE).into()),
    };
    let here = CertificateFile::read(&link.settings().roots).map_err(LinkError::from)?;
    let told = told.authorities();
    let is_in = |root: &_, others: &[_]| others.contains(root);
    Ok(told.iter().all(|root| is_in(root, &here.certificates))
        && here.certificates.iter().all(|root| is_in(root, told)))
}

fn failed(error: &ControllerError) -> Check {
    let found = error.to_string();
    let advice = "pods of this node get no identity until this is mended; those that have one keep it until it expires";
    let advice = advice.to_owned();
    match error {
        ControllerError::Link(
            LinkError::Unreachable { .. } | LinkError::NoLeader | LinkError::Silent(_),
        ) => Check::Doubtful { found, advice },
        ControllerError::Link(LinkError::Refused(status)) if status.code() == Code::Unavailable => {
            Check::Doubtful { found, advice }
        }
        _ => Check::Bad { found, advice },
    }
}
