//! The part of a Kubernetes API server that agents use, over HTTP and in its real form: lists in pages, watches with bookmarks,
//! versions that are forgotten. It is as slow, as forgetful and as unwilling as a scenario wants it.

mod answers;
mod objects;
mod server;
mod store;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::netns::NetNs;
use crate::wait::{self, GENEROUS};

use store::Store;
pub use store::{Kind, Requests};

/// An API server; dropping it ends it.
pub struct ApiServer {
    dir: TempDir,
    netns: Arc<NetNs>,
    address: SocketAddr,
    shared: Arc<Shared>,
    /// With it end all connections, as with a process.
    runtime: Option<Runtime>,
}

/// What requests are answered from.
#[derive(Default)]
struct Shared {
    store: Mutex<Store>,
    /// Wakes watches.
    changed: tokio::sync::Notify,
    /// What reviews say of tokens, and how many were asked for.
    reviews: Mutex<Reviews>,
    behaviour: Mutex<Behaviour>,
}

/// Tokens that are known.
#[derive(Default)]
struct Reviews {
    known: BTreeMap<String, Value>,
    asked: usize,
}

/// How the server treats those who ask.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Requests are refused with this status and message.
    pub refuse: Option<(u16, &'static str)>,
    /// The most objects in a page, whatever is asked for.
    pub page: usize,
    /// Each answer begins so much later.
    pub delay: Duration,
    /// How often watches get a bookmark.
    pub bookmarks: Duration,
    /// Requests are never answered.
    pub is_mute: bool,
    /// Requests with one of these tokens are never answered.
    pub shut_out: Vec<String>,
    /// Watches tell nothing.
    pub is_frozen: bool,
    /// Kinds of objects that a server of its version does not have.
    pub absent: Vec<Kind>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            refuse: None,
            page: usize::MAX,
            delay: Duration::ZERO,
            bookmarks: Duration::from_millis(200),
            is_mute: false,
            is_frozen: false,
            shut_out: Vec::new(),
            absent: Vec::new(),
        }
    }
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reviews(&self) -> MutexGuard<'_, Reviews> {
        self.reviews.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn behaviour(&self) -> Behaviour {
        self.behaviour.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ApiServer {
    /// Listens on loopback in a network namespace. Knows nothing yet.
    pub fn start(netns: &Arc<NetNs>) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the kubeconfig");
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let netns = netns.clone();
        let mut server = Self { dir, netns, address, shared: Arc::default(), runtime: None };
        server.start_again();
        server.kubeconfig_of("nobody checks it");
        server
    }

    /// Ends, and every connection with it. What it knows stays.
    pub fn stop(&mut self) {
        self.runtime.take().expect("a running API server").shutdown_background();
    }

    /// Listens again, at the same address.
    pub fn start_again(&mut self) {
        assert!(self.runtime.is_none(), "the API server runs already");
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime for the API server");
        // Bound before this returns: whoever connects from now on is heard.
        let socket = wait::wait_for("the API server's address", GENEROUS, || {
            self.netns.run(|| std::net::TcpListener::bind(self.address)).ok()
        });
        self.address = socket.local_addr().expect("the address of a listener");
        socket.set_nonblocking(true).expect("a socket for the runtime");
        runtime.spawn(server::serve(socket, self.shared.clone()));
        self.runtime = Some(runtime);
    }

    /// A kubeconfig that leads to it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("nobody checks it")
    }

    /// The same, for somebody who is told from others by a token.
    pub fn kubeconfig_of(&self, token: &str) -> PathBuf {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "it", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "agent", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "agent"}}],
            "current-context": "it",
        });
        let file = self.dir.path().join(token);
        std::fs::write(&file, config.to_string()).expect("the kubeconfig");
        file
    }

    /// What reviews say of a token from now on: the `status` of a TokenReview.
    pub fn know_token(&self, token: &str, status: Value) {
        self.shared.reviews().known.insert(token.to_owned(), status);
    }

    /// How many reviews were asked for.
    pub fn reviews(&self) -> usize {
        self.shared.reviews().asked
    }

    /// An object, by its namespace and name.
    pub fn get(&self, kind: Kind, key: &str) -> Option<Value> {
        self.shared.store().get(kind, key).cloned()
    }

    /// All objects of a kind.
    pub fn all(&self, kind: Kind) -> Vec<Value> {
        self.shared.store().all(kind)
    }

    /// Makes an object, or puts it in place of the one of its name.
    pub fn put(&self, kind: Kind, object: Value) {
        self.shared.store().put(kind, object);
        self.shared.changed.notify_waiters();
    }

    pub fn delete(&self, kind: Kind, key: &str) {
        self.shared.store().delete(kind, key);
        self.shared.changed.notify_waiters();
    }

    /// Forgets all versions but the present one: whoever asks for changes since another gets 410.
    pub fn forget_history(&self) {
        self.shared.store().forget_history();
        self.shared.changed.notify_waiters();
    }

    /// Goes back to an earlier state, as an etcd does that is restored from a snapshot: everything that was done since is undone,
    /// and versions are counted from there.
    pub fn restore(&self, snapshot: Snapshot) {
        *self.shared.store() = snapshot.0;
        self.shared.changed.notify_waiters();
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.shared.store().clone())
    }

    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.behaviour.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.changed.notify_waiters();
    }

    /// Ends all watches, as a server does from time to time.
    pub fn end_watches(&self) {
        self.shared.store().end_watches();
        self.shared.changed.notify_waiters();
    }

    /// What it was asked so far.
    pub fn requests(&self) -> Requests {
        self.shared.store().requests()
    }

    /// Waits until so many watches of a kind are open.
    pub fn wait_watched(&self, kind: Kind, count: usize) {
        wait::wait_until(&format!("{count} watches of {kind:?}"), GENEROUS, || {
            self.shared.store().watching(kind) >= count
        });
    }
}

/// Everything that a server knows.
pub struct Snapshot(Store);
