//! The controller as far as its directory goes, in the real protocol: it tells agents what a scenario says, hears what they see of
//! their pods, goes away and comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use prost::Message;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use crate::config;
use crate::netns::NetNs;
use crate::wait::{self, GENEROUS};
use crate::world::World;

use api::directory_server::{Directory, DirectoryServer};

/// What `build.rs` made of the controller's own definition.
#[allow(clippy::all, clippy::undocumented_unsafe_blocks)]
pub(crate) mod api {
    include!(concat!(env!("OUT_DIR"), "/directory.rs"));
    pub use sheath::directory::v1::*;
}

/// The identity that agents expect of it.
const ID: &str = "spiffe://example.org/ns/sheath-system/sa/sheath-controller";

/// What it says of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Plain,
    Pending,
    /// By the name of the workload whose SPIFFE ID it is.
    Protected(&'static str),
}

/// All that it says, as of a change.
#[derive(Clone, Debug, Default)]
struct State {
    entries: BTreeMap<IpAddr, (u64, Said)>,
    /// Change by change.
    changes: Vec<(IpAddr, Option<(u64, Said)>)>,
}

/// A controller that listens in the network namespaces of both nodes; dropping it ends it.
pub struct Teller {
    dir: TempDir,
    netns: [Arc<NetNs>; 2],
    addresses: [SocketAddr; 2],
    tls: Arc<ServerConfig>,
    state: watch::Sender<State>,
    /// By node.
    observed: [Observed; 2],
    epoch: u64,
    runtime: Option<Runtime>,
}

/// Uids of pods that an agent calls protected.
type Observed = Arc<Mutex<BTreeSet<Vec<u8>>>>;

impl Teller {
    /// Listens, and knows nobody. Everything in `10.1.0.0/16` and `fd01::/16` is the cluster's.
    pub fn start(world: &World) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the token");
        std::fs::write(dir.path().join("token"), "a.b.c").expect("the token");
        world.ca().write_certificate(&dir.path().join("roots.pem"));
        let leaf = world.ca().issue(ID);
        let chain = CertificateDer::pem_slice_iter(leaf.certificate_pem().as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>();
        let key = PrivateKeyDer::from_pem_slice(leaf.key_pem().as_bytes());
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let mut tls = ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_no_client_auth()
            .with_single_cert(chain.expect("its certificate"), key.expect("its key"))
            .expect("TLS of the controller");
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let mut teller = Self {
            dir,
            netns: [world.a.netns.clone(), world.b.netns.clone()],
            addresses: [SocketAddr::from(([127, 0, 0, 1], 0)); 2],
            tls: Arc::new(tls),
            state: watch::Sender::default(),
            observed: Default::default(),
            epoch: 0,
            runtime: None,
        };
        teller.start_again();
        teller
    }

    /// Ends, and every connection with it. What it says stays.
    pub fn stop(&mut self) {
        self.runtime.take().expect("a running controller").shutdown_background();
    }

    /// Listens again, at the same addresses: it is another leader now.
    pub fn start_again(&mut self) {
        assert!(self.runtime.is_none(), "the controller runs already");
        self.epoch += 1;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime for the controller");
        let nodes = self.netns.iter().zip(&mut self.addresses).zip(&self.observed);
        for ((netns, address), observed) in nodes {
            let socket = wait::wait_for("the controller's address", GENEROUS, || {
                netns.run(|| std::net::TcpListener::bind(*address)).ok()
            });
            *address = socket.local_addr().expect("the address of a listener");
            socket.set_nonblocking(true).expect("a socket for the runtime");
            let (state, observed) = (self.state.clone(), observed.clone());
            let service = Service { state, observed, epoch: self.epoch };
            let acceptor = TlsAcceptor::from(self.tls.clone());
            runtime.spawn(async move {
                let (sender, accepted) = mpsc::channel(4);
                tokio::spawn(accept(socket, acceptor, sender));
                let incoming = ReceiverStream::new(accepted).map(Ok::<_, io::Error>);
                let service = DirectoryServer::new(service);
                Server::builder().add_service(service).serve_with_incoming(incoming).await
            });
        }
        self.runtime = Some(runtime);
    }

    /// How the agent of node A (0) or B (1) finds it.
    pub fn settings(&self, node: usize) -> config::Controller {
        let file = |name: &str| -> PathBuf { self.dir.path().join(name) };
        config::Controller {
            address: self.addresses[node].to_string(),
            roots: file("roots.pem"),
            token: file("token"),
        }
    }

    /// Says of an address which pod is there, by a number of its own.
    pub fn say(&self, address: IpAddr, pod: u64, said: Said) {
        self.change(address, Some((pod, said)));
    }

    /// Says that nobody is there any more.
    pub fn forget(&self, address: IpAddr) {
        self.change(address, None);
    }

