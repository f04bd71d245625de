//! The way to the API server: which one, as whom, and when it was last heard.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use kube::client::ClientBuilder;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use tower::util::MapResponseLayer;

use crate::sys::files::{self, ReadError};

/// How long the API server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long it may be silent: longer than [a watch](super::watch::WATCH) lasts.
const SILENCE: Duration = Duration::from_secs(75);

/// Where the API server is, and how Sheath proves to it who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// As every pod has it: by environment variables and the token of its service account.
    Pod,
    /// By a kubeconfig file. Paths in it are absolute.
    Kubeconfig(PathBuf),
}

/// Why there is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "cannot reach the Kubernetes API as a pod: {0}; outside of a pod, name a kubeconfig file with kubernetes.kubeconfig"
    )]
    Pod(#[from] kube::config::InClusterError),
    #[error("cannot read the kubeconfig {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: ReadError },
    #[error("cannot use the kubeconfig {}: {error}", path.display())]
    Kubeconfig { path: PathBuf, error: kube::config::KubeconfigError },
    #[error("cannot set up the client of the Kubernetes API: {0}")]
    Client(Box<kube::Error>),
}

/// A client of the API server.
#[derive(Clone)]
pub struct Connection {
    pub client: kube::Client,
    pub contact: Contact,
}

/// When the API server last answered a request with what was asked for.
#[derive(Clone, Debug, Default)]
pub struct Contact(Arc<Mutex<Option<(Instant, SystemTime)>>>);

impl Contact {
    #[must_use]
    pub fn last(&self) -> Option<(Instant, SystemTime)> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), SystemTime::now()));
    }
}

impl Access {
    /// Makes a client. Connects to nobody yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// If the token, the file or what they say cannot be used.
    pub async fn connect(&self) -> Result<Connection, ClientError> {
        let mut config = match self {
            Self::Pod => Config::incluster()?,
            Self::Kubeconfig(path) => {
                let text = files::read_text(path, files::CREDENTIALS)
                    .map_err(|error| ClientError::Unreadable { path: path.clone(), error })?;
                let unusable = |error| ClientError::Kubeconfig { path: path.clone(), error };
                let file = Kubeconfig::from_yaml(&text).map_err(unusable)?;
                let options = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(file, &options).await.map_err(unusable)?
            }
        };
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(SILENCE);
        config.reset_reader_on_write = true;
        let contact = Contact::default();
        let answered = contact.clone();
        let note = move |response: http::Response<_>| {
            if response.status().is_success() {
                answered.note();
            }
            response
        };
        let client = ClientBuilder::try_from(config)
            .map_err(|error| ClientError::Client(Box::new(error)))?
            .with_layer(&MapResponseLayer::new(note))
            .build();
        Ok(Connection { client, contact })
    }
}
