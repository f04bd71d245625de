use std::time::Duration;

use super::*;
use crate::gate::sandbox::PodName;
use crate::sys::netns::NetworkNamespace;

const UID: &str = "0f5b0d5e-7a54-4a0e-8f0e-2f9d3c1b7a66";
const SOON: Duration = Duration::from_millis(50);

fn uid() -> PodUid {
    UID.parse().unwrap()
}

fn id(text: &str) -> SandboxId {
    SandboxId::new(text).unwrap()
}

fn sandbox(name: &str) -> Sandbox {
    Sandbox {
        id: id(name),
        uid: uid(),
        pod: PodName::new("shop", "web").unwrap(),
        runtime_handler: String::new(),
        cgroup_parent: String::new(),
        is_empty: false,
        pid: None,
        namespace: None,
        ips: Vec::new(),
    }
}

fn states() -> PodStates {
    PodStates::new(&GateSettings::default())
}

fn why() -> NotAdmitted {
    NotAdmitted::NoIdentity("the controller does not answer".to_owned())
}

async fn ask(states: &PodStates, sandbox: Sandbox) -> Result<(), NotAdmitted> {
    states.admit(sandbox, Instant::now() + SOON).await
}

#[tokio::test]
async fn what_is_known_is_answered_at_once() {
    let states = states();
    let far = || Instant::now() + Duration::from_secs(3600);
    states.set(uid(), PodState::Plain);
    assert_eq!(states.admit(sandbox("a"), far()).await, Ok(()));
    states.set(uid(), PodState::Ready([id("a")].into()));
    assert_eq!(states.admit(sandbox("a"), far()).await, Ok(()));
    states.set(uid(), PodState::Refused(why()));
    assert_eq!(states.admit(sandbox("a"), far()).await, Err(why()));
    assert!(!states.sandboxes().borrow().contains_key(&id("a")), "refused, and still shown");
}

#[tokio::test]
async fn how_long_sandboxes_wait_is_counted_whatever_the_answer_is() {
    let states = Arc::new(states());
    let mut registry = Registry::new(|_| None);
    states.register(&mut registry).unwrap();
    states.set(uid(), PodState::Plain);
    assert_eq!(ask(&states, sandbox("a")).await, Ok(()));
    let waited = states.waited.read();
    assert_eq!(waited.count, 1);
    assert!(waited.sum < SOON, "{waited:?}");
    states.forget(&uid());
    assert_eq!(ask(&states, sandbox("a")).await, Err(NotAdmitted::Undecided));
    let waited = states.waited.read();
    assert_eq!(waited.count, 2);
    assert!(waited.sum >= SOON, "{waited:?}");
}

#[tokio::test]
async fn what_is_not_known_is_waited_for_and_refused_at_the_deadline() {
    let states = states();
    let asked = Instant::now();
    assert_eq!(ask(&states, sandbox("a")).await, Err(NotAdmitted::Undecided));
    assert!(asked.elapsed() >= SOON);
    states.set(uid(), PodState::Preparing(why()));
    assert_eq!(ask(&states, sandbox("a")).await, Err(why()));
    states.forget(&uid());
    assert_eq!(ask(&states, sandbox("a")).await, Err(NotAdmitted::Undecided));
}

#[tokio::test]
async fn whoever_waits_gets_what_becomes_known_meanwhile() {
    let states = Arc::new(states());
    let mut sandboxes = states.sandboxes();
    let knows = states.clone();
    let preparing = tokio::spawn(async move {
        // As the control plane does: it takes the namespace of whatever is asked about, and serves it.
        sandboxes.wait_for(|shown| shown.contains_key(&id("a"))).await.unwrap();
        knows.set(uid(), PodState::Preparing(why()));
        tokio::task::yield_now().await;
        knows.set(uid(), PodState::Ready([id("a")].into()));
    });
    let far = Instant::now() + Duration::from_secs(3600);
    assert_eq!(states.admit(sandbox("a"), far).await, Ok(()));
    preparing.await.unwrap();
    assert!(states.sandboxes().borrow().contains_key(&id("a")));
    states.gone(&id("a"));
    assert!(states.sandboxes().borrow().is_empty());
}

