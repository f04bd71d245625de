//! Both sides of the hand-over, over a real socket, with what may go wrong.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use zeroize::Zeroizing;

use super::connection::{Broken, Connection};
use super::message::{HEADER, Malformed, Message, VERSION};
use super::*;

const SOON: Duration = Duration::from_secs(5);

fn introduction(agent: &str) -> Introduction {
    Introduction { agent: agent.to_owned(), abi: 1 }
}

fn welcome() -> Message {
    Message::welcome(introduction("old"), ["web".to_owned()].into())
}

/// An agent that can be called.
struct Callable {
    directory: TempDir,
    calls: mpsc::Receiver<Successor>,
    _serving: AbortOnDropHandle<()>,
}

impl Callable {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = PreparedServer::new(&directory.path().join("handover.sock")).unwrap();
        let (sender, calls) = mpsc::channel(1);
        let serving = server.publish().unwrap().serve(welcome, sender);
        let serving = AbortOnDropHandle::new(tokio::spawn(serving));
        Self { directory, calls, _serving: serving }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("handover.sock")
    }

    async fn call(&self) -> Result<Predecessor, NotCalled> {
        Predecessor::call(&self.socket(), introduction("new")).await
    }

    /// Calls until nobody else is served.
    async fn call_in_turn(&self) -> Predecessor {
        let begun = Instant::now();
        loop {
            match self.call().await {
                Err(NotCalled::Refused(_)) if begun.elapsed() < SOON => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                called => return called.unwrap(),
            }
        }
    }

    /// A connection by which anything can be said.
    async fn connect(&self) -> Connection {
        Connection::new(UnixStream::connect(self.socket()).await.unwrap()).unwrap()
    }

    /// Both sides at the moment at which the successor has the lock.
    async fn yielded(&mut self) -> (Yielded, Starting, OwnedFd) {
        let predecessor = self.call_in_turn().await;
        assert_eq!(predecessor.introduction().agent, "old");
        assert_eq!(predecessor.identified(), &["web".to_owned()].into());
        assert_eq!(predecessor.pid(), std::process::id() as i32);
        let asking = tokio::spawn(predecessor.ask_to_yield());
        let successor = self.calls.recv().await.unwrap();
        assert_eq!((successor.version(), successor.pid()), ("new", std::process::id() as i32));
        let lock = File::open("/dev/null").unwrap();
        let starting = successor.yielded(lock.as_fd()).await.unwrap();
        let (received, yielded) = asking.await.unwrap().unwrap();
        (yielded, starting, received)
    }

    /// Both sides when the successor serves, and takes flows.
    async fn serving(&mut self, resumer: Arc<dyn FlowResumer>) -> (FlowsGiven, Serving) {
        let (yielded, starting, _) = self.yielded().await;
        let take_over = Arc::new(yielded.begin());
        let known = take_over.clone();
        yielded.serving().await.unwrap();
        let task = tokio::spawn(async move { yielded.take_flows(resumer, &known).await });
        let given = starting.serving().await.unwrap();
        (given, Serving { take_over, task: AbortOnDropHandle::new(task) })
    }
}

struct Serving {
    take_over: Arc<TakeOver>,
    task: AbortOnDropHandle<()>,
}

/// Answers each flow by writing its state to the application, once it has it.
#[derive(Debug, Default)]
struct Echoing {
    refuses: bool,
    seen: Mutex<usize>,
}

impl FlowResumer for Echoing {
    fn restore(&self, flow: MovingFlow) -> Result<GoOn, String> {
        *self.seen.lock().unwrap() += 1;
        if self.refuses {
            return Err("it does not fit".to_owned());
        }
        Ok(Box::new(move || {
            let mut app = TcpStream::from(flow.app);
            app.write_all(&flow.state).unwrap();
        }))
    }
}

/// The far ends of a flow.
struct Ends {
    app: TcpStream,
    _wire: TcpStream,
}

fn flow(state: &[u8]) -> (MovingFlow, Ends) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (app, wire) = (connect(), connect());
    let accept = || listener.accept().unwrap().0;
    let ends = Ends { app: accept(), _wire: accept() };
    let state = Zeroizing::new(state.to_vec());
    (MovingFlow { state, app: app.into(), wire: wire.into() }, ends)
}

