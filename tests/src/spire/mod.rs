//! A SPIRE agent's Delegated Identity API over a Unix socket, in the real protocol, and as untruthful as a scenario wants it.
//!
//! It knows registration entries (which SVIDs for whom) and bundles, tells every subscriber when they change, and can
//! refuse, fall silent, end subscriptions, go away and come back.

mod registry;
mod service;

/// What `build.rs` made of SPIRE's own definition.
#[allow(clippy::all, clippy::undocumented_unsafe_blocks)]
mod api {
    include!(concat!(env!("OUT_DIR"), "/spire.rs"));
    pub use spire::api::agent::delegatedidentity::v1::*;
    pub use spire::api::types;
}

use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use crate::wait::{self, GENEROUS};

use registry::Shared;
pub use registry::{Entry, SentSvid, Subject, Subscription};

/// A SPIRE agent; dropping it ends it.
pub struct SpireAgent {
    dir: TempDir,
    shared: Arc<Shared>,
    /// With it end all connections, as with a process.
    runtime: Option<Runtime>,
}

impl SpireAgent {
    /// Listens, and knows nothing yet.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory for the socket");
        let mut agent = Self { dir, shared: Arc::default(), runtime: None };
        agent.start_again();
        agent
    }

    /// The admin socket.
    pub fn socket(&self) -> PathBuf {
        socket_in(self.dir.path())
    }

    /// Ends, and every connection with it. What it knows stays.
    pub fn stop(&mut self) {
        self.runtime.take().expect("a running SPIRE agent").shutdown_background();
        std::fs::remove_file(self.socket()).expect("the socket's file");
    }

    /// Listens again after [`Self::stop`].
    pub fn start_again(&mut self) {
        assert!(self.runtime.is_none(), "the SPIRE agent runs already");
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime for the SPIRE agent");
        // Bound before this returns: whoever connects from now on is heard.
        let listener = StdListener::bind(self.socket()).expect("the SPIRE agent's socket");
        listener.set_nonblocking(true).expect("a socket for the runtime");
        let service = service::service(self.shared.clone());
        runtime.spawn(async move {
            let listener = UnixListener::from_std(listener).expect("a socket of the runtime's");
            let incoming = UnixListenerStream::new(listener);
            Server::builder().add_service(service).serve_with_incoming(incoming).await
        });
        self.runtime = Some(runtime);
    }

    /// Makes or replaces a registration entry; whoever it is for is told.
    pub fn register(&self, name: &'static str, entry: Entry) {
        self.shared.change(|registry| {
            registry.entries.insert(name, entry);
        });
    }

    /// Removes a registration entry: whom it was for gets an empty list.
    pub fn unregister(&self, name: &str) {
        self.shared.change(|registry| {
            registry.entries.remove(name).expect("an entry of that name");
        });
    }

    /// Replaces all bundles. The keys are sent as they are.
    pub fn set_bundles(&self, bundles: &[(&str, &[CertificateDer<'_>])]) {
        let concatenated = |authorities: &[CertificateDer<'_>]| -> Vec<u8> {
            authorities.iter().flat_map(|der| der.to_vec()).collect()
        };
        let bundles = bundles
            .iter()
            .map(|(key, authorities)| ((*key).to_owned(), concatenated(authorities)))
            .collect();
        self.shared.change(|registry| registry.bundles = bundles);
    }

    /// Everybody is refused (`PERMISSION_DENIED`), and so is who has been served so far, until it is taken back.
    pub fn refuse(&self, refuse: bool) {
        self.shared.change(|registry| registry.refuses = refuse);
    }

    /// Requests for SVIDs are not answered, until it is taken back. As with a server in Go, the client hears
    /// nothing at all then, not even that its request was taken.
    pub fn hold(&self, hold: bool) {
        self.shared.change(|registry| registry.holds = hold);
    }

    /// Ends every subscription in order; new ones are served.
    pub fn end_subscriptions(&self) {
        self.shared.change(|registry| registry.epoch += 1);
    }

    /// Every subscription to SVIDs so far.
    pub fn subscriptions(&self) -> Vec<Subscription> {
        self.shared.subscriptions()
    }

    /// Waits for a subscription to SVIDs that satisfies the condition.
    #[track_caller]
    pub fn wait_for_subscription(
        &self,
        what: &str,
        condition: impl Fn(&Subscription) -> bool,
    ) -> Subscription {
        let found = wait::try_for(GENEROUS, || self.subscriptions().into_iter().find(&condition));
        found.unwrap_or_else(|| panic!("{what}: none among {:?}", self.subscriptions()))
    }
}

impl Drop for SpireAgent {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn socket_in(dir: &Path) -> PathBuf {
    dir.join("api.sock")
}
