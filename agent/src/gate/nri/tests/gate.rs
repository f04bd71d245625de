//! What is let through, what is not, and when.

use std::time::Instant;

use super::super::testing::{Fate, Taken, WholePod, pod};
use super::*;
use crate::gate::{Admission, NotAdmitted, Sandbox, SandboxId};

/// A pod of which no namespace is known: it is not in the host's network.
fn pod_of_its_own(number: usize) -> WholePod {
    pod(number).without_namespace()
}

fn ready(number: usize) -> PodState {
    PodState::Ready([SandboxId::new(&pod(number).id).unwrap()].into())
}

fn failed(fate: Fate) -> String {
    match fate {
        Fate::Failed(message) => message,
        fate => panic!("{fate:?}"),
    }
}

#[tokio::test]
async fn plain_and_ready_pods_start_and_others_fail_with_the_cause() {
    let runtime = FakeRuntime::started();
    let mut agent = Agent::start(&runtime);
    let taken = runtime.take(LIMIT, Vec::new()).await;
    agent.set(1, PodState::Plain);
    agent.set(2, ready(2));
    let no_svid = NotAdmitted::NoIdentity("the controller answers: node unknown".to_owned());
    agent.set(3, PodState::Preparing(no_svid));
    agent.set(4, PodState::Refused(NotAdmitted::Refused("a mirror pod".to_owned())));
    assert_eq!(taken.run(pod_of_its_own(1)).await, Fate::Started);
    assert_eq!(taken.run(pod_of_its_own(2)).await, Fate::Started);
    for (number, complaint) in
        [(3, "the controller answers: node unknown"), (4, "a mirror pod"), (5, "not decided yet")]
    {
        let asked = Instant::now();
        let message = failed(taken.run(pod_of_its_own(number)).await);
        assert!(asked.elapsed() < LIMIT.mul_f64(0.9), "{:?}", asked.elapsed());
        let whose = format!("sheath: pod shop/web-{number} ({})", uid(number));
        assert!(message.starts_with(&whose) && message.contains(complaint), "{message}");
    }
    let status = agent.until("counted", |status| status.not_admitted == 3).await;
    assert_eq!(status.admitted, 2);
    assert!(taken.is_open());
}

/// Whatever makes a static pod wait may wait for that pod.
#[tokio::test]
async fn static_pods_start_without_a_question() {
    let runtime = FakeRuntime::started();
    let agent = Agent::start(&runtime);
    let static_pod = |uid: &str| WholePod { uid: uid.to_owned(), ..pod_of_its_own(1) };
    let uids = ["b1946ac92492d2347c6235b4d2611184", "apiserver"];
    let present = uids.map(static_pod).to_vec();
    let taken = runtime.take(LIMIT, vec![present]).await;
    for uid in uids {
        let asked = Instant::now();
        assert_eq!(taken.run(static_pod(uid)).await, Fate::Started, "{uid}");
        assert!(asked.elapsed() < LIMIT / 2, "{uid}");
    }
    assert!(agent.states.sandboxes().borrow().is_empty());
}

#[tokio::test]
async fn what_makes_no_sense_fails_and_is_named() {
    let runtime = FakeRuntime::started();
    let _agent = Agent::start(&runtime);
    let taken = runtime.take(LIMIT, Vec::new()).await;
    for (pod, complaint) in [
        (WholePod { uid: "../x".to_owned(), ..pod(1) }, "no uid of a pod"),
        (WholePod { uid: String::new(), ..pod(1) }, "no uid of a pod"),
        (WholePod { name: "a\nb".to_owned(), ..pod(1) }, "its name"),
        (WholePod { namespace: String::new(), ..pod(1) }, "its namespace"),
        (WholePod { id: "/".to_owned(), ..pod(1) }, "no id"),
        (WholePod { uid: "\u{e9}".repeat(100_000), ..pod(1) }, "no uid of a pod"),
    ] {
        let message = failed(taken.run(pod).await);
        assert!(message.contains(complaint), "{message}");
        assert!(!message.contains('\n') && message.len() < 2000, "{message}");
    }
    let nobody = taken.call("RunPodSandbox", Vec::new()).await;
    assert!(failed(super::super::testing::fate(nobody)).contains("does not say which"));
}

/// Asks about two hundred pods at once.
fn run_two_hundred(taken: &Arc<Taken>) -> Vec<JoinHandle<Fate>> {
    let run = |number| {
        let taken = taken.clone();
        tokio::spawn(async move { taken.run(pod_of_its_own(number)).await })
    };
    (0..200).map(run).collect()
}

#[tokio::test]
async fn two_hundred_at_once_are_answered_in_time() {
    let runtime = FakeRuntime::started();
    let _agent = Agent::start(&runtime);
    let taken = Arc::new(runtime.take(Duration::from_secs(2), Vec::new()).await);
    for run in run_two_hundred(&taken) {
        assert!(failed(run.await.unwrap()).contains("not decided yet"));
    }
    assert!(taken.is_open());
}

