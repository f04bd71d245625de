//! Coming, going, and what is learnt meanwhile.

use super::super::testing::{Fate, WholePod, pod};
use super::*;
use crate::gate::SandboxId;

#[tokio::test]
async fn it_registers_first_of_all_plugins_and_learns_what_there_is() {
    let runtime = FakeRuntime::started();
    let mut agent = Agent::start(&runtime);
    let lists = vec![
        (0..200).map(pod).collect(),
        vec![WholePod { uid: "no uid".to_owned(), ..pod(999) }],
        (200..300).map(pod).collect(),
    ];
    let sandboxes = agent.states.sandboxes();
    let taken = runtime.take(LIMIT, lists).await;
    assert_eq!(taken.registration.plugin_name, "sheath");
    assert_eq!(taken.registration.plugin_idx, "00");
    assert_eq!(sandboxes.borrow().len(), 300);
    let id = SandboxId::new(&pod(7).id).unwrap();
    let sandbox = sandboxes.borrow()[&id].clone();
    assert_eq!(sandbox.uid, pod_uid(7));
    assert_eq!(sandbox.pod.to_string(), "shop/web-7");
    assert_eq!(sandbox.runtime_handler, "runc");
    assert_eq!(sandbox.cgroup_parent, "/kubepods/besteffort");
    assert_eq!(sandbox.pid, Some(1));
    assert_eq!(
        sandbox.ips,
        ["10.1.2.3".parse::<std::net::IpAddr>().unwrap(), "fd00::3".parse().unwrap()]
    );
    assert!(sandbox.is_host_network());
    let status = agent.until("connected", |status| status.connected_since.is_some()).await;
    assert_eq!(status.runtime.as_deref(), Some("fake v1\u{fffd}[31m"));
    assert_eq!(status.request_timeout, Some(LIMIT));
}

#[tokio::test]
async fn a_list_replaces_the_one_before() {
    let runtime = FakeRuntime::started();
    let mut agent = Agent::start(&runtime);
    let sandboxes = agent.states.sandboxes();
    let taken = runtime.take(LIMIT, vec![(0..20).map(pod).collect()]).await;
    assert_eq!(sandboxes.borrow().len(), 20);
    taken.close().await;
    agent.until_not_connected("has closed the connection").await;
    assert_eq!(sandboxes.borrow().len(), 20, "still there, for all that is known");
    let _taken = runtime.take(LIMIT, vec![(10..15).map(pod).collect()]).await;
    assert_eq!(sandboxes.borrow().len(), 5);
}

#[tokio::test]
async fn it_comes_back_after_the_runtime_and_before_it() {
    let mut runtime = FakeRuntime::stopped();
    let mut agent = Agent::start(&runtime);
    agent.until_not_connected("there is no such socket").await;
    runtime.start();
    for _ in 0..3 {
        let taken = runtime.take(LIMIT, Vec::new()).await;
        agent.until("connected", |status| status.connected_since.is_some()).await;
        agent.set(1, PodState::Plain);
        assert_eq!(taken.run(pod(1)).await, Fate::Started);
        runtime.kill();
        taken.close().await;
        agent.until_not_connected("").await;
        runtime.start();
    }
    assert_eq!(agent.status.borrow().connections, 3);
    runtime.kill();
    agent.until_not_connected("nobody listens").await;
}

#[tokio::test]
async fn a_runtime_that_refuses_it_or_says_nothing_is_tried_again() {
    use super::super::ttrpc::{Response, Status};
    let runtime = FakeRuntime::started();
    let mut agent = Agent::start(&runtime);
    let silent = runtime.accept().await;
    agent.until_not_connected("has not configured").await;
    drop(silent);
    let refusing = runtime.accept().await;
    let status = Some(Status { code: 2, message: "no\nplugins".to_owned() });
    let refusal = Response { status, payload: Vec::new() };
    let bytes = super::super::testing::message(1, 2, &prost::Message::encode_to_vec(&refusal));
    let bytes = super::super::testing::frames(2, &bytes);
    let mut refusing = refusing;
    tokio::io::AsyncWriteExt::write_all(&mut refusing, &bytes).await.unwrap();
    agent.until_not_connected("refuses the plugin: no\u{fffd}plugins").await;
    runtime.take(LIMIT, Vec::new()).await;
}

#[tokio::test]
async fn a_sandbox_that_has_stopped_is_forgotten() {
    use super::super::messages::StateChangeEvent;
    use prost::Message;
    let runtime = FakeRuntime::started();
    let agent = Agent::start(&runtime);
    let taken = runtime.take(LIMIT, vec![(0..4).map(pod).collect()]).await;
    let sandboxes = agent.states.sandboxes();
    let mut wrapped = Vec::new();
    prost::encoding::message::encode(1, &pod(0), &mut wrapped);
    for method in ["StopPodSandbox", "RemovePodSandbox"] {
        let answer = taken.call(method, wrapped.clone()).await.unwrap();
        assert_eq!((answer.status, answer.payload), (None, Vec::new()));
    }
    assert_eq!(sandboxes.borrow().len(), 3);
    // As NRI before 0.11 says it.
    let whole =
        |number| super::super::messages::PodSandbox::decode(pod(number).encode_to_vec().as_slice());
    for (event, left) in [(2, 2), (3, 2), (9, 2)] {
        let change = StateChangeEvent { event, pod: Some(whole(1).unwrap()) };
        assert_eq!(taken.call("StateChange", change.encode_to_vec()).await.unwrap().status, None);
        assert_eq!(sandboxes.borrow().len(), left);
    }
    let change = StateChangeEvent { event: 1, pod: Some(whole(5).unwrap()) };
    let refused = taken.call("StateChange", change.encode_to_vec()).await;
    // Undecided, and in the host's network.
    assert_eq!(super::super::testing::fate(refused), Fate::Started);
    agent.set(5, PodState::Refused(crate::gate::NotAdmitted::Refused("no".to_owned())));
    let refused = taken.call("StateChange", change.encode_to_vec()).await;
    assert!(matches!(super::super::testing::fate(refused), Fate::Failed(_)));
}
