//! The cluster that scenarios about Kubernetes are played on: real pods, probes and Services; and when it is gone, it has
//! left nothing.

use std::collections::BTreeSet;
use std::fs;
use std::process::{self, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use sheath_tests::cluster::image::Image;
use sheath_tests::cluster::scene::url;
use sheath_tests::cluster::{Cluster, NODES, WIRE, shared, status};
use sheath_tests::tap::Tap;
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::{binaries, names, serial};

/// Long enough for some pods on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

const WEB: &str = "sheath.dev/web:test";

/// Where a file makes the server call itself ready.
const READY: &str = "/tmp/ready";

/// nginx, which tells which pod it is in; and what is asked with.
fn web() -> Image {
    let mut image = Image::of_programs(WEB, &["nginx", "curl", "touch"]).unwrap();
    image.add_text(
        "/etc/nginx/nginx.conf",
        &format!(
            "user root;
worker_processes 1;
pid /tmp/nginx.pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log /dev/stdout;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    server {{
        listen 80;
        listen [::]:80;
        location = /ready {{
            if (!-f {READY}) {{ return 503; }}
            return 204;
        }}
        location / {{ return 200 $hostname\\n; }}
    }}
}}
"
        ),
    );
    image.add_dir("/var/log/nginx");
    image.entrypoint(&["nginx", "-c", "/etc/nginx/nginx.conf", "-g", "daemon off;"]);
    image
}

fn load_web(cluster: &Cluster) {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("web.tar");
    web().write(&archive).unwrap();
    cluster.load(&archive).unwrap();
}

/// A namespace with a Deployment of two servers on the second node, behind a Service, and a client on the first.
fn objects(namespace: &str) -> String {
    let [client, server] = NODES.map(|node| node.as_str());
    format!(
        "apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: {namespace}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      nodeSelector: {{kubernetes.io/hostname: {server}}}
      terminationGracePeriodSeconds: 1
      containers:
      - name: nginx
        image: {WEB}
        imagePullPolicy: Never
        ports: [{{name: http, containerPort: 80}}]
        readinessProbe:
          httpGet: {{path: /ready, port: http}}
          periodSeconds: 1
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {namespace}}}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {{app: web}}
  ports: [{{port: 8080, targetPort: http}}]
---
{}",
        pod(namespace, client)
    )
}

/// A pod that others ask from.
fn pod(namespace: &str, node: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: client, namespace: {namespace}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: nginx, image: {WEB}, imagePullPolicy: Never}}
"
    )
}

