//! A namespace of the cluster with web servers and clients, and what they get from one another.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use super::helm::Release;
use super::image::Image;
use super::turn::Turn;
use super::{Cluster, NodeName, wrk};
use crate::{binaries, names, wait};

/// Long enough for some pods on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(90);

/// What all pods run.
pub const IMAGE: &str = "sheath.dev/http:test";
/// Where web servers listen.
pub const PORT: u16 = 8080;

/// Where a web server is asked.
///
/// # Panics
/// If this is no address.
pub fn url(address: &str, port: u16) -> String {
    format!("http://{}/", SocketAddr::new(address.parse().unwrap(), port))
}

/// The command of a container that runs nginx with this in its `http` block, which has no quotes.
pub fn nginx(http: &str) -> String {
    format!("[sh, -c, {:?}]", nginx_line(http))
}

/// The same, as the end of a shell's script.
pub fn nginx_line(http: &str) -> String {
    format!(
        "echo 'events {{}} http {{ {http} }}' > /tmp/nginx.conf && exec nginx -c /tmp/nginx.conf -g 'daemon off; user root; pid /tmp/pid; error_log stderr;'"
    )
}

/// A namespace of the cluster whose pods all have the same image, and what they serve is a marker.
pub struct Scene<'t> {
    pub cluster: &'t Cluster,
    pub namespace: String,
    pub marker: String,
}

impl<'t> Scene<'t> {
    /// Makes the namespace, with or without the label that protects it. It ends with the turn.
    ///
    /// # Panics
    /// When the cluster does not do what it is told; so does everything here.
    pub fn new(turn: &Turn<'t>, label: Option<&str>) -> Self {
        let cluster = turn.cluster;
        let scene = Self { cluster, namespace: names::unique(), marker: names::marker() };
        cluster.load_once(IMAGE, image).unwrap();
        turn.own(&scene.namespace);
        let label = label.map(|label| format!("labels: {{sheath.dev/protect: {label}}}"));
        let accounts = ["web", "client"].map(|account| {
            format!(
                "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {account}, namespace: {}}}\n",
                scene.namespace
            )
        });
        let namespace = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {}, {}}}\n{}",
            scene.namespace,
            label.unwrap_or_default(),
            accounts.concat()
        );
        cluster.kubectl().apply(&namespace).unwrap();
        scene
    }

    /// Who is expected wherever pods are.
    pub fn accounts(&self) -> [(&str, &str); 2] {
        [(&self.namespace, "web"), (&self.namespace, "client")]
    }

    /// Makes a pod, and waits until it is there.
    pub fn run(&self, name: &str, account: &str, node: NodeName) {
        self.cluster.kubectl().apply(&self.pod(name, account, node)).unwrap();
        self.wait_running(name);
    }

    /// Waits until a pod is ready.
    pub fn wait_running(&self, name: &str) {
        let pod = format!("pod/{name}");
        self.cluster.kubectl().wait(&self.namespace, "condition=Ready", &pod, LIMIT).unwrap();
    }

    /// Waits until a pod has done what it is there for. Returns what its container has written.
    pub fn wait_succeeded(&self, name: &str) -> String {
        let (kubectl, pod) = (self.cluster.kubectl(), format!("pod/{name}"));
        let succeeded = "jsonpath={.status.phase}=Succeeded";
        kubectl.wait(&self.namespace, succeeded, &pod, LIMIT).unwrap();
        kubectl.run(["logs", &pod, "--namespace", &self.namespace]).unwrap()
    }

    /// A web server.
    pub fn pod(&self, name: &str, account: &str, node: NodeName) -> String {
        self.web(name, account, node, "")
    }

    /// A web server that the kubelet asks over HTTP whether it is ready.
    pub fn probed(&self, name: &str, account: &str, node: NodeName) -> String {
        let probe =
            format!("readinessProbe: {{httpGet: {{path: /, port: {PORT}}}, periodSeconds: 1}}");
        self.web(name, account, node, &probe)
    }

    fn web(&self, name: &str, account: &str, node: NodeName, probe: &str) -> String {
        let serve = nginx(&format!(
            "server {{ listen {PORT}; listen [::]:{PORT}; location / {{ return 200 {}; }} }}",
            self.marker
        ));
        let container = format!("command: {serve}\n    {probe}");
        self.object(name, account, node, "terminationGracePeriodSeconds: 1", &container)
    }

    /// A pod that asks once, at once, and ends.
    pub fn caller(&self, name: &str, node: NodeName, address: &str) -> String {
        let ask = format!("command: [curl, -sS, -m, '10', '{}']", url(address, PORT));
        self.object(name, "client", node, "restartPolicy: Never", &ask)
    }

    /// A pod with one container. `rest` is a further line of its specification, `container` are those of its container.
    pub fn object(
        &self,
        name: &str,
        account: &str,
        node: NodeName,
        rest: &str,
        container: &str,
    ) -> String {
        format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {}}}
