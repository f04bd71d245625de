//! What no runtime should say.

use super::super::testing::{Fate, Taken, frames, message, pod};
use super::super::ttrpc::{Request, Response};
use super::*;
use prost::Message;

async fn connected() -> (FakeRuntime, Agent, Taken) {
    let runtime = FakeRuntime::started();
    let agent = Agent::start(&runtime);
    let taken = runtime.take(LIMIT, Vec::new()).await;
    (runtime, agent, taken)
}

/// It still answers on this connection.
async fn answers(agent: &Agent, taken: &Taken) {
    agent.set(1, PodState::Plain);
    assert_eq!(taken.run(pod(1)).await, Fate::Started);
}

fn code(answer: Option<Response>) -> i32 {
    answer.expect("an answer").status.expect("a failure").code
}

#[tokio::test]
async fn calls_that_it_does_not_know_are_unimplemented() {
    let (_runtime, agent, taken) = connected().await;
    for method in ["CreateContainer", "", &"x".repeat(100_000)] {
        assert_eq!(code(taken.call(method, Vec::new()).await), 12);
    }
    let request = Request { service: "other".to_owned(), ..Request::default() };
    assert_eq!(code(taken.call_with(&request).await), 12);
    for method in ["Configure", "Synchronize", "RunPodSandbox", "StateChange"] {
        assert_eq!(code(taken.call(method, vec![0xff; 20]).await), 3, "{method}");
    }
    assert_eq!(taken.call("Shutdown", Vec::new()).await.unwrap().status, None);
    answers(&agent, &taken).await;
}

#[tokio::test]
async fn messages_that_are_no_calls_do_not_end_the_connection() {
    let (_runtime, agent, taken) = connected().await;
    // Streams that were used, are even, or were never opened; kinds for the future; what is no request.
    for (stream, kind) in [(1, 1), (1000, 1), (9001, 3), (9003, 2), (9005, 77)] {
        taken.write(1, stream, kind, b"").await;
    }
    taken.write(1, 101, 1, &[0xff; 9]).await;
    // Connections that nobody listens on, and an answer that nobody waits for.
    for connection in [0, 3, u32::MAX] {
        taken.write(connection, 1, 1, &[1; 100]).await;
    }
    taken.write(2, 99, 2, b"\xff").await;
    // An empty frame.
    taken.write_raw(&[0, 0, 0, 1, 0, 0, 0, 0]).await.unwrap();
    // The next streams are those above 101.
    for _ in 0..50 {
        taken.call("Shutdown", Vec::new()).await;
    }
    answers(&agent, &taken).await;
}

#[tokio::test]
async fn a_message_that_is_too_long_is_refused_alone() {
    let (_runtime, agent, taken) = connected().await;
    let longest = Request { payload: vec![0; 4 << 20], ..Request::default() };
    assert_eq!(code(taken.call_with(&longest).await), 8);
    answers(&agent, &taken).await;
}

#[tokio::test]
async fn garbage_ends_the_connection_and_another_is_made() {
    for garbage in [
        frames(1, b"").into_iter().chain([0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]).collect::<Vec<u8>>(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ] {
        let (runtime, mut agent, taken) = connected().await;
        taken.write_raw(&garbage).await.unwrap();
        agent.until_not_connected("a frame of").await;
        let taken = runtime.take(LIMIT, Vec::new()).await;
        answers(&agent, &taken).await;
    }
}

#[tokio::test]
async fn half_a_message_is_not_waited_for_for_ever() {
    let whole = frames(1, &message(1_000_001, 1, &[0; 100]));
    for length in [1, 7, 8, 9, 17, 18, 50, whole.len() - 1] {
        let (runtime, mut agent, taken) = connected().await;
        taken.write_raw(&whole[..length]).await.unwrap();
        agent.until_not_connected("in the middle of a message").await;
        drop((taken, runtime));
    }
}

#[tokio::test]
async fn a_slow_runtime_is_understood() {
    let (_runtime, agent, taken) = connected().await;
    agent.set(1, PodState::Plain);
    let mut payload = Vec::new();
    prost::encoding::message::encode(1, &pod(1), &mut payload);
    let request = Request {
        service: "nri.pkg.api.v1alpha1.Plugin".to_owned(),
        method: "RunPodSandbox".to_owned(),
        payload,
        timeout_nano: 0,
    };
    for byte in frames(1, &message(1001, 1, &request.encode_to_vec())) {
        taken.write_raw(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut status = agent.status.clone();
    status.wait_for(|status| status.admitted == 1).await.unwrap();
}

#[tokio::test]
async fn a_runtime_that_never_reads_is_left() {
    let runtime = FakeRuntime::started();
    let mut agent = Agent::start(&runtime);
    let stream = runtime.accept().await;
    let (_unread, mut writing) = stream.into_split();
    let call = Request { service: "other".to_owned(), ..Request::default() }.encode_to_vec();
    let flood = async {
        for stream in 0_u32.. {
            let bytes = frames(1, &message(2 * stream + 1, 1, &call));
            let written = tokio::io::AsyncWriteExt::write_all(&mut writing, &bytes).await;
            if written.is_err() {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), flood).await.expect("it reads for ever");
    agent.until_not_connected("does not read").await;
}
