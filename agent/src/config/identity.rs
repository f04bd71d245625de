//! Where identities come from.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{limits, raw};
use crate::identity::{BundleFile, IdentityFiles, SourceConfig, SpireSelector};
use crate::spiffe::SpiffeId;
use crate::x509::KeyPairFiles;

/// Sources as the file sets them up.
#[derive(Debug)]
pub struct Sources {
    default: Option<raw::SourceKind>,
    ca: Option<(PathBuf, Duration)>,
    files: Option<PathBuf>,
    spire: Option<PathBuf>,
}

impl Sources {
    pub fn from_raw(raw: raw::Identity) -> Result<Self, String> {
        let ca = raw.ca.map(|ca| (ca.dir, ca.svid_ttl.0));
        if let Some((_, ttl)) = &ca {
            check_ttl(*ttl, "identity.ca.svidTtl")?;
        }
        let files = raw.files.map(|files| files.dir);
        let spire = raw.spire.map(|spire| spire.socket);
        if let Some(socket) = &spire {
            limits::check_socket(socket)
                .map_err(|error| format!("identity.spire.socket: {error}"))?;
        }
        let configured: Vec<_> = [
            ca.is_some().then_some(raw::SourceKind::Ca),
            files.is_some().then_some(raw::SourceKind::Files),
            spire.is_some().then_some(raw::SourceKind::Spire),
        ]
        .into_iter()
        .flatten()
        .collect();
        let default = match (raw.source, configured.as_slice()) {
            (Some(source), configured) if configured.contains(&source) => Some(source),
            (Some(source), _) => {
                let name = name(source);
                return Err(format!(
                    "identity.source is `{name}`, but identity.{name} is not set up"
                ));
            }
            (None, [only]) => Some(*only),
            (None, []) => None,
            (None, _) => {
                return Err(
                    "identity has several sources; identity.source must name the default one"
                        .to_owned(),
                );
            }
        };
        Ok(Self { default, ca, files, spire })
    }

    /// The source of a workload's identity, by its own word or by default.
    pub fn of(
        &self,
        workload: &str,
        raw: Option<raw::WorkloadIdentity>,
        spiffe_id: Option<&SpiffeId>,
    ) -> Result<SourceConfig, String> {
        let source = match raw {
            None => self.by_default(workload)?,
            Some(raw) => self.by_its_word(raw)?,
        };
        if spiffe_id.is_none() && matches!(source, SourceConfig::Ca { .. }) {
            return Err("has no spiffeId, which the embedded CA needs".to_owned());
        }
        Ok(source)
    }

    fn by_default(&self, workload: &str) -> Result<SourceConfig, String> {
        match self.default {
            Some(raw::SourceKind::Ca) => self.ca(None),
            Some(raw::SourceKind::Spire) => self.spire(Vec::new()),
            Some(raw::SourceKind::Files) => {
                let dir = self.files.as_deref().unwrap_or(Path::new(""));
                if workload.contains('/') || workload.starts_with('.') {
                    return Err(format!(
                        "`{workload}` cannot be the name of a directory below {}; say identity.files",
                        dir.display()
                    ));
                }
                let dir = dir.join(workload);
                Ok(SourceConfig::Files(IdentityFiles {
                    pair: KeyPairFiles {
                        certificate: dir.join("tls.crt"),
                        key: dir.join("tls.key"),
                        allow_readable_key: false,
                    },
                    bundle: Some(BundleFile { path: dir.join("ca.crt"), required: false }),
                }))
            }
            None => Err("has no identity, as neither it nor the top of the file sets up a source"
                .to_owned()),
        }
    }

    fn by_its_word(&self, raw: raw::WorkloadIdentity) -> Result<SourceConfig, String> {
        match raw {
            raw::WorkloadIdentity { ca: Some(ca), files: None, spire: None } => {
                self.ca(ca.svid_ttl.map(|ttl| ttl.0))
            }
            raw::WorkloadIdentity { ca: None, files: Some(files), spire: None } => {
                Ok(SourceConfig::Files(IdentityFiles {
                    pair: KeyPairFiles {
                        certificate: files.certificate,
                        key: files.key,
                        allow_readable_key: files.allow_readable_key,
                    },
                    bundle: files.bundle.map(|path| BundleFile { path, required: true }),
                }))
            }
            raw::WorkloadIdentity { ca: None, files: None, spire: Some(spire) } => {
                let selectors = spire
                    .selectors
                    .iter()
                    .map(|text| SpireSelector::parse(text))
                    .collect::<Result<_, _>>()
                    .map_err(|error| error.to_string())?;
                self.spire(selectors)
            }
            _ => Err("identity needs exactly one of `ca`, `files` and `spire`".to_owned()),
        }
    }

    fn ca(&self, ttl: Option<Duration>) -> Result<SourceConfig, String> {
        let (dir, default) = self.ca.as_ref().ok_or("identity.ca is not set up")?;
        let svid_ttl = ttl.unwrap_or(*default);
        check_ttl(svid_ttl, "identity.ca.svidTtl")?;
        Ok(SourceConfig::Ca { dir: dir.clone(), svid_ttl })
    }

    fn spire(&self, selectors: Vec<SpireSelector>) -> Result<SourceConfig, String> {
        let socket = self.spire.clone().ok_or("identity.spire is not set up")?;
        Ok(SourceConfig::Spire { socket, selectors })
    }

    /// Directory of the embedded CA.
    pub fn ca_dir(&self) -> Option<&Path> {
        self.ca.as_ref().map(|(dir, _)| dir.as_path())
    }

    /// True if trust bundles of any trust domain may come from a source.
    pub fn may_federate(&self) -> bool {
        self.spire.is_some()
    }
}

fn name(kind: raw::SourceKind) -> &'static str {
    match kind {
        raw::SourceKind::Ca => "ca",
        raw::SourceKind::Files => "files",
        raw::SourceKind::Spire => "spire",
    }
}

fn check_ttl(ttl: Duration, key: &str) -> Result<(), String> {
    if ttl < Duration::from_secs(60) {
        return Err(format!("{key} is shorter than a minute"));
    }
    if ttl > Duration::from_secs(366 * 24 * 60 * 60) {
        return Err(format!("{key} is longer than a year"));
    }
    Ok(())
}
