//! Static pods: files on a node, from which its kubelet makes pods without asking anybody.

use std::fs;
use std::path::PathBuf;

use super::scene::{IMAGE, PORT, Scene, nginx};
use super::{NodeName, node};

/// A static pod. It ends with its file when this is dropped.
pub struct StaticPod {
    file: PathBuf,
    /// As the API server has its image: with the node's name.
    pub name: String,
}

impl StaticPod {
    /// Writes the file. The pod is in the scene's namespace, serves the scene's marker in a network of its own, and has this uid if its
    /// manifest is to say one.
    ///
    /// # Panics
    /// When that fails.
    pub fn write(scene: &Scene<'_>, name: &str, node: NodeName, uid: Option<&str>) -> Self {
        let serve = nginx(&format!(
            "server {{ listen {PORT}; location / {{ return 200 {}; }} }}",
            scene.marker
        ));
        let uid = uid.map_or(String::new(), |uid| format!(", uid: {uid}"));
        let manifest = format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {}{uid}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: {IMAGE}
    imagePullPolicy: Never
    command: {serve}
",
            scene.namespace
        );
        let dir = node::static_pods(node, &scene.cluster.state).unwrap();
        let file = dir.join(format!("{name}.yaml"));
        // In one step: the kubelet reads what it sees.
        let draft = dir.join(format!(".{name}"));
        fs::write(&draft, manifest).unwrap();
        fs::rename(&draft, &file).unwrap();
        Self { file, name: format!("{name}-{}", node.as_str()) }
    }
}

impl Drop for StaticPod {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}
