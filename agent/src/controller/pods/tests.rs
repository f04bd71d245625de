use super::*;
use serde_json::json;

/// Writes down what it hears.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Heard {
    fn note(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }

    fn taken(&self) -> Vec<String> {
        let mut heard = std::mem::take(&mut *self.0.lock().unwrap());
        heard.sort();
        heard
    }
}

impl Listener for Heard {
    fn set(&self, uid: PodUid, pod: &KnownPod) {
        self.note(format!("{} at {}", number(uid), pod.node));
    }

    fn gone(&self, uid: PodUid) {
        self.note(format!("{} gone", number(uid)));
    }

    fn keep(&self, all: &HashSet<PodUid>) {
        let mut all: Vec<_> = all.iter().map(|uid| number(*uid)).collect();
        all.sort_unstable();
        self.note(format!("all: {all:?}"));
    }
}

fn number(uid: PodUid) -> u8 {
    uid.to_bytes()[15]
}

fn pod(number: u8, node: &str) -> api::Pod {
    object(number, node, "10.1.0.7")
}

fn object(number: u8, node: &str, address: &str) -> api::Pod {
    let object = json!({
        "metadata": {"name": format!("web-{number}"), "namespace": "shop", "uid": format!("00000000-0000-4000-8000-{number:012x}")},
        "spec": {"nodeName": node, "serviceAccountName": "web", "containers": []},
        "status": {"phase": "Running", "podIP": address},
    });
    serde_json::from_value(object).unwrap()
}

fn listed(known: &mut Known, pods: impl IntoIterator<Item = api::Pod>) {
    known.take(Change::Init);
    pods.into_iter().for_each(|pod| known.take(Change::InitApply(pod)));
    known.take(Change::InitDone);
}

#[test]
fn whoever_listens_hears_all_pods_and_then_what_changes() {
    let mut known = Known::default();
    let heard = Arc::new(Heard::default());
    known.listener = Some(heard.clone());
    known.tell_all();
    assert_eq!(heard.taken(), [""; 0], "nothing is known yet");
    listed(&mut known, [pod(1, "a"), pod(2, "b")]);
    assert_eq!(heard.taken(), ["1 at a", "2 at b", "all: [1, 2]"]);
    known.take(Change::Apply(pod(3, "c")));
    known.take(Change::Delete(pod(1, "a")));
    assert_eq!(heard.taken(), ["1 gone", "3 at c"]);
    // A list that is being read is told as a whole.
    known.take(Change::Init);
    known.take(Change::InitApply(pod(4, "d")));
    assert_eq!(heard.taken(), [""; 0]);
    known.take(Change::InitDone);
    assert_eq!(heard.taken(), ["4 at d", "all: [4]"]);
    let late = Arc::new(Heard::default());
    known.listener = Some(late.clone());
    known.tell_all();
    assert_eq!(late.taken(), ["4 at d", "all: [4]"]);
}

#[test]
fn a_pod_that_makes_no_sense_gets_no_identity_and_is_otherwise_what_it_was() {
    let mut known = Known::default();
    let heard = Arc::new(Heard::default());
    known.listener = Some(heard.clone());
    listed(&mut known, [pod(1, "a")]);
    heard.taken();
    known.take(Change::Apply(object(1, "a", "10.1.0")));
    assert!(known.pods.objects().unwrap().is_empty());
    assert_eq!(heard.taken(), [""; 0]);
    listed(&mut known, [object(1, "a", "10.1.0"), pod(2, "b")]);
    assert_eq!(heard.taken(), ["2 at b", "all: [1, 2]"]);
}

#[test]
fn names_are_shared() {
    let mut known = Known::default();
    listed(&mut known, [pod(1, "a"), pod(2, "a")]);
    let pods: Vec<_> = known.pods.objects().unwrap().values().collect();
    assert!(Arc::ptr_eq(&pods[0].node, &pods[1].node));
    assert_eq!(known.names.0.len(), 3);
}
