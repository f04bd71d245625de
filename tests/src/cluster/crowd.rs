//! Many pods at once whose first instruction is `connect()`.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::scene::{IMAGE, PORT, Scene};
use super::{NODES, NodeName, WIRE};
use crate::script::{Event, Job, Newcomer};
use crate::tap::Tap;
use crate::{binaries, wait};

/// Long enough for hundreds of them on a busy machine.
const LIMIT: Duration = Duration::from_secs(420);

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Whom each of them calls, by address.
pub struct Called {
    /// First: nobody who is protected may reach it, and it takes plaintext of everybody.
    pub stranger: String,
    /// Then, again and again until it answers with the scene's marker.
    pub server: String,
}

impl Called {
    /// A server of the scene on the second node, and one of another scene, which is not protected. What crosses the first node's wire
    /// from now on is on the tap.
    ///
    /// # Panics
    /// When the cluster does not do what it is told, or the tap does not see what the stranger says to its neighbour.
    pub fn run(scene: &Scene<'_>, elsewhere: &Scene<'_>) -> (Self, Tap) {
        let [a, b] = NODES;
        scene.run("web", "web", b);
        elsewhere.run("open", "web", b);
        scene.run("client", "client", a);
        let of = |scene: &Scene<'_>, pod| scene.addresses(pod).swap_remove(0);
        let called = Self { stranger: of(elsewhere, "open"), server: of(scene, "web") };
        scene.wait_served("client", &called.server);
        let tap = Tap::new(&scene.cluster.node(a).netns, WIRE);
        // A stranger who answers nobody would prove nothing.
        elsewhere.run("neighbour", "client", a);
        elsewhere.wait_served("neighbour", &called.stranger);
        assert!(tap.sightings(&elsewhere.marker) > 0, "the tap sees nothing");
        (called, tap)
    }
}

/// The pods. They have the scene's service account `client`.
pub struct Crowd<'s> {
    scene: &'s Scene<'s>,
    node: NodeName,
    name: String,
    size: usize,
}

impl<'s> Crowd<'s> {
    /// Makes them on a node, by one command. Those that stay do so until they are deleted; others end once they were answered.
    ///
    /// # Panics
    /// When the cluster does not do what it is told; so does everything here.
    pub fn make(
        scene: &'s Scene<'_>,
        (name, size): (&str, usize),
        node: NodeName,
        called: &Called,
        stays: bool,
    ) -> Self {
        let at = |address: &str| SocketAddr::new(address.parse().unwrap(), PORT);
        let job = Job::Newcomer {
            stranger: at(&called.stranger),
            server: at(&called.server),
            text: scene.marker.clone(),
            stays,
        };
        let probe = binaries::probe();
        let probe = format!("/usr/bin/{}", probe.file_name().unwrap().to_string_lossy());
        let command = [probe, serde_json::to_string(&job).unwrap()];
        let pod = |number: usize| {
            json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": format!("{name}-{number}"),
                    "namespace": scene.namespace,
                    "labels": {"crowd": name},
                },
                "spec": {
                    "nodeName": node.as_str(),
                    "serviceAccountName": "client",
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "main",
                        "image": IMAGE,
                        "imagePullPolicy": "Never",
                        "command": command,
                    }],
                },
            })
        };
        let pods: Vec<_> = (0..size).map(pod).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": pods});
        scene.cluster.kubectl().feed(["create", "--filename=-"], &list.to_string()).unwrap();
        Self { scene, node, name: name.to_owned(), size }
    }

    /// Whether all of them have ended.
    pub fn have_ended(&self) -> bool {
        let has_ended = |pod: &Value| {
            ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase)
        };
        self.pods().iter().all(has_ended)
    }

    /// Waits until all of them run at the same time.
    pub fn wait_running(&self) {
        let runs = |pod: &&Value| pod["status"]["containerStatuses"][0]["ready"] == true;
        let mut last = 0;
        let all = wait::try_for(LIMIT, || {
            last = self.pods().iter().filter(runs).count();
            self.or_later(last)
        });
        assert!(all.is_some(), "{last} of {} pods run after {LIMIT:?}", self.size);
    }

    /// What they have seen, once all of them were answered.
    pub fn reports(&self) -> Vec<Newcomer> {
        let mut reports = Vec::new();
        let all = wait::try_for(LIMIT, || {
            reports = self.logs().lines().filter_map(report).collect();
            self.or_later(reports.len())
        });
        let (count, size) = (reports.len(), self.size);
        assert!(all.is_some(), "{count} of {size} pods were answered within {LIMIT:?}");
        reports
    }

    /// All of them, or a pause: to look takes a part of the processor.
    fn or_later(&self, count: usize) -> Option<()> {
        if count < self.size {
            thread::sleep(PAUSE);
            return None;
        }
        Some(())
    }

    fn pods(&self) -> Vec<Value> {
        let space = format!("--namespace={}", self.scene.namespace);
        let label = format!("--selector=crowd={}", self.name);
        let pods = self.scene.cluster.kubectl().get(["pods", &space, &label]).unwrap();
        pods["items"].as_array().unwrap().clone()
    }

    /// Where the kubelet has them: kubectl would ask for five in a second.
    fn logs(&self) -> String {
        let files =
            format!("cat /var/log/pods/{}_{}-*/main/*.log", self.scene.namespace, self.name);
        let mut cat = self.scene.cluster.node(self.node).command("tools", "sh").unwrap();
        let output = cat.args(["-c", &files]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// A line of the container runtime's log, which has the time and the stream in front.
fn report(line: &str) -> Option<Newcomer> {
    match serde_json::from_str(&line[line.find('{')?..]).ok()? {
        Event::Newcomer(newcomer) => Some(newcomer),
        _ => None,
    }
}
