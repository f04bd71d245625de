//! One connection to the runtime, from its registration to its end.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::messages::{RUNTIME, RegisterPluginRequest};
use super::mux::{self, Connection, FrameTooLong};
use super::service::{Call, Runtime, Service, presentable};
use super::ttrpc::{Code, Frame, Kind, Reader, Request, Response};

/// The stream of the only call that the plugin makes.
const REGISTRATION: u32 = 1;

/// Called before other plugins: what they do for a sandbox that is not to start would be in vain.
const INDEX: &str = "00";

/// Questions that are being answered at a time. A runtime closes the connection if more than 256 frames wait on its side
/// (containerd/nri, `pkg/net/multiplex/mux.go`), and then starts pods without asking.
const MAX_QUESTIONS: usize = 250;

/// Frames that wait to be written. Each answers a call; a runtime that reads none of them has forgotten its plugin.
const MAX_ANSWERS: usize = 1024;

/// Frames that are written in a row, before the runtime gets time to read them: for the same reason.
const IN_A_ROW: usize = 64;
const PAUSE: Duration = Duration::from_millis(1);

/// How long the runtime may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For the rest of a message, in either direction.
    pub stalled: Duration,
    /// Until it has configured the plugin: it takes one plugin after the other, each for up to 7 s with its own time limits.
    pub configured: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { stalled: Duration::from_secs(10), configured: Duration::from_secs(30) }
    }
}

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("the runtime has closed the connection")]
    Closed,
    #[error("the runtime has closed the connection before it configured the plugin")]
    NotConfigured,
    #[error("the runtime has not configured the plugin for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the runtime refuses the plugin: {0}")]
    Refused(String),
    #[error("the runtime does not read what it is answered")]
    DoesNotRead,
    #[error("the runtime has stopped in the middle of a message")]
    Stalled,
    #[error(transparent)]
    FrameTooLong(#[from] FrameTooLong),
    #[error("the connection to the runtime failed: {0}")]
    Io(#[from] io::Error),
}

/// What happens on a connection, for status.
pub trait Observer: Send + Sync {
    fn configured(&self, runtime: &Runtime);
    fn answered(&self, admitted: bool);
}

/// Registers a plugin of this name, and answers until the connection ends.
pub async fn serve(
    stream: UnixStream,
    name: &str,
    service: Service,
    observer: Arc<dyn Observer>,
    limits: Limits,
) -> Ended {
    let (reading, writing) = stream.into_split();
    let (frames, outgoing) = mpsc::channel(MAX_ANSWERS);
    let answers = Answers { frames };
    if let Err(ended) = answers.register(name) {
        return ended;
    }
    let mut calls = Calls {
        service,
        observer,
        answers,
        questions: Arc::new(Semaphore::new(MAX_QUESTIONS)),
        last_stream: 0,
        answering: JoinSet::new(),
        limits,
    };
    // With either of them end all questions.
    tokio::select! {
        ended = calls.read(reading) => ended,
        ended = write(writing, outgoing, limits.stalled) => ended,
    }
}

/// Where answers go.
#[derive(Clone)]
struct Answers {
    frames: mpsc::Sender<(Connection, Vec<u8>)>,
}

impl Answers {
    fn register(&self, name: &str) -> Result<(), Ended> {
        let register = RegisterPluginRequest {
            plugin_name: name.to_owned(),
            plugin_idx: INDEX.to_owned(),
            nri_version: String::new(),
        };
        let request = Request {
            service: RUNTIME.to_owned(),
            method: "RegisterPlugin".to_owned(),
            payload: register.encode_to_vec(),
            timeout_nano: 0,
        };
        let frame = Frame::encode(REGISTRATION, Kind::Request, &request.encode_to_vec());
        self.push(Connection::Runtime, frame)
    }

    fn answer(&self, stream: u32, response: &Response) -> Result<(), Ended> {
        self.push(Connection::Plugin, response.frame(stream))
    }

    /// Never waits: reading must go on, whatever the runtime does about writing.
    fn push(&self, connection: Connection, frame: Vec<u8>) -> Result<(), Ended> {
        self.frames.try_send((connection, frame)).map_err(|_| Ended::DoesNotRead)
    }
}

/// Writes frames: one of the mux for each message, in one piece. The runtime's side relies on it.
async fn write(
    mut socket: OwnedWriteHalf,
    mut outgoing: mpsc::Receiver<(Connection, Vec<u8>)>,
    stalled: Duration,
) -> Ended {
    let mut in_a_row = 0;
    while let Some((connection, message)) = outgoing.recv().await {
        let mut frame = mux::header(connection, message.len() as u32).to_vec();
        frame.extend_from_slice(&message);
        match tokio::time::timeout(stalled, socket.write_all(&frame)).await {
            Err(_) => return Ended::DoesNotRead,
            Ok(Err(error)) => return error.into(),
            Ok(Ok(())) => {}
        }
        in_a_row = if outgoing.is_empty() { 0 } else { in_a_row + 1 };
        if in_a_row == IN_A_ROW {
            in_a_row = 0;
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ended::Closed
}

/// Reads calls, and sees to it that each is answered.
struct Calls {
    service: Service,
    observer: Arc<dyn Observer>,
    answers: Answers,
    questions: Arc<Semaphore>,
    last_stream: u32,
    answering: JoinSet<()>,
    limits: Limits,
}

impl Calls {
    async fn read(&mut self, mut socket: OwnedReadHalf) -> Ended {
        let begun = tokio::time::Instant::now();
        let mut demux = mux::Reader::default();
        let (mut plugin, mut runtime) = (Reader::default(), Reader::default());
        let mut buffer = vec![0; 16 << 10];
        loop {
            while self.answering.try_join_next().is_some() {}
            let is_between = demux.is_between_frames()
                && plugin.is_between_messages()
                && runtime.is_between_messages();
            let reading = socket.read(&mut buffer);
            let read = if !is_between {
                match tokio::time::timeout(self.limits.stalled, reading).await {
                    Ok(read) => read,
                    Err(_) => return Ended::Stalled,
                }
            } else if self.service.runtime().is_none() {
                match tokio::time::timeout_at(begun + self.limits.configured, reading).await {
                    Ok(read) => read,
                    Err(_) => return Ended::Silent(self.limits.configured),
                }
            } else {
                reading.await
            };
            let mut input = match read {
                Ok(0) if self.service.runtime().is_none() => return Ended::NotConfigured,
                Ok(0) => return Ended::Closed,
                Ok(count) => &buffer[..count],
                Err(error) => return error.into(),
            };
            let now = Instant::now();
            loop {
                let part = match demux.next(&mut input) {
                    Ok(Some(part)) => part,
                    Ok(None) => break,
                    Err(error) => return error.into(),
                };
                let mut bytes = part.bytes;
                let outcome = match part.connection {
                    Some(Connection::Plugin) => std::iter::from_fn(|| plugin.next(&mut bytes))
                        .try_for_each(|frame| self.called(frame, now)),
                    Some(Connection::Runtime) => {
                        std::iter::from_fn(|| runtime.next(&mut bytes)).try_for_each(registered)
                    }
                    None => Ok(()),
                };
                if let Err(ended) = outcome {
                    return ended;
                }
            }
        }
    }

    /// As the server side of ttrpc does it (containerd/ttrpc, `server.go`).
    fn called(&mut self, frame: Frame, now: Instant) -> Result<(), Ended> {
        let stream = frame.stream;
        let failed = |code, text| self.answers.answer(stream, &Response::failed(code, text));
        let Some(data) = frame.data else {
            return failed(Code::ResourceExhausted, "message longer than 4 MiB");
        };
        match frame.kind {
            Kind::Response | Kind::Unknown(_) => return Ok(()),
            Kind::Data => return failed(Code::InvalidArgument, "no such stream is open"),
            Kind::Request => {}
        }
        if stream.is_multiple_of(2) || stream <= self.last_stream {
            return failed(Code::InvalidArgument, "stream ids are odd and ascend");
        }
        self.last_stream = stream;
        let request = match Request::decode(data.as_slice()) {
            Ok(request) => request,
            Err(error) => return failed(Code::InvalidArgument, &error.to_string()),
        };
        match self.service.call(&request, now) {
            Call::Answer(response) => self.answers.answer(stream, &response),
            Call::Configured(response) => {
                self.answers.answer(stream, &response)?;
                if let Some(runtime) = self.service.runtime() {
                    self.observer.configured(runtime);
                }
                Ok(())
            }
            Call::Ask(question) => {
                let Ok(permit) = self.questions.clone().try_acquire_owned() else {
                    self.observer.answered(false);
                    return self.answers.answer(stream, &question.overloaded());
                };
                let owed = Owed {
                    answers: self.answers.clone(),
                    observer: self.observer.clone(),
                    stream,
                    is_paid: false,
                };
                self.answering.spawn(async move {
                    let (admitted, response) = question.answer().await;
                    owed.pay(admitted, &response);
                    drop(permit);
                });
                Ok(())
            }
        }
    }
}

/// An answer that the runtime must get, also where finding it has failed.
struct Owed {
    answers: Answers,
    observer: Arc<dyn Observer>,
    stream: u32,
    is_paid: bool,
}

impl Owed {
    fn pay(mut self, admitted: bool, response: &Response) {
        self.is_paid = true;
        self.observer.answered(admitted);
        // If there is no room, reading ends the connection at the next call.
        let _ = self.answers.answer(self.stream, response);
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if !self.is_paid {
            let text =
                "sheath: the agent has failed to decide; please report this, with the agent's log";
            let _ =
                self.answers.answer(self.stream, &Response::failed(Code::FailedPrecondition, text));
        }
    }
}

/// The answer to the registration.
fn registered(frame: Frame) -> Result<(), Ended> {
    if (frame.stream, frame.kind) != (REGISTRATION, Kind::Response) {
        return Ok(());
    }
    let response = Response::decode(frame.data.unwrap_or_default().as_slice());
    match response.ok().map(|response| response.status) {
        Some(Some(status)) if status.code != 0 => Err(Ended::Refused(presentable(&status.message))),
        Some(_) => Ok(()),
        None => Err(Ended::Refused("its answer makes no sense".to_owned())),
    }
}