/// What the application hears until the end.
fn read_all(ends: Ends) -> Vec<u8> {
    let (mut end, mut all) = (&ends.app, Vec::new());
    end.set_read_timeout(Some(SOON)).unwrap();
    end.read_to_end(&mut all).unwrap();
    all
}

#[tokio::test]
async fn the_lock_that_arrives_is_the_one_that_was_passed_on() {
    let mut callable = Callable::new();
    let (_yielded, _starting, lock) = callable.yielded().await;
    let (found, wanted) =
        (File::from(lock).metadata().unwrap(), fs::metadata("/dev/null").unwrap());
    assert_eq!((found.dev(), found.ino()), (wanted.dev(), wanted.ino()));
}

#[tokio::test]
async fn flows_that_are_taken_go_on_with_the_successor_and_others_stay() {
    let mut callable = Callable::new();
    let echoing = Arc::new(Echoing::default());
    let (given, serving) = callable.serving(echoing.clone()).await;
    let long = vec![7; 300_000];
    for state in [b"one".as_slice(), &long] {
        let (flow, end) = flow(state);
        let reading = tokio::task::spawn_blocking(|| read_all(end));
        assert_eq!(given.offer(flow).await, Offer::Taken);
        assert!(reading.await.unwrap() == state);
    }
    // No agent takes this for a flow.
    let (mut odd, _end) = flow(b"x");
    odd.wire = File::open("/dev/null").unwrap().into();
    let Offer::Refused(why) = given.offer(odd).await else { panic!("taken") };
    assert!(why.contains("not a TCP connection"), "{why}");
    let flows = &serving.take_over;
    assert_eq!((flows.taken.get(), flows.refused.get(), *echoing.seen.lock().unwrap()), (2, 1, 2));
    assert!(!serving.take_over.has_ended());

    drop((given, callable));
    tokio::time::timeout(SOON, serving.task).await.unwrap().unwrap();
    assert!(serving.take_over.has_ended());
}

#[tokio::test]
async fn a_flow_that_is_not_taken_has_not_been_touched() {
    let mut callable = Callable::new();
    let resumer = Arc::new(Echoing { refuses: true, ..Echoing::default() });
    let (given, serving) = callable.serving(resumer).await;
    let (flow, end) = flow(b"state");
    let own = TcpStream::from(flow.app.try_clone().unwrap());
    assert!(matches!(given.offer(flow).await, Offer::Refused(_)));
    (&own).write_all(b"still mine").unwrap();
    drop(own);
    assert_eq!(read_all(end), b"still mine");
    assert_eq!(serving.take_over.refused.get(), 1);
}

#[tokio::test]
async fn flows_stay_when_the_successor_is_gone() {
    let mut callable = Callable::new();
    let (given, serving) = callable.serving(Arc::new(Echoing::default())).await;
    serving.task.abort();
    let _ = serving.task.await;
    for _ in 0..2 {
        let (flow, _end) = flow(b"state");
        assert!(matches!(given.offer(flow).await, Offer::Refused(_)));
    }
}

/// What has been said last decides whose a flow is.
#[tokio::test]
async fn a_successor_that_breaks_off_before_a_flow_is_its_own_leaves_it() {
    let mut callable = Callable::new();
    let connection = callable.connect().await;
    connection.send(&Message::Hello(introduction("new")), &[], SOON).await.unwrap();
    connection.receive_within(SOON).await.unwrap();
    connection.send(&Message::Yield, &[], SOON).await.unwrap();
    let successor = callable.calls.recv().await.unwrap();
    let starting = successor.yielded(File::open("/dev/null").unwrap().as_fd()).await.unwrap();
    connection.receive_within(SOON).await.unwrap();
    connection.send(&Message::Serving, &[], SOON).await.unwrap();
    let given = starting.serving().await.unwrap();
    let (flow, _end) = flow(b"state");
    let offering = tokio::spawn(async move { given.offer(flow).await });
    let offered = connection.receive_within(SOON).await.unwrap();
    assert_eq!(
        (offered.message, offered.descriptors.len()),
        (Message::Flow(Zeroizing::new(b"state".to_vec())), 2)
    );
    drop(connection);
    assert!(matches!(offering.await.unwrap(), Offer::Refused(_)));
}

