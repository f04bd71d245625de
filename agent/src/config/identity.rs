//! Sources of identities in the configuration: those of the node, and the choice of each workload.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::limits::{self, SocketPathTooLong};
use super::raw;
use crate::controller_api::LinkSettings;
use crate::discovery::PodIdentities;
use crate::identity::{
    BundleFile, CaSettings, IdentityFiles, NotASelector, SourceSettings, SpireSelector,
    SpireSettings,
};
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::x509::KeyPairFiles;

/// The sources that the file sets up for the node.
#[derive(Debug)]
pub struct Sources {
    default: Option<raw::SourceKind>,
    ca: Option<CaSettings>,
    /// A directory with a subdirectory for each workload.
    files: Option<PathBuf>,
    /// The socket of the SPIRE agent.
    spire: Option<PathBuf>,
    /// The way to the controller, if pods have their identities from it.
    controller: Option<LinkSettings>,
}

/// The workload that a source is for.
pub struct Subject<'w> {
    pub name: &'w str,
    pub spiffe_id: Option<&'w SpiffeId>,
}

type Source = Arc<dyn SourceSettings>;

/// What is wrong with sources of identities in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("identity.{0} is not set up")]
    NotSetUp(&'static str),
    #[error("identity.source is `{0}`, but identity.{0} is not set up")]
    DefaultNotSetUp(&'static str),
    #[error("identity has several sources; identity.source must name the default one")]
    NoDefault,
    #[error("has no identity, as neither it nor the top of the file sets up a source")]
    NoSource,
    #[error("identity needs exactly one of `ca`, `files` and `spire`")]
    NotOne,
    #[error(
        "identity.files cannot be the source for pods, which come and go; set up `controller`, `ca` or `spire`"
    )]
    FilesForPods,
    #[error("identity.controller needs the section `controller`, which says where it is")]
    NoController,
    #[error("has no identity: the controller knows pods alone; set up another source for it")]
    NoPod,
    #[error("has no spiffeId, which the embedded CA needs")]
    NoSpiffeId,
    #[error("identity.ca.svidTtl is shorter than a minute")]
    ShortTtl,
    #[error("identity.ca.svidTtl is longer than a year")]
    LongTtl,
    #[error(
        "`{name}` cannot be the name of a directory below {}; set identity.files for it",
        dir.display()
    )]
    DirectoryName { name: String, dir: PathBuf },
    #[error("identity.spire.socket: {0}")]
    SpireSocket(#[from] SocketPathTooLong),
    #[error(transparent)]
    SpireSelector(#[from] NotASelector),
}

impl Sources {
    /// # Errors
    /// If a setting is invalid, or if there are several sources and none is the default.
    pub fn from_raw(
        raw: raw::Identity,
        trust_domain: &TrustDomain,
        link: Option<&LinkSettings>,
    ) -> Result<Self, SourceError> {
        let ca = raw.ca.map(|ca| CaSettings {
            dir: ca.dir,
            trust_domain: trust_domain.clone(),
            svid_ttl: ca.svid_ttl.0,
        });
        if let Some(ca) = &ca {
            check_ttl(ca.svid_ttl)?;
        }
        let files = raw.files.map(|files| files.dir);
        let spire = raw.spire.map(|spire| spire.socket);
        if let Some(socket) = &spire {
            limits::check_socket(socket)?;
        }
        let controller = match raw.controller {
            Some(_) => Some(link.cloned().ok_or(SourceError::NoController)?),
            None => None,
        };
        let is_set_up = [
            (raw::SourceKind::Ca, ca.is_some()),
            (raw::SourceKind::Files, files.is_some()),
            (raw::SourceKind::Spire, spire.is_some()),
            (raw::SourceKind::Controller, controller.is_some()),
        ];
        let set_up = is_set_up.into_iter().filter_map(|(kind, is)| is.then_some(kind)).collect();
        Ok(Self { default: default(raw.source, set_up)?, ca, files, spire, controller })
    }

    /// The source of pods' identities: the default one.
    ///
    /// # Errors
    /// If there is none, or it cannot serve pods.
    pub fn of_pods(&self) -> Result<PodIdentities, SourceError> {
        match self.default {
            Some(raw::SourceKind::Ca) => {
                self.ca.clone().map(PodIdentities::Ca).ok_or(SourceError::NotSetUp("ca"))
            }
            Some(raw::SourceKind::Spire) => {
                let socket = self.spire.clone().ok_or(SourceError::NotSetUp("spire"))?;
                Ok(PodIdentities::Spire { socket })
            }
            Some(raw::SourceKind::Controller) => {
                let link = self.controller.clone().ok_or(SourceError::NotSetUp("controller"))?;
                Ok(PodIdentities::Controller(link))
            }
            Some(raw::SourceKind::Files) => Err(SourceError::FilesForPods),
            None => Err(SourceError::NoSource),
        }
    }

    /// The source of a workload's identity: its own choice, or the default.
    ///
    /// # Errors
    /// If there is no such source, or if it cannot serve this workload.
    pub fn of(
        &self,
        workload: &Subject<'_>,
        raw: Option<raw::WorkloadIdentity>,
    ) -> Result<Source, SourceError> {
        match raw {
            None => self.by_default(workload),
            Some(raw) => self.chosen(workload, raw),
        }
    }

    fn by_default(&self, workload: &Subject<'_>) -> Result<Source, SourceError> {
        match self.default {
            Some(raw::SourceKind::Ca) => self.ca(workload, None),
            Some(raw::SourceKind::Files) => self.files(workload),
            Some(raw::SourceKind::Spire) => self.spire(Vec::new()),
            Some(raw::SourceKind::Controller) => Err(SourceError::NoPod),
            None => Err(SourceError::NoSource),
        }
    }

    fn chosen(
        &self,
        workload: &Subject<'_>,
        raw: raw::WorkloadIdentity,
    ) -> Result<Source, SourceError> {
        match raw {
            raw::WorkloadIdentity { ca: Some(ca), files: None, spire: None } => {
                self.ca(workload, ca.svid_ttl.map(|ttl| ttl.0))
            }
            raw::WorkloadIdentity { ca: None, files: Some(files), spire: None } => {
                Ok(Arc::new(IdentityFiles {
                    pair: KeyPairFiles {
                        certificate: files.certificate,
                        key: files.key,
                        allow_readable_key: files.allow_readable_key,
                    },
                    bundle: files.bundle.map(|path| BundleFile { path, required: true }),
                }))
            }
            raw::WorkloadIdentity { ca: None, files: None, spire: Some(spire) } => {
                let selectors = spire.selectors.iter().map(|text| SpireSelector::parse(text));
                self.spire(selectors.collect::<Result<_, _>>()?)
            }
            _ => Err(SourceError::NotOne),
        }
    }

    fn ca(
        &self,
        workload: &Subject<'_>,
        svid_ttl: Option<Duration>,
    ) -> Result<Source, SourceError> {
        let ca = self.ca.clone().ok_or(SourceError::NotSetUp("ca"))?;
        let svid_ttl = svid_ttl.unwrap_or(ca.svid_ttl);
        check_ttl(svid_ttl)?;
        if workload.spiffe_id.is_none() {
            return Err(SourceError::NoSpiffeId);
        }
        Ok(Arc::new(CaSettings { svid_ttl, ..ca }))
    }

    fn files(&self, workload: &Subject<'_>) -> Result<Source, SourceError> {
        let dir = self.files.as_deref().unwrap_or(Path::new(""));
        let name = workload.name;
        if name.contains('/') || name.starts_with('.') {
            let (name, dir) = (name.to_owned(), dir.to_owned());
            return Err(SourceError::DirectoryName { name, dir });
        }
        let dir = dir.join(name);
        Ok(Arc::new(IdentityFiles {
            pair: KeyPairFiles {
                certificate: dir.join("tls.crt"),
                key: dir.join("tls.key"),
                allow_readable_key: false,
            },
            bundle: Some(BundleFile { path: dir.join("ca.crt"), required: false }),
        }))
    }

    fn spire(&self, selectors: Vec<SpireSelector>) -> Result<Source, SourceError> {
        let socket = self.spire.clone().ok_or(SourceError::NotSetUp("spire"))?;
        Ok(Arc::new(SpireSettings { socket, selectors }))
    }

    /// Directory of the embedded CA.
    pub fn ca_dir(&self) -> Option<&Path> {
        self.ca.as_ref().map(|ca| ca.dir.as_path())
    }

    /// True if trust bundles of any trust domain may come from a source.
    pub fn may_federate(&self) -> bool {
        self.spire.is_some()
    }
}

/// The source of workloads that do not choose one.
fn default(
    named: Option<raw::SourceKind>,
    set_up: Vec<raw::SourceKind>,
) -> Result<Option<raw::SourceKind>, SourceError> {
    match (named, set_up.as_slice()) {
        (Some(source), set_up) if set_up.contains(&source) => Ok(Some(source)),
        (Some(source), _) => Err(SourceError::DefaultNotSetUp(source.name())),
        (None, [only]) => Ok(Some(*only)),
        (None, []) => Ok(None),
        (None, _) => Err(SourceError::NoDefault),
    }
}

fn check_ttl(ttl: Duration) -> Result<(), SourceError> {
    if ttl < Duration::from_secs(60) {
        return Err(SourceError::ShortTtl);
    }
    if ttl > Duration::from_secs(366 * 24 * 60 * 60) {
        return Err(SourceError::LongTtl);
    }
    Ok(())
}
