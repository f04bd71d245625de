//! The controller's CA: roots that live long and are told to agents, and an intermediate that signs SVIDs.
//!
//! All of it is in a Secret, which the leader alone writes and no agent can read. What signs is in memory: a Secret that is damaged
//! or gone stops nothing that runs, and is never overwritten.

mod keeper;
mod make;
mod plan;
mod provided;
mod state;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use rcgen::PublicKeyData;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::flow::Role;
use crate::follow::Problem;
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::trust::{
    AuthenticationError, Authenticator, BundleError, Method, PeerChain, Trust, TrustBundle,
};
use crate::x509::{CertificateFacts, KeyPair, KeyPairError, X509Error};

use make::Maker;
use state::{Issuer, State};

pub use keeper::{Keeper, SECRET};

/// How long what a CA makes lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub svid_ttl: Duration,
    pub intermediate_ttl: Duration,
    pub root_ttl: Duration,
    /// How long a new root is only told to agents before it signs.
    pub distribute: Duration,
}

impl Terms {
    /// How long before a root's end there is to be another: that has to be told, and then whatever the old one has signed has to end.
    #[must_use]
    pub fn root_renewal(&self) -> Duration {
        self.distribute + 2 * self.intermediate_ttl
    }
}

/// The roots of the trust domain.
pub type RootList = Arc<[CertificateDer<'static>]>;

/// What can go wrong with the CA.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("the controller has no CA yet{}", why(.0.as_ref()))]
    None(Option<Problem>),
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error("a certificate that was made cannot be read: {0}")]
    Made(#[from] X509Error),
    #[error("a certificate that was made cannot be used: {0}")]
    Pair(#[from] KeyPairError),
    #[error("its roots cannot be used: {0}")]
    Bundle(#[from] BundleError),
    #[error("what it signs does not prove anything: {0}")]
    Proof(#[from] AuthenticationError),
}

fn why(problem: Option<&Problem>) -> String {
    problem.map(|problem| format!(": {problem}")).unwrap_or_default()
}

/// The CA at work.
pub struct Authority {
    maker: Maker,
    /// The controller's own identity.
    own: SpiffeId,
    provider: Arc<CryptoProvider>,
    current: ArcSwapOption<Current>,
    roots: watch::Sender<RootList>,
    /// Why there is nothing, or nothing newer.
    problem: watch::Sender<Option<Problem>>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("own", &self.own).finish_non_exhaustive()
    }
}

/// A CA, for whoever looks after it.
#[derive(Clone, Debug)]
pub struct AuthorityStatus {
    /// When the root that has signed what signs ends, and when that itself does; `None` if there is no CA.
    pub ends: Option<(SystemTime, SystemTime)>,
    pub roots: usize,
    /// Why there is nothing, or nothing newer.
    pub problem: Option<String>,
}

/// What signs now.
struct Current {
    state: State,
    /// What the controller shows to agents, and when it is replaced.
    shown: Arc<CertifiedKey>,
    renewal: SystemTime,
}

impl Authority {
    /// A CA that has nothing yet. `own` is the controller's own identity.
    #[must_use]
    pub fn new(own: SpiffeId, terms: Terms, provider: Arc<CryptoProvider>) -> Self {
        let maker = Maker {
            trust_domain: own.trust_domain().clone(),
            terms,
            random: provider.secure_random,
        };
        Self {
            maker,
            own,
            provider,
            current: ArcSwapOption::empty(),
            roots: watch::Sender::new(Arc::from([])),
            problem: watch::Sender::new(None),
        }
    }

    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        self.own.trust_domain()
    }

    #[must_use]
    pub fn status(&self) -> AuthorityStatus {
        let current = self.current.load();
        let ends = current.as_ref().map(|current| current.state.ends());
        let problem = self.problem.borrow().as_ref().map(ToString::to_string);
        AuthorityStatus { ends, roots: self.roots.borrow().len(), problem }
    }

    /// The roots, and whenever they change. Empty until there is a CA.
    #[must_use]
    pub fn roots(&self) -> watch::Receiver<RootList> {
        self.roots.subscribe()
    }

    /// An SVID for somebody's public key: the leaf first, then the intermediate.
    ///
    /// # Errors
    /// If there is no CA, or if the key cannot be certified.
    pub fn issue(
        &self,
        id: &SpiffeId,
        key: &impl PublicKeyData,
    ) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        let current = self.current.load();
        let Some(current) = current.as_ref() else {
            return Err(AuthorityError::None(self.problem.borrow().clone()));
        };
        self.issue_by(&current.state, id, key)
    }

    fn issue_by(
        &self,
        state: &State,
        id: &SpiffeId,
        key: &impl PublicKeyData,
    ) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        let (intermediate, ttl) = (&state.intermediate, self.maker.terms.svid_ttl);
        let leaf = self.maker.svid(intermediate, id, key, ttl, SystemTime::now())?;
        Ok(std::iter::once(leaf).chain(state.chain()).collect())
    }

    /// Uses a CA from now on, if what it signs proves an identity by its own roots.
    ///
    /// # Errors
    /// If it does not; then the one before stays.
    fn adopt(&self, state: State) -> Result<(), AuthorityError> {
        let (shown, renewal) = self.prove(&state)?;
        let roots: RootList = state.root_certificates().into();
        self.current.store(Some(Arc::new(Current { state, shown, renewal })));
        self.problem.send_replace(None);
        self.roots.send_if_modified(|known| {
            let is_new = *known != roots;
            *known = roots;
            is_new
        });
        Ok(())
    }

    /// Whether what a CA of somebody else's signs would prove an identity.
    ///
    /// # Errors
    /// If it would not.
    fn try_out(&self, issuer: &Issuer) -> Result<(), AuthorityError> {
        self.prove(&self.maker.first_of(issuer, SystemTime::now())?).map(drop)
    }

    /// The controller's own SVID, proved as an agent proves it; and when to make the next.
    fn prove(&self, state: &State) -> Result<(Arc<CertifiedKey>, SystemTime), AuthorityError> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let key = Zeroizing::new(key);
        let chain = self.issue_by(state, &self.own, &*key)?;
        let bundle = TrustBundle::new(self.trust_domain().clone(), state.root_certificates())?;
        let authenticator = Authenticator {
            trust: Trust::of_bundles([Arc::new(bundle)]),
            algorithms: self.provider.signature_verification_algorithms,
        };
        let peer = PeerChain { leaf: &chain[0], intermediates: &chain[1..] };
        let candidate = authenticator.candidate(peer, Role::Server, UnixTime::now())?;
        candidate.authenticate(Method::Svid)?;
        let now = SystemTime::now();
        let life = CertificateFacts::of(&chain[0])?.not_after.duration_since(now);
        let der = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        let pair = KeyPair::new(chain, &Zeroizing::new(der))?;
        Ok((pair.key, now + life.unwrap_or_default() / 2))
    }

    /// Makes the controller's own SVID anew when it is due.
    fn renew(&self, now: SystemTime) -> Result<(), AuthorityError> {
        match self.current.load_full() {
            Some(current) if current.renewal <= now => self.adopt(current.state.clone()),
            _ => Ok(()),
        }
    }
}

impl ResolvesServerCert for Authority {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load().as_ref().map(|current| current.shown.clone())
    }
}

#[cfg(test)]
mod tests;
