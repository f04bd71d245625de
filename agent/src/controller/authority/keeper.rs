//! Keeps the CA: in its Secret, in memory, and its roots in a ConfigMap.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use zeroize::Zeroizing;

use super::plan::{self, Due, Wanted};
use super::provided::{self, ProvidedError};
use super::state::{Issuer, State, StateError, pem_of};
use super::{Authority, AuthorityError};
use crate::controller::leader::Leadership;
use crate::follow::Problem;
use crate::kubernetes::WatchProblem;

/// Name of the Secret.
pub const SECRET: &str = "sheath-ca";
/// Its only entry.
const ENTRY: &str = "ca.json";
/// Name of the ConfigMap with the roots, and its entry.
const ROOTS: &str = "sheath-roots";
const ROOTS_ENTRY: &str = "roots.pem";
/// Whoever wants another root gives the Secret this annotation.
const ROTATE: &str = "sheath.dev/rotate-root";

/// How often the Secret is read.
const LOOK: Duration = Duration::from_secs(3);
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Changes that are made one after the other.
const MOST_CHANGES: usize = 8;

/// Why the CA cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    #[error("the {what}: {error}")]
    Api { what: &'static str, error: WatchProblem },
    #[error("the API server does not answer in time")]
    Silent,
    #[error(
        "the Secret {SECRET} holds no CA that can be used: {0}; restore it from a backup. It is not overwritten, and what was known of it goes on"
    )]
    Unreadable(#[from] StateError),
    #[error("the Secret {SECRET} has no `{ENTRY}`, but other entries; is it another one's?")]
    Foreign,
    #[error(
        "the Secret {SECRET} is gone; restore it from a backup. What was known of it goes on as long as this replica runs"
    )]
    Gone,
    #[error(
        "there is no Secret {SECRET}, but the ConfigMap {ROOTS} has roots: there was a CA. Restore the Secret from a backup, or remove the ConfigMap to begin with a new CA, which nobody trusts who trusted the old one"
    )]
    Lost,
    #[error("it waits for the replica that leads to make the CA")]
    Waiting,
    #[error(
        "the Secret {secret} of identity.secret has no CA that can be used: {problem}; what was known goes on as it was"
    )]
    Provided { secret: String, problem: String },
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// Looks after the CA.
pub struct Keeper {
    authority: Arc<Authority>,
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
    leadership: Leadership,
    /// The version of the Secret that is in use.
    version: Option<String>,
    /// Why the CA that was read last cannot be used.
    unusable: Option<AuthorityError>,
    provided: Option<Provided>,
}

/// A CA that somebody else makes.
struct Provided {
    /// Of the Secret.
    name: String,
    /// The version of the Secret that is in use, and what it has.
    version: Option<String>,
    issuer: Option<Issuer>,
    /// Why there is none, or none newer.
    problem: Option<String>,
}

