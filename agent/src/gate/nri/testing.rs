//! A container runtime as NRI plugins see it: it speaks the protocol byte by byte, by code of its own, and treats a plugin as
//! containerd's does (containerd/nri, `pkg/adaptation/plugin.go`, `pkg/net/multiplex/mux.go`; containerd/ttrpc, `client.go`).

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;

use super::messages::{
    ConfigureRequest, ConfigureResponse, LinuxNamespace, LinuxPodSandbox, PodSandbox,
    RegisterPluginRequest, SandboxRequest, SynchronizeResponse,
};
use super::ttrpc::{Request, Response};

/// What the runtime's mux holds of one connection until it is read, in frames; more ends the connection.
const QUEUE: usize = 256;

/// What it reads at a time: a longer frame is an error.
const READS: usize = 4096;

/// What becomes of a pod whose sandbox the plugin was asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Started,
    Failed(String),
    /// Nobody answered in time: the connection is closed, and the pod starts unasked.
    WentOn,
}

/// A pod with what the plugin does not read: labels, annotations and resources.
#[derive(Clone, PartialEq, Message)]
pub struct WholePod {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub uid: String,
    #[prost(string, tag = "4")]
    pub namespace: String,
    #[prost(btree_map = "string, string", tag = "5")]
    pub labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "6")]
    pub annotations: BTreeMap<String, String>,
    #[prost(string, tag = "7")]
    pub runtime_handler: String,
    #[prost(message, optional, tag = "8")]
    pub linux: Option<LinuxPodSandbox>,
    #[prost(uint32, tag = "9")]
    pub pid: u32,
    #[prost(string, repeated, tag = "10")]
    pub ips: Vec<String>,
    /// Of a version to come.
    #[prost(bytes = "vec", tag = "99")]
    pub future: Vec<u8>,
}

/// A list of pods, with containers that the plugin does not read.
#[derive(Clone, PartialEq, Message)]
pub struct Sync {
    #[prost(message, repeated, tag = "1")]
    pub pods: Vec<WholePod>,
    #[prost(message, repeated, tag = "2")]
    pub containers: Vec<WholePod>,
    #[prost(bool, tag = "3")]
    pub more: bool,
}

/// The uid of a pod by number.
pub fn uid(number: usize) -> String {
    format!("0f5b0d5e-7a54-4a0e-8f0e-{number:012x}")
}

/// A pod by number, in the network namespace of this process.
pub fn pod(number: usize) -> WholePod {
    let namespace =
        LinuxNamespace { kind: "network".to_owned(), path: "/proc/self/ns/net".to_owned() };
    let map = || BTreeMap::from([("app".to_owned(), "x".repeat(50))]);
    WholePod {
        id: format!("{number:064x}"),
        name: format!("web-{number}"),
        uid: uid(number),
        namespace: "shop".to_owned(),
        labels: map(),
        annotations: map(),
        runtime_handler: "runc".to_owned(),
        linux: Some(LinuxPodSandbox {
            cgroup_parent: "/kubepods/besteffort".to_owned(),
            namespaces: vec![
                LinuxNamespace { kind: "pid".to_owned(), path: String::new() },
                namespace,
            ],
        }),
        pid: 1,
        ips: vec!["10.1.2.3".to_owned(), "fd00::3".to_owned()],
        future: vec![0xff; 10],
    }
}

impl WholePod {
    /// The same, and nothing tells its network namespace.
    pub fn without_namespace(self) -> Self {
        Self { linux: None, pid: 0, ..self }
    }
}

/// A runtime that listens.
pub struct FakeRuntime {
    dir: TempDir,
    listener: Option<UnixListener>,
}

