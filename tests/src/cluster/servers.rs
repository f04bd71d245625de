//! Web servers as people deploy them: a Deployment behind a Service, which can be replaced without a failed request.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::scene::{IMAGE, PORT, Scene, nginx};
use crate::wait;

/// What both are called.
const NAME: &str = "web";
/// Where the Service listens.
pub const SERVICE_PORT: u16 = 80;

/// Long enough for all of them, started or replaced on a busy machine.
const LIMIT: Duration = Duration::from_secs(240);

/// How long connections are used by servers that can be [replaced](Servers::replace) without a failed request: the answer after that
/// says that it is the last. When a server ends, which it does some seconds after it has left the Service, nobody is connected to it any
/// more. So every failed request is somebody else's fault.
pub const BRIEF: Duration = Duration::from_secs(1);

/// Between two looks at what takes seconds: each look takes a part of the processor.
const PAUSE: Duration = Duration::from_secs(1);

/// The servers of a scene. They answer with its marker.
pub struct Servers<'s> {
    scene: &'s Scene<'s>,
    replicas: usize,
}

impl<'s> Servers<'s> {
    /// Deploys them on both nodes, and does not wait. They use a connection for this long at most.
    ///
    /// # Panics
    /// When the cluster does not do what it is told; so does everything here.
    pub fn deploy(scene: &'s Scene<'_>, replicas: usize, connections: Duration) -> Self {
        scene.cluster.kubectl().apply(&objects(scene, replicas, connections)).unwrap();
        Self { scene, replicas }
    }

    /// Waits until all of them are ready, and none besides them is there.
    pub fn wait_ready(&self) {
        let kubectl = self.scene.cluster.kubectl();
        let what = format!("deployment/{NAME}");
        let all = format!("jsonpath={{.status.readyReplicas}}={}", self.replicas);
        kubectl.wait(&self.scene.namespace, &all, &what, LIMIT).unwrap();
    }

    /// Begins to replace all of them.
    pub fn replace(&self) -> Replacement<'_> {
        let space = format!("--namespace={}", self.scene.namespace);
        let before = self.pods();
        let restart = ["rollout", "restart", &format!("deployment/{NAME}"), &space];
        self.scene.cluster.kubectl().run(restart).unwrap();
        Replacement { servers: self, before }
    }

    /// The Service's address.
    pub fn address(&self) -> String {
        let space = format!("--namespace={}", self.scene.namespace);
        let service = self.scene.cluster.kubectl().get(["service", NAME, &space]).unwrap();
        service["spec"]["clusterIP"].as_str().unwrap().to_owned()
    }

    /// The names of the pods that are there, also of those that are about to end.
    fn pods(&self) -> BTreeSet<String> {
        let space = format!("--namespace={}", self.scene.namespace);
        let label = format!("--selector=app={NAME}");
        let pods = self.scene.cluster.kubectl().get(["pods", &space, &label]).unwrap();
        let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
        pods["items"].as_array().unwrap().iter().map(name).collect()
    }
}

/// All servers, on the way to be replaced.
pub struct Replacement<'s> {
    servers: &'s Servers<'s>,
    /// The names of those before.
    before: BTreeSet<String>,
}

impl Replacement<'_> {
    /// Waits until all others are ready, and those before are gone.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn wait(self) {
        let Servers { scene, replicas } = self.servers;
        let space = format!("--namespace={}", scene.namespace);
        let limit = format!("--timeout={}s", LIMIT.as_secs());
        let status = ["rollout", "status", &format!("deployment/{NAME}"), &space, &limit];
        scene.cluster.kubectl().run(status).unwrap();
        wait::wait_until("the servers before to be gone", LIMIT, || {
            thread::sleep(PAUSE);
            let now = self.servers.pods();
            now.len() == *replicas && now.is_disjoint(&self.before)
        });
    }
}

fn objects(scene: &Scene<'_>, replicas: usize, connections: Duration) -> String {
    let serve = nginx(&format!(
        "access_log off; keepalive_time {}s; server {{ listen {PORT}; location / {{ return 200 {}; }} }}",
        connections.as_secs(),
        scene.marker
    ));
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {NAME}, namespace: {namespace}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {NAME}}}}}
  template:
    metadata: {{labels: {{app: {NAME}}}}}
    spec:
      serviceAccountName: web
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 8
      topologySpreadConstraints:
      - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {{matchLabels: {{app: {NAME}}}}}}}
      containers:
      - name: main
        image: {IMAGE}
        imagePullPolicy: Never
        command: {serve}
        readinessProbe: {{tcpSocket: {{port: {PORT}}}, periodSeconds: 2}}
        lifecycle: {{preStop: {{sleep: {{seconds: 6}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {NAME}, namespace: {namespace}}}
spec:
  selector: {{app: {NAME}}}
  ports: [{{port: {SERVICE_PORT}, targetPort: {PORT}}}]
",
        namespace = scene.namespace
    )
}