/// The names of a namespace's pods that are Ready, or not.
fn pods(cluster: &Cluster, namespace: &str, ready: bool) -> BTreeSet<String> {
    let space = format!("--namespace={namespace}");
    let pods = cluster.kubectl().get(["pods", &space, "--selector=app=web"]).unwrap();
    let is_ready = |pod: &&Value| {
        let conditions = pod["status"]["conditions"].as_array();
        let of = |kind| conditions.into_iter().flatten().find(move |it| it["type"] == kind);
        pod["status"]["phase"] == "Running"
            && of("Ready").is_some_and(|condition| (condition["status"] == "True") == ready)
    };
    let items = pods["items"].as_array().unwrap().iter().filter(is_ready);
    items.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_deployment_serves_the_other_node_by_its_service() {
    let turn = shared::turn();
    let cluster = turn.cluster;
    let kubectl = cluster.kubectl();
    let namespace = names::unique();
    turn.own(&namespace);
    let space = format!("--namespace={namespace}");
    load_web(cluster);
    kubectl.apply(&objects(&namespace)).unwrap();
    kubectl.wait(&namespace, "condition=Ready", "pod/client", LIMIT).unwrap();
    let two = |ready| {
        wait::wait_for("two pods", LIMIT, || {
            Some(pods(cluster, &namespace, ready)).filter(|names| names.len() == 2)
        })
    };
    // The probe is answered, but not as a server that is ready would.
    let servers = two(false);
    let slices = ["endpointslices", &space, "--selector=kubernetes.io/service-name=web"];
    let slices = kubectl.get(slices).unwrap();
    let endpoints = slices["items"].as_array().unwrap().iter();
    let mut endpoints = endpoints.flat_map(|slice| slice["endpoints"].as_array()).flatten();
    assert!(endpoints.all(|endpoint| endpoint["conditions"]["ready"] == false), "{slices}");
    for server in &servers {
        kubectl.exec(&namespace, server, &["touch", READY]).unwrap();
    }
    assert_eq!(two(true), servers);

    let service = kubectl.get(["service", "web", &space]).unwrap();
    let addresses = service["spec"]["clusterIPs"].as_array().unwrap();
    assert_eq!(addresses.len(), 2, "{service}");
    let tap = Tap::new(&cluster.node(NODES[0]).netns, WIRE);
    for address in addresses.iter().map(|address| address.as_str().unwrap()) {
        let url = url(address, 8080);
        let mut seen = BTreeSet::new();
        // kube-proxy may learn of the second endpoint a moment later.
        wait::wait_until("both servers' answers", LIMIT, || {
            let curl = ["curl", "-sS", "--max-time", "5", &url];
            seen.extend(kubectl.exec(&namespace, "client", &curl).map(|it| it.trim().to_owned()));
            seen == servers
        });
    }
    // The answers have come from the other node, and nobody has hidden them.
    for server in &servers {
        assert!(tap.sightings(server) > 0, "{server}");
        let log = kubectl.run(["logs", &space, server]).unwrap();
        assert!(log.contains("GET /ready") && log.contains("curl/"), "{log}");
    }
    // Whoever has the turn next finds nothing of it.
    drop(turn);
    let turn = shared::turn();
    let left = turn.cluster.kubectl().get(["pods", &space]).unwrap();
    assert_eq!(left["items"], json!([]));
}

/// What a cluster might have left on the host.
#[derive(Debug, PartialEq)]
struct Host {
    interfaces: BTreeSet<String>,
    packet_filter: String,
    mounts: BTreeSet<String>,
}

impl Host {
    /// Of the mounts those at or below places that a machine of a cluster has for itself.
    fn now() -> Self {
        let places = ["/run", "/opt", "/var", "/etc", "/proc/sys", "/sys/fs/bpf"];
        let is_ours = |line: &&str| {
            let point = line.split(' ').nth(4).unwrap();
            places.iter().any(|place| point.starts_with(place)) || line.contains("sheath-cluster")
        };
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let links = fs::read_dir("/sys/class/net").unwrap();
        let rules = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
        Self {
            interfaces: links.map(|it| it.unwrap().file_name().into_string().unwrap()).collect(),
            packet_filter: String::from_utf8(rules.stdout).unwrap(),
            mounts: mounts.lines().filter(is_ours).map(str::to_owned).collect(),
        }
    }
}

/// The namespaces that a process is in, as its links in `/proc` name them.
fn namespaces(pid: u32) -> Vec<String> {
    let read = |kind| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
    let links = ["net", "mnt", "uts"].map(read).into_iter().flatten();
    links.map(|link| link.display().to_string()).collect()
}

/// When a process was started, in clock ticks since the boot (proc_pid_stat(5), field 22).
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

fn cluster_program(arguments: &[&str]) -> process::Output {
    Command::new(binaries::cluster()).args(arguments).output().unwrap()
}

#[test]
fn a_cluster_leaves_nothing_even_after_crashes() {
    let _heavy = serial::heavy();
    let before = Host::now();
    let own: BTreeSet<String> = namespaces(process::id()).into_iter().collect();
    let name = format!("gone-{}", process::id());
    let cluster = Cluster::up(&name, Some(process::id())).unwrap();
    // Takes it down if this test fails, or is killed; and if not, too.
    let mut heir = Command::new(binaries::cluster());
    let heir = heir.args(["inherit", &name]).stdin(Stdio::piped()).spawn().unwrap();
    load_web(&cluster);
    cluster.kubectl().apply(&pod("default", NODES[0].as_str())).unwrap();
    cluster.kubectl().wait("default", "condition=Ready", "pod/client", LIMIT).unwrap();

    // What a developer sees of it.
    let listed = cluster_program(&["status", "json"]);
    let listed: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
    let this = listed.iter().find(|cluster| cluster["name"] == name.as_str()).unwrap();
    assert_eq!(this["healthy"], true, "{this}");
    let again = cluster_program(&["up", &name]);
    assert!(again.status.success() && String::from_utf8_lossy(&again.stderr).contains("already"));
    let found = cluster_program(&["kubectl", &name, "get", "pod", "client", "--output=name"]);
    assert_eq!(String::from_utf8_lossy(&found.stdout), "pod/client\n");
    let exit = ["kubectl", &name, "exec", "client", "--", "curl", "-sS", "http://127.0.0.1:1/"];
    // curl's own: could not connect.
    assert_eq!(cluster_program(&exit).status.code(), Some(7));

    let processes = status::of(&name).processes;
    let theirs: BTreeSet<String> =
        processes.iter().flat_map(|pid| namespaces(*pid)).filter(|it| !own.contains(it)).collect();
    // Three machines with three namespaces each, and a pod's.
    assert!(theirs.len() > 9, "{theirs:?}");
    let seen = processes.iter().filter_map(|pid| started(*pid)).max().unwrap();
    cluster.kill(NODES[0], "containerd").unwrap();
    cluster.kill(NODES[1], "kubelet").unwrap();
    cluster.control_plane().kill("kube-apiserver").unwrap();
    assert!(!status::of(&name).healthy);
    let dir = cluster.dir().to_owned();
    drop(cluster);
    let output = heir.wait_with_output().unwrap();
    assert!(output.status.success());

    assert!(!dir.exists());
    assert_eq!(status::of(&name).processes, [0; 0]);
    for root in fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path()) {
        for root in [root.as_path(), root.parent().unwrap()] {
            let left = root.join(format!("sheath-cluster-{name}"));
            assert!(!left.exists(), "{}", left.display());
        }
    }
    // The kernel takes a mount namespace apart when its last process has been gone for a moment.
    let left = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        // The numbers of namespaces that have ended are given to new ones, such as those of another cluster's pods.
        let pids = pids.filter(|pid| started(*pid).is_some_and(|at| at <= seen));
        let mut left = pids.flat_map(namespaces).filter(|it| theirs.contains(it));
        left.next()
    };
    wait::wait_until("the end of every namespace", GENEROUS, || left().is_none());
    assert_eq!(Host::now(), before);
}