impl FakeRuntime {
    /// Not yet started.
    pub fn stopped() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), listener: None }
    }

    pub fn started() -> Self {
        let mut runtime = Self::stopped();
        runtime.start();
        runtime
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("nri.sock")
    }

    pub fn start(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        self.listener = Some(UnixListener::bind(self.socket()).unwrap());
    }

    /// As a runtime that is killed: its socket's file stays.
    pub fn kill(&mut self) {
        self.listener = None;
    }

    /// A plugin's connection, and nothing more.
    pub async fn accept(&self) -> UnixStream {
        self.listener.as_ref().unwrap().accept().await.unwrap().0
    }

    /// Takes a plugin: it registers, is configured with this time limit, and gets these lists of pods.
    pub async fn take(&self, limit: Duration, lists: Vec<Vec<WholePod>>) -> Taken {
        let mut stream = self.accept().await;
        let registration = read_registration(&mut stream).await;
        let taken = Taken::new(stream, registration, limit);
        taken.write(2, 1, 2, &Response::default().encode_to_vec()).await;
        let configure = ConfigureRequest {
            runtime_name: "fake".to_owned(),
            runtime_version: "v1\u{1b}[31m".to_owned(),
            registration_timeout: 5000,
            request_timeout: limit.as_millis() as i64,
            nri_version: String::new(),
        };
        let configured = taken.call("Configure", configure.encode_to_vec()).await.unwrap();
        let events = ConfigureResponse::decode(configured.payload.as_slice()).unwrap().events;
        assert_eq!(events, 0b111, "what it wants to be asked about");
        let last = lists.len().saturating_sub(1);
        for (index, pods) in lists.into_iter().enumerate() {
            let list = Sync { containers: pods.clone(), pods, more: index < last };
            let answer = taken.call("Synchronize", list.encode_to_vec()).await.unwrap();
            assert_eq!(answer.status, None);
            let answer = SynchronizeResponse::decode(answer.payload.as_slice()).unwrap();
            assert_eq!(answer.more, index < last, "it knows no lists in parts");
        }
        taken
    }
}

type Waiting = Arc<Mutex<HashMap<u32, oneshot::Sender<Response>>>>;

/// A plugin that is connected.
pub struct Taken {
    pub registration: RegisterPluginRequest,
    limit: Duration,
    writing: Arc<tokio::sync::Mutex<(u32, Option<OwnedWriteHalf>)>>,
    waiting: Waiting,
    reading: tokio::task::JoinHandle<()>,
    /// Held while any plugin is asked about anything.
    pub lock: tokio::sync::Mutex<()>,
}

impl Taken {
    fn new(stream: UnixStream, registration: RegisterPluginRequest, limit: Duration) -> Self {
        let (reading, writing) = stream.into_split();
        let waiting = Waiting::default();
        Self {
            registration,
            limit,
            writing: Arc::new(tokio::sync::Mutex::new((1, Some(writing)))),
            reading: tokio::spawn(read(reading, waiting.clone())),
            waiting,
            lock: tokio::sync::Mutex::default(),
        }
    }

    /// True while the connection is open.
    pub fn is_open(&self) -> bool {
        !self.reading.is_finished()
    }

    pub async fn close(&self) {
        self.writing.lock().await.1 = None;
        self.reading.abort();
        self.waiting.lock().unwrap().clear();
    }

    /// Bytes as they are.
    ///
    /// # Errors
    /// If the plugin has closed the connection.
    pub async fn write_raw(&self, bytes: &[u8]) -> std::io::Result<()> {
        let mut writing = self.writing.lock().await;
        match &mut writing.1 {
            Some(writing) => writing.write_all(bytes).await,
            None => Err(std::io::ErrorKind::NotConnected.into()),
        }
    }

    /// A message as Go's buffered writer cuts it up: the buffer's length first, and then the rest.
    pub async fn write(&self, connection: u32, stream: u32, kind: u8, data: &[u8]) {
        let _ = self.write_raw(&frames(connection, &message(stream, kind, data))).await;
    }

    /// Calls, and waits as long as the runtime does. `None` if it has waited in vain; then the connection is closed.
    pub async fn call(&self, method: &str, payload: Vec<u8>) -> Option<Response> {
        let request = Request {
            service: "nri.pkg.api.v1alpha1.Plugin".to_owned(),
            method: method.to_owned(),
            payload,
            timeout_nano: self.limit.as_nanos() as i64,
        };
        self.call_with(&request).await
    }

    pub async fn call_with(&self, request: &Request) -> Option<Response> {
        let (sender, answer) = oneshot::channel();
        {
            let mut writing = self.writing.lock().await;
            let stream = writing.0;
            writing.0 += 2;
            self.waiting.lock().unwrap().insert(stream, sender);
            let bytes = frames(1, &message(stream, 1, &request.encode_to_vec()));
            if let Some(writing) = &mut writing.1 {
                let _ = writing.write_all(&bytes).await;
            }
        }
        match tokio::time::timeout(self.limit, answer).await {
            Ok(Ok(response)) => Some(response),
            _ => {
                self.close().await;
                None
            }
        }
    }