/// Why a Secret of somebody else's is of no use.
#[derive(Debug, thiserror::Error)]
enum Useless {
    #[error("there is no such Secret")]
    Missing,
    #[error(transparent)]
    Api(#[from] WatchProblem),
    #[error(transparent)]
    Malformed(#[from] ProvidedError),
    #[error("{0}")]
    Unproved(#[from] AuthorityError),
}

impl Keeper {
    #[must_use]
    pub fn new(
        authority: Arc<Authority>,
        client: Client,
        namespace: &str,
        leadership: Leadership,
        provided: Option<String>,
    ) -> Self {
        let provided =
            provided.map(|name| Provided { name, version: None, issuer: None, problem: None });
        Self {
            authority,
            secrets: Api::namespaced(client.clone(), namespace),
            config_maps: Api::namespaced(client, namespace),
            leadership,
            version: None,
            unusable: None,
            provided,
        }
    }

    /// Never ends.
    pub async fn run(mut self) {
        loop {
            let looked = match tokio::time::timeout(PATIENCE, self.look()).await {
                Ok(looked) => looked,
                Err(_) => Err(KeeperError::Silent),
            };
            match looked {
                Ok(()) => {
                    self.authority.problem.send_replace(None);
                }
                // Somebody else was faster: the next look shows what is now.
                Err(KeeperError::Api {
                    error: WatchProblem::Refused { code: 409, .. }, ..
                }) => {}
                Err(error) => self.report(error),
            }
            let leads = self.leadership.is_held();
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.leadership.gained(), if !leads => {}
            }
        }
    }

    /// Says what is wrong, once.
    fn report(&self, error: KeeperError) {
        let is_wait = matches!(error, KeeperError::Waiting);
        let problem = Problem::from(error);
        self.authority.problem.send_if_modified(|known| {
            let is_new = known.as_ref() != Some(&problem);
            if is_new && is_wait {
                tracing::info!(%problem, "the CA");
            } else if is_new {
                tracing::error!(%problem, "the CA");
            }
            *known = Some(problem);
            is_new
        });
    }

    async fn look(&mut self) -> Result<(), KeeperError> {
        // Where the intermediate has ended nothing can be made, and nothing proved, until what is due has been done.
        let renewed = self.authority.renew(SystemTime::now());
        if self.leadership.is_held() {
            self.look_at_provided().await;
        }
        let found = self.secrets.get_opt(SECRET).await.map_err(api("Secret sheath-ca"))?;
        let Some(secret) = found else {
            return self.begin(None).await;
        };
        let data = secret.data.as_ref();
        match data.and_then(|data| data.get(ENTRY)) {
            None if data.is_none_or(BTreeMap::is_empty) => self.begin(Some(secret)).await,
            None => Err(KeeperError::Foreign),
            Some(document) => {
                let state = self.take(&secret, document)?;
                if self.leadership.is_held() {
                    self.tend(secret, state).await?;
                }
                match self.unusable.take() {
                    Some(error) => Err(error.into()),
                    // By now there may be another.
                    None if renewed.is_err() => Ok(self.authority.renew(SystemTime::now())?),
                    None => self.is_provided(),
                }
            }
        }
    }

    /// Looks for the CA that somebody else makes, if there is to be one. What was found before stays.
    async fn look_at_provided(&mut self) {
        let Some(known) = &mut self.provided else {
            return;
        };
        let found = self.secrets.get_opt(&known.name).await;
        let found = found.map_err(|error| Useless::Api(WatchProblem::of_request(&error)));
        let judged = found.and_then(|secret| {
            let secret = secret.ok_or(Useless::Missing)?;
            let version = secret.metadata.resource_version;
            if version.is_some() && version == known.version {
                return Ok(None);
            }
            let issuer = provided::read(&secret.data.unwrap_or_default(), SystemTime::now())?;
            self.authority.try_out(&issuer)?;
            Ok(Some((version, issuer)))
        });
        known.problem = judged.as_ref().err().map(ToString::to_string);
        if let Ok(Some((version, issuer))) = judged {
            let subject = &issuer.authority.facts.subject;
            tracing::info!(secret = known.name, subject, "a CA is provided");
            (known.version, known.issuer) = (version, Some(issuer));
        }
    }

    /// # Errors
    /// If somebody else is to make the CA, and it cannot be used.
    fn is_provided(&self) -> Result<(), KeeperError> {
        let known = self.provided.as_ref().filter(|_| self.leadership.is_held());
        match known.map(|known| (&known.name, &known.problem)) {
            Some((secret, Some(problem))) => {
                let (secret, problem) = (secret.clone(), problem.clone());
                Err(KeeperError::Provided { secret, problem })
            }
            _ => Ok(()),
        }
    }

    fn wanted(&self, is_asked: bool) -> Wanted<'_> {
        match &self.provided {
            None => Wanted::Own(is_asked),
            Some(known) => Wanted::Provided(known.issuer.as_ref()),
        }
    }

    /// The CA of a Secret, which is in use from now on.
    fn take(&mut self, secret: &Secret, document: &ByteString) -> Result<State, KeeperError> {
        let current = self.authority.current.load_full();
        let version = secret.metadata.resource_version.clone();
        if let Some(current) = current.filter(|_| version.is_some() && version == self.version) {
            return Ok(current.state.clone());
        }
        let state = State::read(&document.0, self.authority.trust_domain())?;
        self.adopt(&state, version);
        Ok(state)
    }

    /// Uses a CA from now on, if it can be used.
    fn adopt(&mut self, state: &State, version: Option<String>) {
        self.unusable = self.authority.adopt(state.clone()).err();
        self.version = version.filter(|_| self.unusable.is_none());
    }

    /// Makes a CA where there has never been one. `empty` is a Secret that somebody has made for it.
    async fn begin(&mut self, empty: Option<Secret>) -> Result<(), KeeperError> {
        if self.authority.current.load().is_some() {
            return Err(KeeperError::Gone);
        }
        if !self.leadership.is_held() {
            return Err(KeeperError::Waiting);
        }
        let published = self.config_maps.get_opt(ROOTS).await.map_err(api(ROOTS_NAME))?;
        if published.as_ref().and_then(roots_of).is_some_and(|roots| !roots.trim().is_empty()) {
            return Err(KeeperError::Lost);
        }
        let (maker, now) = (&self.authority.maker, SystemTime::now());
        let state = match self.wanted(false) {
            Wanted::Own(_) => maker.first(now)?,
            Wanted::Provided(Some(issuer)) => maker.first_of(issuer, now)?,
            // There is a reason, once the Secret was looked for.
            Wanted::Provided(None) => return self.is_provided().and(Err(KeeperError::Waiting)),
        };
        tracing::info!(root = state.roots[0].authority.facts.subject, "a new CA is made");
        let secret = self.write(empty, &state, false).await?;
        self.tend(secret, state).await
    }

    /// Makes what is due, and tells the roots.
    async fn tend(&mut self, mut secret: Secret, mut state: State) -> Result<(), KeeperError> {
        for _ in 0..MOST_CHANGES {
            self.publish(&state).await?;
            let is_asked = annotations(&secret).is_some_and(|all| all.contains_key(ROTATE));
            let (maker, now) = (&self.authority.maker, SystemTime::now());
            let wanted = self.wanted(is_asked);
            let Some(due) = plan::due(&state, &maker.terms, wanted, now) else {
                break;
            };
            // Whoever leads no more changes nothing.
            if !self.leadership.is_held() {
                break;
            }
            tracing::info!(?due, roots = state.roots.len(), "the CA changes");
            state = plan::changed(&state, due, wanted, maker, now)?;
            secret = self.write(Some(secret), &state, due == Due::Root).await?;
        }
        Ok(())
    }

    /// Writes the Secret, unless somebody else has meanwhile; and then uses what is in it.
    async fn write(
        &mut self,
        found: Option<Secret>,
        state: &State,
        is_answer: bool,
    ) -> Result<Secret, KeeperError> {
        let is_new = found.is_none();
        let mut secret = found.unwrap_or_else(|| Secret {
            metadata: ObjectMeta { name: Some(SECRET.to_owned()), ..ObjectMeta::default() },
            ..Secret::default()
        });
        if let Some(annotations) = secret.metadata.annotations.as_mut().filter(|_| is_answer) {
            annotations.remove(ROTATE);
        }
        let document: Zeroizing<Vec<u8>> = state.write();
        let data = secret.data.get_or_insert_default();
        data.insert(ENTRY.to_owned(), ByteString(document.to_vec()));
        let options = PostParams::default();
        let written = match is_new {
            true => self.secrets.create(&options, &secret).await,
            false => self.secrets.replace(SECRET, &options, &secret).await,
        };
        let written = written.map_err(api("Secret sheath-ca"))?;
        self.adopt(state, written.metadata.resource_version.clone());
        Ok(written)
    }

    /// Puts the roots where agents find them that know none yet.
    async fn publish(&self, state: &State) -> Result<(), KeeperError> {
        let roots: String =
            state.root_certificates().iter().map(|certificate| pem_of(certificate)).collect();
        let found = self.config_maps.get_opt(ROOTS).await.map_err(api(ROOTS_NAME))?;
        if found.as_ref().and_then(roots_of) == Some(&roots) || !self.leadership.is_held() {
            return Ok(());
        }
        let is_new = found.is_none();
        let mut map = found.unwrap_or_else(|| ConfigMap {
            metadata: ObjectMeta { name: Some(ROOTS.to_owned()), ..ObjectMeta::default() },
            ..ConfigMap::default()
        });
        map.data.get_or_insert_default().insert(ROOTS_ENTRY.to_owned(), roots);
        let options = PostParams::default();
        let written = match is_new {
            true => self.config_maps.create(&options, &map).await,
            false => self.config_maps.replace(ROOTS, &options, &map).await,
        };
        written.map_err(api(ROOTS_NAME))?;
        tracing::info!(roots = state.roots.len(), "roots published");
        Ok(())
    }
}

const ROOTS_NAME: &str = "ConfigMap sheath-roots";

fn roots_of(map: &ConfigMap) -> Option<&String> {
    map.data.as_ref()?.get(ROOTS_ENTRY)
}

fn annotations(secret: &Secret) -> Option<&BTreeMap<String, String>> {
    secret.metadata.annotations.as_ref()
}

fn api(what: &'static str) -> impl Fn(kube::Error) -> KeeperError {
    move |error| KeeperError::Api { what, error: WatchProblem::of_request(&error) }
}