    /// How many pods the agent of a node has said are protected, and whether this one is among them.
    pub fn observed(&self, node: usize, uid: &str) -> (usize, bool) {
        let digits: Vec<u8> = uid.bytes().filter(|digit| *digit != b'-').collect();
        let byte = |two: &[u8]| {
            u8::from_str_radix(std::str::from_utf8(two).expect("digits"), 16).expect("a byte")
        };
        let uid: Vec<u8> = digits.chunks(2).map(byte).collect();
        let all = self.observed[node].lock().unwrap_or_else(PoisonError::into_inner);
        (all.len(), all.contains(&uid))
    }

    fn change(&self, address: IpAddr, entry: Option<(u64, Said)>) {
        self.state.send_modify(|state| {
            match &entry {
                Some(entry) => drop(state.entries.insert(address, entry.clone())),
                None => drop(state.entries.remove(&address)),
            }
            state.changes.push((address, entry));
        });
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(
    socket: std::net::TcpListener,
    acceptor: TlsAcceptor,
    accepted: mpsc::Sender<Client>,
) {
    let listener = TcpListener::from_std(socket).expect("a socket of the runtime's");
    while let Ok((stream, _)) = listener.accept().await {
        if let Ok(stream) = acceptor.accept(stream).await
            && accepted.send(Client(stream)).await.is_err()
        {
            return;
        }
    }
}

/// The connection of an agent.
struct Client(TlsStream<TcpStream>);

impl Connected for Client {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

struct Service {
    observed: Observed,
    state: watch::Sender<State>,
    epoch: u64,
}

type Answers = Pin<Box<dyn Stream<Item = Result<api::FollowResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Directory for Service {
    type FollowStream = Answers;

    async fn follow(
        &self,
        request: Request<Streaming<api::FollowRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let token = request.metadata().get("authorization").cloned();
        if token.is_none_or(|token| token != "Bearer a.b.c") {
            return Err(Status::unauthenticated("another token"));
        }
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|first| first.message);
        let Some(api::follow_request::Message::Begin(begin)) = first else {
            return Err(Status::invalid_argument("the first message is not `begin`"));
        };
        let observed = self.observed.clone();
        if let Some(begun) = begin.observed {
            *observed.lock().unwrap_or_else(PoisonError::into_inner) =
                begun.protected.into_iter().collect();
        }
        tokio::spawn(async move {
            while let Ok(Some(next)) = requests.message().await {
                if let Some(api::follow_request::Message::Observed(next)) = next.message {
                    let mut all = observed.lock().unwrap_or_else(PoisonError::into_inner);
                    all.retain(|uid| !next.all && !next.unprotected.contains(uid));
                    all.extend(next.protected);
                }
            }
        });
        let (sender, receiver) = mpsc::channel(4);
        let (mut state, epoch) = (self.state.subscribe(), self.epoch);
        tokio::spawn(async move {
            let now = state.borrow_and_update().clone();
            let mut told = now.changes.len();
            if sender.send(Ok(page(epoch, &now))).await.is_err() {
                return;
            }
            while state.changed().await.is_ok() {
                let now = state.borrow_and_update().clone();
                for change in &now.changes[told..] {
                    told += 1;
                    if sender.send(Ok(delta(epoch, told as u64, change))).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

fn page(epoch: u64, state: &State) -> api::FollowResponse {
    let sequence = state.changes.len() as u64;
    let all: Vec<_> = state.entries.iter().map(|(ip, entry)| (*ip, Some(entry.clone()))).collect();
    let prefixes = ["10.1.0.0/16", "fd01::/16"].map(str::to_owned).into();
    let page = api::Page {
        position: Some(api::Position { epoch, sequence }),
        number: 0,
        last: true,
        entries: Some(entries(&all)),
        ranges: Some(api::Ranges { prefixes }),
        services: None,
    };
    let message = api::follow_response::Message::Page(page.encode_to_vec());
    api::FollowResponse { message: Some(message) }
}

fn delta(epoch: u64, sequence: u64, change: &(IpAddr, Option<(u64, Said)>)) -> api::FollowResponse {
    let (address, entry) = change;
    let delta = api::Delta {
        position: Some(api::Position { epoch, sequence }),
        entries: Some(entries(std::slice::from_ref(change))),
        gone: entry.is_none().then(|| octets(*address)).into_iter().collect(),
        ranges: None,
        services: None,
    };
    let message = api::follow_response::Message::Delta(delta.encode_to_vec());
    api::FollowResponse { message: Some(message) }
}

fn entries(all: &[(IpAddr, Option<(u64, Said)>)]) -> api::Entries {
    let mut entries = api::Entries { nodes: vec!["node-b".to_owned()], ..Default::default() };
    for (address, entry) in all {
        let Some((pod, said)) = entry else { continue };
        let state = match said {
            Said::Plain => api::State::Plain,
            Said::Pending => api::State::Pending,
            Said::Protected(name) => {
                entries.identities.push(config::spiffe_id(name));
                api::State::Protected
            }
        };
        entries.entries.push(api::Entry {
            address: octets(*address),
            state: state.into(),
            uid_hash: *pod,
            identity: if state == api::State::Protected {
                entries.identities.len() as u32
            } else {
                0
            },
            profile: 0,
            node: u32::from(state == api::State::Pending),
        });
    }
    entries
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
