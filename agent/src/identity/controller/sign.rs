//! An SVID: a key that is made here, and a certificate for it.

use rcgen::{CertificateParams, KeyPair as NewKey, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sheath_common::pod_uid::PodUid;
use zeroize::Zeroizing;

use super::ControllerError;
use crate::controller_api::identities::{IdentitiesClient, SignRequest};
use crate::controller_api::{LONGEST_MESSAGE, Link};
use crate::identity::Svid;
use crate::spiffe::SpiffeId;
use crate::x509::KeyPair;

/// Certificates that a chain may have: one intermediate, and as many as another controller may need some day.
const MOST_CERTIFICATES: usize = 4;

/// Asks for an SVID of a pod.
///
/// # Errors
/// If the controller gives none, or one that is not of this key or not of the expected identity.
pub async fn svid(
    link: &Link,
    pod: PodUid,
    expected: Option<&SpiffeId>,
) -> Result<Svid, ControllerError> {
    let key = Zeroizing::new(NewKey::generate_for(&PKCS_ECDSA_P256_SHA256)?);
    // It says nothing but the key: who the pod is, the controller knows better.
    let csr = CertificateParams::default().serialize_request(&*key)?.der().to_vec();
    let request = SignRequest { pod_uid: pod.to_string(), csr };
    let answer = link
        .call(|carrier| {
            let mut client =
                IdentitiesClient::new(carrier).max_decoding_message_size(LONGEST_MESSAGE);
            let request = request.clone();
            async move { client.sign(request).await }
        })
        .await?;
    let chain = answer.into_inner().chain;
    if chain.len() > MOST_CERTIFICATES {
        return Err(ControllerError::TooMany(chain.len(), MOST_CERTIFICATES));
    }
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let pair = KeyPair::new(chain, &Zeroizing::new(der))?;
    Ok(Svid::new(pair, expected, None)?)
}