#[tokio::test]
async fn two_hundred_that_are_decided_in_one_moment_start() {
    let runtime = FakeRuntime::started();
    let agent = Agent::start(&runtime);
    let taken = Arc::new(runtime.take(Duration::from_secs(5), Vec::new()).await);
    let runs = run_two_hundred(&taken);
    tokio::time::sleep(Duration::from_millis(200)).await;
    (0..200).for_each(|number| agent.set(number, ready(number)));
    for run in runs {
        assert_eq!(run.await.unwrap(), Fate::Started);
    }
    assert!(taken.is_open());
}

#[tokio::test]
async fn pods_that_nobody_decides_do_not_keep_the_node_to_themselves() {
    const PODS: usize = 40;
    let runtime = FakeRuntime::started();
    let agent = Agent::start(&runtime);
    let taken = runtime.take(Duration::from_secs(2), Vec::new()).await;
    agent.set(PODS, PodState::Plain);
    let asked = Instant::now();
    // One after the other, as a runtime does it.
    for number in 0..PODS {
        failed(taken.run_alone(pod_of_its_own(number)).await);
    }
    assert_eq!(taken.run_alone(pod_of_its_own(PODS)).await, Fate::Started);
    // 3/4 of the limit for each would be a minute.
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_pod_that_has_only_to_be_served_is_waited_for_whatever_others_have_used_up() {
    let runtime = FakeRuntime::started();
    let agent = Agent::start(&runtime);
    let taken = runtime.take(Duration::from_secs(2), Vec::new()).await;
    let served_by_nobody = PodState::Ready([].into());
    agent.set(2, served_by_nobody.clone());
    // In vain, and it costs nobody anything: so three times.
    for _ in 0..3 {
        let asked = Instant::now();
        assert!(failed(taken.run_alone(pod_of_its_own(2)).await).contains("is not served"));
        assert!(asked.elapsed() > Duration::from_millis(1400), "{:?}", asked.elapsed());
    }
    failed(taken.run_alone(pod_of_its_own(1)).await);
    agent.set(3, served_by_nobody);
    let serving = async {
        tokio::time::sleep(Duration::from_millis(800)).await;
        agent.set(3, ready(3));
    };
    let (run, ()) = tokio::join!(taken.run_alone(pod_of_its_own(3)), serving);
    assert_eq!(run, Fate::Started);
}

#[tokio::test]
async fn more_than_can_be_looked_after_are_refused_and_not_forgotten() {
    let runtime = FakeRuntime::started();
    let _agent = Agent::start(&runtime);
    let taken = Arc::new(runtime.take(Duration::from_secs(5), Vec::new()).await);
    let runs = (0..1000).map(|number| {
        let taken = taken.clone();
        tokio::spawn(async move { taken.run(pod_of_its_own(number)).await })
    });
    let mut overloaded = 0;
    for run in runs.collect::<Vec<_>>() {
        let message = failed(run.await.unwrap());
        overloaded += usize::from(message.contains("more sandboxes than it can look after"));
    }
    assert_eq!(overloaded, 750);
    assert!(taken.is_open());
}

/// One that never answers, and one that falls over.
struct Broken {
    panics: bool,
}

impl Doorkeeper for Broken {
    fn admit(&self, _: Sandbox, _: Instant) -> Admission<'_> {
        Box::pin(async {
            assert!(!self.panics, "a mistake, for the test");
            std::future::pending().await
        })
    }

    fn present(&self, _: Vec<Sandbox>) {}

    fn gone(&self, _: &SandboxId) {}
}

#[tokio::test]
async fn a_doorkeeper_that_does_not_answer_lets_nobody_in() {
    // To tell of a panic takes a while where others work.
    let long = Duration::from_secs(20);
    for (panics, limit, complaint) in
        [(false, LIMIT, "not decided yet"), (true, long, "has failed to decide")]
    {
        let runtime = FakeRuntime::started();
        let (status, _) = watch::channel(NriStatus::default());
        let plugin = plugin(&runtime, Arc::new(Broken { panics }), status);
        let running = tokio::spawn(plugin.run());
        let taken = runtime.take(limit, Vec::new()).await;
        for number in 0..3 {
            let message = failed(taken.run(pod_of_its_own(number)).await);
            assert!(message.contains(complaint), "{message}");
        }
        running.abort();
    }
}

#[tokio::test]
async fn the_runtimes_own_limit_counts_where_it_is_shorter() {
    use super::super::ttrpc::Request;
    let runtime = FakeRuntime::started();
    let _agent = Agent::start(&runtime);
    let taken = runtime.take(Duration::from_secs(10), Vec::new()).await;
    let mut payload = Vec::new();
    prost::encoding::message::encode(1, &pod_of_its_own(1), &mut payload);
    // By the limit that it said at first the answer would take 7.5 s.
    for timeout_nano in [200_000_000, -1] {
        let request = Request {
            service: "nri.pkg.api.v1alpha1.Plugin".to_owned(),
            method: "RunPodSandbox".to_owned(),
            payload: payload.clone(),
            timeout_nano,
        };
        let asked = Instant::now();
        failed(super::super::testing::fate(taken.call_with(&request).await));
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }
}
