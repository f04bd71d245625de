//! A shop: what runs in the cluster, as its owners would deploy it. None of it knows of Sheath.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use sheath_tests::cluster::image::Image;
use sheath_tests::cluster::{Cluster, NODES, NodeName, WIRE};
use sheath_tests::names::marker;
use sheath_tests::tap::Tap;
use sheath_tests::wait;

pub const NAMESPACE: &str = "shop";
/// A namespace that is never labelled.
pub const ELSEWHERE: &str = "elsewhere";

pub const HTTP: u16 = 8080;
pub const REDIS: u16 = 6379;
pub const POSTGRES: u16 = 5432;

const IMAGE: &str = "sheath.dev/demo:1";

/// Long enough for everything to start on a slow machine.
pub const LIMIT: Duration = Duration::from_secs(180);

/// A client, by what it runs and whether it got the secret.
pub struct Purchase {
    pub what: &'static str,
    pub answer: Result<String>,
}

impl Purchase {
    pub fn has(&self, secret: &str) -> bool {
        self.answer.as_ref().is_ok_and(|answer| answer.contains(secret))
    }

    /// For the report.
    pub fn seen(&self, secret: &str) -> String {
        match &self.answer {
            Ok(answer) if answer.contains(secret) => "the secret".to_owned(),
            Ok(answer) => format!("`{}`", answer.trim()),
            Err(error) => {
                let text = format!("{error:#}");
                text.lines()
                    .find(|line| !line.contains("kubectl exec"))
                    .unwrap_or(&text)
                    .trim()
                    .to_owned()
            }
        }
    }
}

/// The shop, open.
pub struct Shop<'c> {
    pub cluster: &'c Cluster,
    /// What no packet may contain.
    pub secret: String,
}

impl<'c> Shop<'c> {
    /// Deploys everything, and waits until it is there.
    pub fn open(cluster: &'c Cluster, packages: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let archive = dir.path().join("demo.tar");
        let image = Image::of_packages(IMAGE, packages).expect("an image of Debian packages");
        image.write(&archive).expect("an archive");
        cluster.load(&archive).expect("the image on both nodes");
        let shop = Self { cluster, secret: marker() };
        cluster.kubectl().apply(&objects(&shop.secret)).expect("the shop's objects");
        for deployment in ["web", "cache", "db", "client"] {
            shop.wait_available(NAMESPACE, deployment);
        }
        shop.wait_available(ELSEWHERE, "stranger");
        shop.must("cache", &["redis-cli", "SET", "offer", &shop.secret]);
        let fill = format!("CREATE TABLE offers AS SELECT '{}' AS offer", shop.secret);
        shop.must(
            "db",
            &psql("postgresql://postgres@/postgres?host=/tmp", &fill)
                .each_ref()
                .map(String::as_str),
        );
        shop
    }

    fn wait_available(&self, namespace: &str, deployment: &str) {
        let what = format!("deployment/{deployment}");
        let kubectl = self.cluster.kubectl();
        kubectl.wait(namespace, "condition=Available", &what, LIMIT).expect("a Deployment");
    }

    fn must(&self, deployment: &str, program: &[&str]) {
        let pod = format!("deployment/{deployment}");
        let done =
            wait::try_for(LIMIT, || self.cluster.kubectl().exec(NAMESPACE, &pod, program).ok());
        assert!(done.is_some(), "{deployment} does not do `{}`", program.join(" "));
    }

    /// What all clients get, run in a pod.
    pub fn buy(&self, namespace: &str, pod: &str) -> [Purchase; 3] {
        let run = |what, program: &[&str]| {
            let answer = self.cluster.kubectl().exec(namespace, pod, program);
            Purchase { what, answer }
        };
        let query = psql(
            "postgresql://postgres@db.shop/postgres?connect_timeout=5",
            "SELECT offer FROM offers",
        );
        [
            run("curl web", &["curl", "-sS", "-m", "5", "http://web.shop/"]),
            run(
                "redis-cli -h cache",
                &["timeout", "5", "redis-cli", "-h", "cache.shop", "GET", "offer"],
            ),
            run("psql -h db", &query.each_ref().map(String::as_str)),
        ]
    }

    /// Waits until the clients get everything.
    pub fn wait_open(&self, pod: &str) {
        let all = || self.buy(NAMESPACE, pod).iter().all(|purchase| purchase.has(&self.secret));
        wait::wait_until("clients are served", LIMIT, all);
    }

    /// The addresses of a client of its own.
    pub fn addresses(&self, pod: &str) -> Vec<String> {
        let space = format!("--namespace={NAMESPACE}");
        let pod = self.cluster.kubectl().get(["pod", pod, &space]).expect("a pod");
        let all = pod["status"]["podIPs"].as_array().cloned().unwrap_or_default();
        all.iter().filter_map(|one| one["ip"].as_str().map(str::to_owned)).collect()
    }

    /// A tap on the wire of the node with the clients.
    pub fn tap(&self) -> Tap {
        Tap::new(&self.cluster.node(NODES[0]).netns, WIRE)
    }

    /// A further client on a node.
    pub fn hire(&self, name: &str, node: NodeName) {
        self.apply_client(name, node);
        self.wait_running(name);
    }