#[tokio::test]
async fn one_successor_is_served_at_a_time_and_the_next_when_it_is_gone() {
    let mut callable = Callable::new();
    let first = callable.call().await.unwrap();
    let Err(NotCalled::Refused(why)) = callable.call().await else { panic!("not refused") };
    assert!(why.contains("another agent is taking over"), "{why}");
    drop(first);
    // That goes on for as long as it has the lock and does not serve.
    let (yielded, starting, _lock) = callable.yielded().await;
    assert!(matches!(callable.call().await, Err(NotCalled::Refused(_))));
    drop(yielded);
    assert!(matches!(starting.serving().await, Err(Broken::Ended)));
    callable.yielded().await;
}

#[tokio::test]
async fn nobody_is_told_from_an_agent_that_says_no() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = directory.path().join("handover.sock");
    let called = Predecessor::call(&nowhere, introduction("new")).await;
    assert!(matches!(called, Err(NotCalled::Nobody(_))));
    drop(StdUnixListener::bind(&nowhere).unwrap());
    let called = Predecessor::call(&nowhere, introduction("new")).await;
    assert!(matches!(called, Err(NotCalled::Nobody(_))));
}

/// Says something to an agent that waits for a successor, and returns the answer.
async fn told(callable: &Callable, bytes: &[u8]) -> Vec<u8> {
    let mut stream = StdUnixStream::connect(callable.socket()).unwrap();
    let bytes = bytes.to_vec();
    tokio::task::spawn_blocking(move || {
        let mut answer = Vec::new();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(&bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // What it has not read is an error at the end.
        let _ = stream.read_to_end(&mut answer);
        answer
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn who_speaks_another_language_is_told_so_and_harms_nobody() {
    let mut callable = Callable::new();
    let mut later = Message::Hello(introduction("later")).encode().unwrap();
    later[..2].copy_from_slice(&(VERSION + 1).to_le_bytes());
    let hello = Message::Hello(introduction("new")).encode().unwrap();
    let out_of_turn = [Message::Yield, Message::Serving, Message::Yours];
    let mut nonsense: Vec<Vec<u8>> = vec![
        later.to_vec(),
        hello[..HEADER - 1].to_vec(),
        hello[..hello.len() - 1].to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 64],
        Vec::new(),
    ];
    nonsense.extend(out_of_turn.iter().map(|message| message.encode().unwrap().to_vec()));
    for bytes in nonsense {
        let answer = told(&callable, &bytes).await;
        let body = answer.get(HEADER..).unwrap_or_else(|| panic!("no answer to {bytes:?}"));
        let answer = Message::decode(body, 0).unwrap();
        assert!(matches!(answer, Message::Refused(_)), "{bytes:?}: {answer:?}");
    }
    callable.yielded().await;
}

/// Descriptors that nobody has asked for are closed, and are no message.
#[tokio::test]
async fn messages_with_other_descriptors_than_theirs_are_refused() {
    let callable = Callable::new();
    let connection = callable.connect().await;
    let null = File::open("/dev/null").unwrap();
    connection.send(&Message::Hello(introduction("new")), &[null.as_fd()], SOON).await.unwrap();
    let answer = connection.receive_within(SOON).await.unwrap();
    let Message::Refused(why) = answer.message else { panic!("{answer:?}") };
    assert!(why.contains("1 descriptors in place of 0"), "{why}");
    // And those that should have come and have not.
    let (one, other) = UnixStream::pair().unwrap();
    let (one, other) = (Connection::new(one).unwrap(), Connection::new(other).unwrap());
    one.send(&Message::Yielded, &[], SOON).await.unwrap();
    let error = other.receive_within(SOON).await.unwrap_err();
    let wanted = Malformed::Descriptors { wanted: 1, found: 0 };
    assert!(matches!(error, Broken::Malformed(found) if found == wanted));
}

/// An agent that does not know the protocol, or not this version of it.
#[tokio::test]
async fn an_agent_of_another_version_is_not_taken_over_from() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("handover.sock");
    let listener = StdUnixListener::bind(&path).unwrap();
    let mut refusal = Message::refused("no").encode().unwrap().to_vec();
    refusal[..2].copy_from_slice(&9_u16.to_le_bytes());
    let answering = tokio::task::spawn_blocking(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; HEADER]).unwrap();
        stream.write_all(&refusal).unwrap();
    });
    let called = Predecessor::call(&path, introduction("new")).await;
    let Err(NotCalled::Broken(Broken::Malformed(Malformed::Version(9)))) = called else {
        panic!("{called:?}");
    };
    answering.await.unwrap();
}
