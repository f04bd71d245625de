//! Settings of a SPIRE agent as a source.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use super::SpireSource;
use crate::follow::{Check, Problem};
use crate::identity::{Shared, Source, SourceSettings};
use crate::spiffe::SpiffeId;

/// The SPIRE agent of this node, and how it identifies a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpireSettings {
    /// Its admin socket.
    pub socket: PathBuf,
    /// Empty: the workload is identified by one of its processes.
    pub selectors: Vec<SpireSelector>,
}

impl SourceSettings for SpireSettings {
    fn kind(&self) -> &'static str {
        "spire"
    }

    fn open(&self, shared: &mut Shared) -> Result<Arc<dyn Source>, Problem> {
        let random = shared.provider().secure_random;
        let SpireSettings { socket, selectors } = self.clone();
        Ok(Arc::new(SpireSource { socket, selectors, random }))
    }

    fn check(&self, _: &str, _: Option<&SpiffeId>) -> Option<Check> {
        let is_there = UnixStream::connect(&self.socket).is_ok();
        (!is_there).then(|| Check::Doubtful {
            found: format!("no SPIRE agent answers at {}", self.socket.display()),
            advice:
                "its admin socket is set by admin_socket_path in the SPIRE agent's configuration"
                    .to_owned(),
        })
    }
}

/// A selector as SPIRE knows them: `unix:uid:1000` has the type `unix` and the value `uid:1000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpireSelector {
    pub kind: String,
    pub value: String,
}

/// The text is not a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("selector `{0}` must look like `unix:uid:1000`")]
pub struct NotASelector(String);

impl SpireSelector {
    /// # Errors
    /// If the type or the value is missing.
    pub fn parse(text: &str) -> Result<Self, NotASelector> {
        match text.split_once(':') {
            Some((kind, value)) if !kind.is_empty() && !value.is_empty() => {
                Ok(Self { kind: kind.to_owned(), value: value.to_owned() })
            }
            _ => Err(NotASelector(text.to_owned())),
        }
    }
}
