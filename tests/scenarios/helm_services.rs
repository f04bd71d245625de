//! Services of a real cluster, under the chart: whom a protected client reaches.

use std::collections::BTreeSet;

use serde_json::json;
use sheath_tests::cluster::agents::TRUST_DOMAIN;
use sheath_tests::cluster::helm::Release;
use sheath_tests::cluster::scene::{IMAGE, LIMIT, PORT, Scene, nginx, url};
use sheath_tests::cluster::{NODES, WIRE, shared};
use sheath_tests::tap::Tap;
use sheath_tests::wait;

/// Deployments of two service accounts behind one Service, whose pods answer with their names and the marker.
fn servers(scene: &Scene<'_>) -> String {
    let serve = nginx(&format!(
        "server {{ listen {PORT}; listen [::]:{PORT}; location / {{ return 200 {}-$hostname; }} }}",
        scene.marker
    ));
    let deployment = |account: &str, replicas: u8| {
        format!(
            "---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {account}, namespace: {namespace}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: shop, of: {account}}}}}
  template:
    metadata: {{labels: {{app: shop, of: {account}}}}}
    spec:
      serviceAccountName: {account}
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {{matchLabels: {{app: shop}}}}}}
      containers:
      - name: main
        image: {IMAGE}
        imagePullPolicy: Never
        command: {serve}
        readinessProbe: {{httpGet: {{path: /, port: {PORT}}}, periodSeconds: 1}}
",
            namespace = scene.namespace
        )
    };
    let services = format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: shop, namespace: {namespace}}}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {{app: shop}}
  ports: [{{port: 80, targetPort: {PORT}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: headless, namespace: {namespace}}}
spec:
  clusterIP: None
  selector: {{app: shop}}
  ports: [{{port: {PORT}}}]
",
        namespace = scene.namespace
    );
    deployment("web", 3) + &deployment("client", 1) + &services
}

/// The addresses of the Service.
fn addresses(scene: &Scene<'_>) -> Vec<String> {
    let space = format!("--namespace={}", scene.namespace);
    let service = scene.cluster.kubectl().get(["service", "shop", &space]).unwrap();
    let all = service["spec"]["clusterIPs"].as_array().unwrap().iter();
    all.map(|one| one.as_str().unwrap().to_owned()).collect()
}

/// Many requests, one connection each, in the pod itself. Returns what was answered, a line for each.
fn ask_often(scene: &Scene<'_>, address: &str, times: usize) -> Vec<String> {
    let ask = format!(
        "i=0; while [ $i -lt {times} ]; do i=$((i+1)); curl -sS -m 10 {} 2>&1; echo; done",
        url(address, 80)
    );
    let kubectl = scene.cluster.kubectl();
    let said = kubectl.exec(&scene.namespace, "caller", &["sh", "-c", &ask]).unwrap();
    said.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn services_are_balanced_by_the_agent_with_exact_identities() {
    let [a, _] = NODES;
    let turn = shared::turn();
    let scene = Scene::new(&turn, Some("require"));
    let release = Release::install(&turn, &json!({})).unwrap();
    let kubectl = scene.cluster.kubectl();
    kubectl.apply(&servers(&scene)).unwrap();
    scene.run("caller", "client", a);
    for deployment in ["web", "client"] {
        let what = format!("deployment/{deployment}");
        kubectl.wait(&scene.namespace, "condition=Available", &what, LIMIT).unwrap();
    }
    let tap = Tap::new(&scene.cluster.node(a).netns, WIRE);
    for address in addresses(&scene) {
        wait::wait_until(&format!("the Service at {address} answers"), LIMIT, || {
            ask_often(&scene, &address, 1).iter().all(|line| line.starts_with(&scene.marker))
        });
        let answers = ask_often(&scene, &address, 60);
        let wrong: Vec<_> =
            answers.iter().filter(|line| !line.starts_with(&scene.marker)).collect();
        assert_eq!(wrong, [""; 0], "{address}");
        let pods: BTreeSet<_> = answers.iter().collect();
        assert_eq!(pods.len(), 4, "{address}: {pods:?}");
    }
    // Each endpoint was expected to be exactly who it is.
    let flows = release.access(a).unwrap().into_iter();
    let of_service: Vec<_> = flows.filter(|flow| flow.is("outbound", "ok")).collect();
    let id = |account: &str| format!("spiffe://{TRUST_DOMAIN}/ns/{}/sa/{account}", scene.namespace);
    for account in ["web", "client"] {
        assert!(of_service.iter().any(|flow| flow.peer_id == id(account)), "{account}");
    }
    // Its name resolves to the pods themselves, which are called directly.
    let space = format!("--namespace={}", scene.namespace);
    let slices = kubectl
        .get(["endpointslices", &space, "--selector=kubernetes.io/service-name=headless"])
        .unwrap();
    let pods = slices["items"].as_array().unwrap().iter();
    let pods = pods.flat_map(|slice| slice["endpoints"].as_array().unwrap().clone());
    let pods: Vec<_> = pods.map(|pod| pod["addresses"][0].as_str().unwrap().to_owned()).collect();
    assert_eq!(pods.len(), 4);
    for pod in &pods {
        let answer = scene.ask("caller", pod).unwrap();
        assert!(answer.starts_with(&scene.marker), "{pod}: {answer}");
    }
    assert_eq!(tap.sightings(&scene.marker), 0, "plaintext on the wire");
}