    /// Makes a pod's sandbox.
    pub async fn run(&self, pod: WholePod) -> Fate {
        let payload = SandboxRequest { pod: Some(shrink(&pod)) };
        // What the plugin gets is the whole pod.
        let mut bytes = Vec::new();
        prost::encoding::message::encode(1, &pod, &mut bytes);
        assert!(bytes.len() > payload.encode_to_vec().len());
        fate(self.call("RunPodSandbox", bytes).await)
    }

    /// The same, and nobody else is asked about anything meanwhile.
    pub async fn run_alone(&self, pod: WholePod) -> Fate {
        let _lock = self.lock.lock().await;
        self.run(pod).await
    }
}

pub fn fate(answer: Option<Response>) -> Fate {
    match answer.map(|answer| answer.status) {
        None => Fate::WentOn,
        Some(None) => Fate::Started,
        Some(Some(status)) => {
            assert_ne!(status.code, 0);
            // `isFatalError`, and what is a reason to send again in pieces.
            assert!(![4, 8].contains(&status.code), "{status:?}");
            Fate::Failed(status.message)
        }
    }
}

fn shrink(pod: &WholePod) -> PodSandbox {
    PodSandbox::decode(pod.encode_to_vec().as_slice()).unwrap()
}

pub fn message(stream: u32, kind: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = (data.len() as u32).to_be_bytes().to_vec();
    bytes.extend(stream.to_be_bytes());
    bytes.extend([kind, 0]);
    bytes.extend(data);
    bytes
}

pub fn frames(connection: u32, message: &[u8]) -> Vec<u8> {
    let (first, rest) = message.split_at(message.len().min(4096));
    let mut bytes = Vec::new();
    for piece in [first, rest].into_iter().filter(|piece| !piece.is_empty()) {
        bytes.extend(connection.to_be_bytes());
        bytes.extend((piece.len() as u32).to_be_bytes());
        bytes.extend(piece);
    }
    bytes
}

async fn read_frame(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<(u32, Vec<u8>)> {
    let connection = stream.read_u32().await.ok()?;
    let length = stream.read_u32().await.ok()? as usize;
    assert!(length <= READS, "the runtime would fail with ENOMEM at a frame of {length} bytes");
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.ok()?;
    Some((connection, payload))
}

async fn read_registration(stream: &mut UnixStream) -> RegisterPluginRequest {
    let (connection, payload) = read_frame(stream).await.expect("a registration");
    assert_eq!(connection, 2, "the runtime's service");
    let (header, data) = payload.split_at(10);
    assert_eq!(header[..4], (data.len() as u32).to_be_bytes());
    assert_eq!(header[4..], [0, 0, 0, 1, 1, 0], "stream 1, a request without flags");
    let request = Request::decode(data).unwrap();
    assert_eq!(request.service, "nri.pkg.api.v1alpha1.Runtime");
    assert_eq!(request.method, "RegisterPlugin");
    RegisterPluginRequest::decode(request.payload.as_slice()).unwrap()
}

/// Reads answers, as two goroutines do: one of them fills a queue that the other one empties.
async fn read(mut stream: OwnedReadHalf, waiting: Waiting) {
    let (queue, mut queued) = tokio::sync::mpsc::channel::<Vec<u8>>(QUEUE);
    let ended = waiting.clone();
    let filling = async move {
        while let Some((connection, payload)) = read_frame(&mut stream).await {
            assert_eq!(connection, 1, "an answer");
            if queue.try_send(payload).is_err() {
                // "failed to queue payload for reading"
                break;
            }
        }
    };
    let emptying = async move {
        while let Some(payload) = queued.recv().await {
            let (header, data) = payload.split_at(10);
            assert_eq!(header[..4], (data.len() as u32).to_be_bytes(), "one frame for a message");
            assert_eq!(header[8], 2, "a response");
            let stream = u32::from_be_bytes(header[4..8].try_into().unwrap());
            let response = Response::decode(data).unwrap();
            let waiting = waiting.lock().unwrap().remove(&stream);
            if let Some(waiting) = waiting {
                let _ = waiting.send(response);
            }
        }
    };
    tokio::join!(filling, emptying);
    ended.lock().unwrap().clear();
}