spec:
  nodeName: {}
  serviceAccountName: {account}
  {rest}
  containers:
  - name: main
    image: {IMAGE}
    imagePullPolicy: Never
    {container}
",
            self.namespace,
            node.as_str()
        )
    }

    /// The addresses of a pod.
    pub fn addresses(&self, name: &str) -> Vec<String> {
        let space = format!("--namespace={}", self.namespace);
        let pod = self.cluster.kubectl().get(["pod", name, &space]).unwrap();
        let addresses = pod["status"]["podIPs"].as_array().unwrap().iter();
        addresses.map(|address| address["ip"].as_str().unwrap().to_owned()).collect()
    }

    /// What a pod gets from an address.
    ///
    /// # Errors
    /// When it gets nothing, with what curl said.
    pub fn ask(&self, client: &str, address: &str) -> Result<String> {
        let url = url(address, PORT);
        self.cluster.kubectl().exec(&self.namespace, client, &["curl", "-sS", "-m", "5", &url])
    }

    /// Protects the namespace from now on.
    pub fn label(&self, protection: &str) {
        let label = format!("sheath.dev/protect={protection}");
        let arguments = ["label", "--overwrite", "namespace", &self.namespace, &label];
        self.cluster.kubectl().run(arguments).unwrap();
    }

    /// Waits until the agent of a pod's node protects it.
    pub fn wait_protected(&self, release: &Release<'_>, pod: &str, node: NodeName) {
        let name = format!("{}/{pod}", self.namespace);
        wait::wait_until(&format!("{name} is protected"), LIMIT, || {
            release.status(node).is_ok_and(|status| {
                status.workloads.iter().any(|it| it.name == name && it.state == "protected")
            })
        });
    }

    /// Waits until a pod gets the marker from a URL.
    pub fn wait_answered(&self, client: &str, url: &str) {
        let kubectl = self.cluster.kubectl();
        wait::wait_until(&format!("{client} is answered by {url}"), LIMIT, || {
            let curl = ["curl", "-sS", "-m", "5", url];
            kubectl.exec(&self.namespace, client, &curl).is_ok_and(|it| it == self.marker)
        });
    }

    /// Waits until a pod gets an answer: its namespace may not be served yet.
    pub fn wait_served(&self, client: &str, address: &str) {
        self.wait_answered(client, &url(address, PORT));
    }
}

fn image() -> Result<Image> {
    let mut image = Image::of_programs(IMAGE, &["nginx", "curl", "sh", "sleep", "wrk"])?;
    image.add_program(binaries::probe())?;
    image.add_text(wrk::SCRIPT.0, wrk::SCRIPT.1);
    image.add_dir("/var/log/nginx");
    for directory in ["body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        image.add_dir(&format!("/var/lib/nginx/{directory}"));
    }
    Ok(image)
}