    /// The same, which may have to wait.
    pub fn apply_client(&self, name: &str, node: NodeName) {
        self.cluster.kubectl().apply(&client_pod(name, node)).expect("a pod");
    }

    /// Waits until a pod is ready.
    pub fn wait_running(&self, name: &str) {
        let pod = format!("pod/{name}");
        let kubectl = self.cluster.kubectl();
        kubectl.wait(NAMESPACE, "condition=Ready", &pod, LIMIT).expect("a pod that runs");
    }
}

/// A query. Debian's own `psql` chooses the version, and is in Perl.
fn psql(place: &str, query: &str) -> [String; 3] {
    let command = format!("exec $(echo /usr/lib/postgresql/*/bin/psql) '{place}' -Atc \"{query}\"");
    ["sh".to_owned(), "-c".to_owned(), command]
}

fn client_pod(name: &str, node: NodeName) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  nodeName: {}
  serviceAccountName: client
  terminationGracePeriodSeconds: 1
  containers: [{{name: main, image: {IMAGE}, imagePullPolicy: Never, command: [sleep, infinity]}}]
",
        node.as_str()
    )
}

/// A Deployment with a service account and, if it serves, a Service.
struct App<'a> {
    name: &'a str,
    namespace: &'a str,
    replicas: u8,
    node: Option<NodeName>,
    command: &'a str,
    user: u32,
    /// The container's port, the Service's, and how the kubelet asks whether it is ready.
    serves: Option<(u16, u16, &'a str)>,
}

impl App<'_> {
    fn objects(&self) -> String {
        let Self { name, namespace, replicas, node, command, user, serves } = self;
        let node = node.map_or(String::new(), |node| {
            format!("nodeSelector: {{kubernetes.io/hostname: {}}}", node.as_str())
        });
        let probes = serves.map_or(String::new(), |(port, _, probe)| {
            format!(
                "ports: [{{containerPort: {port}}}]
        readinessProbe: {{{probe}, periodSeconds: 2}}
        livenessProbe: {{{probe}, periodSeconds: 5, initialDelaySeconds: 5}}"
            )
        });
        let service = serves.map_or(String::new(), |(port, published, _)| {
            format!(
                "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{app: {name}}}
  ports: [{{port: {published}, targetPort: {port}}}]
"
            )
        });
        format!(
            "---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}, namespace: {namespace}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      serviceAccountName: {name}
      terminationGracePeriodSeconds: 1
      securityContext: {{runAsUser: {user}, runAsGroup: {user}, fsGroup: {user}}}
      {node}
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: ScheduleAnyway
        labelSelector: {{matchLabels: {{app: {name}}}}}
      containers:
      - name: main
        image: {IMAGE}
        imagePullPolicy: Never
        command: [sh, -c, {command:?}]
        {probes}
        volumeMounts: [{{name: data, mountPath: /data}}]
      volumes: [{{name: data, emptyDir: {{}}}}]
{service}"
        )
    }
}

fn objects(secret: &str) -> String {
    let [a, b] = NODES;
    let nginx = format!(
        "echo 'daemon off; pid /data/pid; error_log stderr; events {{}} http {{ access_log /dev/stdout; \
         client_body_temp_path /data/a; proxy_temp_path /data/b; fastcgi_temp_path /data/c; uwsgi_temp_path /data/d; scgi_temp_path /data/e; \
         server {{ listen {HTTP}; listen [::]:{HTTP}; location / {{ return 200 {secret}; }} }} }}' > /data/nginx.conf && \
         exec nginx -c /data/nginx.conf"
    );
    let postgres = "bin=$(echo /usr/lib/postgresql/*/bin); $bin/initdb -D /data/db -A trust -U postgres > /data/log && \
                    echo 'host all all all trust' >> /data/db/pg_hba.conf && \
                    exec $bin/postgres -D /data/db -c listen_addresses='*' -c unix_socket_directories=/tmp";
    let apps = [
        App {
            name: "web",
            namespace: NAMESPACE,
            replicas: 2,
            node: None,
            command: &nginx,
            user: 33,
            serves: Some((HTTP, 80, "httpGet: {path: /, port: 8080}")),
        },
        App {
            name: "cache",
            namespace: NAMESPACE,
            replicas: 1,
            node: Some(b),
            command: "exec redis-server --protected-mode no --dir /data",
            user: 33,
            serves: Some((REDIS, REDIS, "tcpSocket: {port: 6379}")),
        },
        App {
            name: "db",
            namespace: NAMESPACE,
            replicas: 1,
            node: Some(b),
            command: postgres,
            user: 33,
            serves: Some((POSTGRES, POSTGRES, "tcpSocket: {port: 5432}")),
        },
        App {
            name: "client",
            namespace: NAMESPACE,
            replicas: 1,
            node: Some(a),
            command: "exec sleep infinity",
            user: 33,
            serves: None,
        },
        App {
            name: "stranger",
            namespace: ELSEWHERE,
            replicas: 1,
            node: Some(a),
            command: "exec sleep infinity",
            user: 33,
            serves: None,
        },
    ];
    let namespaces = [NAMESPACE, ELSEWHERE]
        .map(|name| format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"));
    namespaces.concat() + &apps.map(|app| app.objects()).concat()
}
