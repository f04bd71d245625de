use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;

const NETWORK: &str = r#"{"cniVersion":"1.1.0","name":"pods","plugins":[{"type":"ptp"}]}"#;

struct Node {
    dir: TempDir,
    installation: Installation,
}

impl Node {
    fn new(networks: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["net.d", "bin"] {
            fs::create_dir(path(name)).unwrap();
        }
        for (name, text) in networks {
            fs::write(path("net.d").join(name), text).unwrap();
        }
        fs::write(path("sheath"), "the program").unwrap();
        let installation = Installation { conf_dir: path("net.d"), bin_dir: path("bin") };
        Self { dir, installation }
    }

    fn install(&self) -> Result<Vec<Change>, InstallError> {
        let socket = Path::new("/run/sheath/default/gate.sock");
        let allow = ["kube-system/dns".parse().unwrap()];
        self.installation.install(&self.dir.path().join("sheath"), socket, &allow)
    }

    fn network(&self, name: &str) -> String {
        fs::read_to_string(self.installation.conf_dir.join(name)).unwrap()
    }

    fn plugin(&self) -> PathBuf {
        self.installation.bin_dir.join("sheath-cni")
    }
}

fn names(changes: Result<Vec<Change>, InstallError>) -> Vec<String> {
    changes
        .unwrap()
        .iter()
        .map(|change| format!("{} {}", change.done, name(&change.path)))
        .collect()
}

#[test]
fn what_is_installed_is_there_once_and_goes_without_a_trace() {
    let node = Node::new(&[("10-pods.conflist", NETWORK), ("20-other.conflist", NETWORK)]);
    let path = node.installation.conf_dir.join("10-pods.conflist");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let installed = ["copied sheath-cni", "added sheath-cni to 10-pods.conflist"];
    assert_eq!(names(node.install()), installed);
    assert_eq!(names(node.install()), [""; 0]);
    let entry = r#",{"type":"sheath-cni","socket":"/run/sheath/default/gate.sock","allow":["kube-system/dns"]}]"#;
    assert_eq!(node.network("10-pods.conflist"), NETWORK.replace(']', entry));
    assert_eq!(node.network("20-other.conflist"), NETWORK, "the runtime takes the first");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read(node.plugin()).unwrap(), b"the program");
    let gone = ["removed sheath-cni from 10-pods.conflist", "removed sheath-cni"];
    assert_eq!(names(node.installation.uninstall()), gone);
    assert_eq!(names(node.installation.uninstall()), [""; 0]);
    assert_eq!(node.network("10-pods.conflist"), NETWORK);
    assert!(!node.plugin().exists());
}

#[test]
fn a_network_that_was_put_aside_does_not_come_back_with_a_plugin_that_is_gone() {
    let node = Node::new(&[("05-cilium.conflist", NETWORK), ("x.txt", "sheath-cni")]);
    node.install().unwrap();
    let conf = &node.installation.conf_dir;
    let (from, to) = (conf.join("05-cilium.conflist"), conf.join("05-cilium.conflist.cilium_bak"));
    fs::rename(from, to).unwrap();
    node.installation.uninstall().unwrap();
    assert_eq!(node.network("05-cilium.conflist.cilium_bak"), NETWORK);
}

#[test]
fn a_link_stays_a_link() {
    let node = Node::new(&[]);
    let real = node.dir.path().join("real");
    fs::write(&real, NETWORK).unwrap();
    let link = node.installation.conf_dir.join("10.conflist");
    symlink(&real, &link).unwrap();
    node.install().unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read_to_string(&real).unwrap().contains("sheath-cni"));
}

#[test]
fn what_the_plugin_cannot_be_added_to_is_named_and_left_alone() {
    for (networks, complaint) in [
        (&[][..], "no network's configuration yet"),
        (&[("10-x.conf", r#"{"type":"ptp"}"#), ("20.conflist", NETWORK)][..], "one plugin"),
        (&[("10.conflist", "{")][..], "it is no list of plugins"),
        (&[("10.conflist", r#"{"plugins":[]}"#)][..], "no plugin that makes a network"),
    ] {
        let node = Node::new(networks);
        let error = node.install().unwrap_err().to_string();
        assert!(error.contains(complaint), "{networks:?}: {error}");
        for (name, text) in networks {
            assert_eq!(node.network(name), *text);
        }
    }
    let node = Node::new(&[("10.conflist", NETWORK)]);
    let path = node.installation.conf_dir.join("10.conflist");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(node.install().unwrap_err().to_string().contains("chmod go-w"));
}