#[tokio::test]
async fn a_pods_second_sandbox_is_not_served_because_the_first_was() {
    let states = states();
    states.set(uid(), PodState::Ready([id("a")].into()));
    let refused = ask(&states, sandbox("b")).await.unwrap_err();
    assert!(matches!(refused, NotAdmitted::NamespaceNotServed(_)), "{refused}");
}

#[tokio::test]
async fn who_stops_asking_leaves_nothing_behind() {
    let states = states();
    let far = Instant::now() + Duration::from_secs(3600);
    let asking = states.admit(sandbox("a"), far);
    let timeout = tokio::time::timeout(SOON, asking).await;
    assert!(timeout.is_err(), "decided by nobody");
    assert!(states.sandboxes().borrow().is_empty());
}

#[tokio::test]
async fn handlers_without_sockets_on_the_host_are_refused_where_protection_is_wanted() {
    let states = states();
    let in_vm = || Sandbox { runtime_handler: "kata".to_owned(), ..sandbox("a") };
    for state in [PodState::Preparing(why()), PodState::Ready([id("a")].into())] {
        states.set(uid(), state);
        let unsupported = NotAdmitted::Unsupported("kata".to_owned());
        assert_eq!(ask(&states, in_vm()).await, Err(unsupported));
    }
    states.set(uid(), PodState::Plain);
    assert_eq!(ask(&states, in_vm()).await, Ok(()));
    let with_kata =
        GateSettings { host_socket_handlers: vec!["kata".to_owned()], ..GateSettings::default() };
    let states = PodStates::new(&with_kata);
    states.set(uid(), PodState::Ready([id("a")].into()));
    assert_eq!(ask(&states, in_vm()).await, Ok(()));
}

#[tokio::test]
async fn undecided_pods_of_the_hosts_network_start() {
    let states = states();
    let on_host = || {
        let namespace = Some(NetworkNamespace::own().unwrap());
        Sandbox { namespace, ..sandbox("a") }
    };
    assert_eq!(ask(&states, on_host()).await, Ok(()));
    // Where it is known that they are to be protected, they wait like others.
    states.set(uid(), PodState::Preparing(why()));
    assert_eq!(ask(&states, on_host()).await, Err(why()));
    let hold = GateSettings { hold_host_network: true, ..GateSettings::default() };
    assert_eq!(ask(&PodStates::new(&hold), on_host()).await, Err(NotAdmitted::Undecided));
}

#[tokio::test]
async fn there_are_only_so_many_sandboxes() {
    let states = states();
    states.present((0..2 * MAX_SANDBOXES).map(|n| sandbox(&format!("s{n}"))).collect());
    assert_eq!(states.sandboxes().borrow().len(), MAX_SANDBOXES);
    states.set(uid(), PodState::Plain);
    assert_eq!(ask(&states, sandbox("one-more")).await, Err(NotAdmitted::Overloaded));
    assert_eq!(ask(&states, sandbox("s0")).await, Ok(()), "it is there already");
    states.present(Vec::new());
    assert_eq!(ask(&states, sandbox("one-more")).await, Ok(()));
}

/// By CNI the runtime asks before the sandbox's first process is there: if it had to wait until that is served, it never would be.
#[tokio::test]
async fn a_sandbox_in_which_nothing_runs_yet_need_not_be_served() {
    let states = states();
    states.set(uid(), PodState::Ready(BTreeSet::new()));
    assert_eq!(ask(&states, Sandbox { is_empty: true, ..sandbox("a") }).await, Ok(()));
    assert!(ask(&states, sandbox("a")).await.is_err());
    states.set(uid(), PodState::Preparing(why()));
    assert_eq!(ask(&states, Sandbox { is_empty: true, ..sandbox("a") }).await, Err(why()));
}
