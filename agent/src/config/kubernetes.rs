//! Kubernetes in the configuration.

use std::collections::BTreeSet;
use std::env;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use sheath_common::probe::MAX_PROBER_PATH;

use super::cgroup_paths;

use super::identity::{SourceError, Sources};
use super::instance::Instance;
use super::raw;
use crate::capture::{KubeletSetting, PodSettings};
use crate::desired::{BypassOrigin, Destination};
use crate::discovery::Kubernetes;
use crate::gate::cni::Installation;
use crate::gate::{GateKind, GateSettings};
use crate::kubernetes::words::is_object_name;
use crate::kubernetes::{Access, BypassedService, Rules};
use crate::spiffe::TrustDomain;

/// What is wrong with the settings of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KubernetesError {
    #[error(
        "kubernetes.node `{0}` is no name of a node: it has lower case letters, digits, `-` and `.`"
    )]
    Node(String),
    #[error("kubernetes.kubeconfig must be an absolute path")]
    RelativeKubeconfig,
    #[error(
        "kubernetes needs capture.pods.root, the cgroup that has this node's pods below it: /kubepods.slice, or /kubepods without systemd"
    )]
    NoPods,
    #[error("kubernetes.nriSocket must be an absolute path")]
    RelativeNriSocket,
    #[error("kubernetes.cni.confDir and kubernetes.cni.binDir must be absolute paths")]
    RelativeCni,
    #[error(
        "kubernetes.cni installs the gate by CNI, but kubernetes.gate leaves it out; write `gate: auto` or `gate: cni`"
    )]
    OtherGate,
    #[error(
        "kubernetes.kubelet.cgroup `{0}` must be the path of the kubelet's own cgroup below the cgroup v2 root, as `/system.slice/kubelet.service`, of at most {MAX_PROBER_PATH} bytes"
    )]
    Kubelet(String),
    #[error(
        "kubernetes.kubelet.cgroup `{path}` lies below capture.pods.root `{root}`: what is in there is a pod's"
    )]
    KubeletInPod { path: String, root: String },
    #[error(
        "kubernetes.bypassServices needs `controller`: its directory tells which addresses a Service has"
    )]
    NoDirectory,
    #[error("kubernetes: {0}")]
    Source(SourceError),
}

/// The kubelet, in a cgroup that is not the root: any process may be in that.
///
/// # Errors
/// If the path is none of a cgroup, or lies below the root of pods.
pub fn kubelet(raw: &raw::Kubelet, pods: &PodSettings) -> Result<KubeletSetting, KubernetesError> {
    match raw {
        raw::Kubelet::Auto => Ok(KubeletSetting::Auto),
        raw::Kubelet::None => Ok(KubeletSetting::None),
        raw::Kubelet::Cgroup(text) => {
            let path = cgroup_paths::plain(text).filter(|path| path.len() <= MAX_PROBER_PATH);
            let path = path.ok_or_else(|| KubernetesError::Kubelet(text.clone()))?;
            let root = pods.root.as_str();
            if Path::new(&path).starts_with(root) {
                return Err(KubernetesError::KubeletInPod { path, root: root.to_owned() });
            }
            Ok(KubeletSetting::Cgroup(path.into()))
        }
    }
}

/// Services that are bypassed by their names, each once.
///
/// # Errors
/// If nobody tells where they are.
pub fn bypassed(
    raw: &raw::Kubernetes,
    has_controller: bool,
) -> Result<Vec<BypassedService>, KubernetesError> {
    let all: BTreeSet<_> = raw.bypass_services.iter().cloned().collect();
    if !all.is_empty() && !has_controller {
        return Err(KubernetesError::NoDirectory);
    }
    Ok(all.into_iter().collect())
}

/// Settings of the gate. Whether pods in the node's network namespace wait is one setting for the gate and the kernel.
///
/// # Errors
/// If the socket's path is relative.
pub fn gate(raw: &raw::Kubernetes, pods: &PodSettings) -> Result<GateSettings, KubernetesError> {
    let default = GateSettings::default();
    let nri_socket = raw.nri_socket.clone().unwrap_or(default.nri_socket);
    if !nri_socket.is_absolute() {
        return Err(KubernetesError::RelativeNriSocket);
    }
    if let Some(Installation { conf_dir, bin_dir }) = &raw.cni {
        if !conf_dir.is_absolute() || !bin_dir.is_absolute() {
            return Err(KubernetesError::RelativeCni);
        }
        if !matches!(raw.gate, GateKind::Auto | GateKind::Cni) {
            return Err(KubernetesError::OtherGate);
        }
    }
    Ok(GateSettings {
        gate: raw.gate,
        nri_socket,
        installation: raw.cni.clone(),
        host_socket_handlers: raw.runtime_handlers.clone().unwrap_or(default.host_socket_handlers),
        hold_host_network: pods.hold_host_network,
    })
}

/// Settings of the discovery of pods. `node` is the name of the node for people.
///
/// # Errors
/// What is wrong with them.
pub fn discovery(
    raw: raw::Kubernetes,
    node: &str,
    instance: &Instance,
    trust_domain: &TrustDomain,
    sources: &Sources,
) -> Result<Kubernetes, KubernetesError> {
    let node = raw.node.as_deref().unwrap_or(node);
    // It becomes part of a selector, which has characters of its own.
    if !is_object_name(node) {
        return Err(KubernetesError::Node(node.to_owned()));
    }
    let access = match raw.kubeconfig {
        None => Access::Pod,
        Some(path) if path.is_absolute() => Access::Kubeconfig(path),
        Some(_) => return Err(KubernetesError::RelativeKubeconfig),
    };
    let mut bypass = BypassOrigin::Kubernetes.of(raw.bypass);
    if access == Access::Pod {
        bypass.extend(BypassOrigin::ApiServer.of(api_server(|name| env::var(name).ok())));
    }
    Ok(Kubernetes {
        access,
        node: node.to_owned(),
        trust_domain: trust_domain.clone(),
        identities: sources.of_pods().map_err(KubernetesError::Source)?,
        rules: Rules {
            system_namespaces: raw.system_namespaces.into_iter().collect(),
            runtime_classes: raw.runtime_classes.into_iter().collect(),
        },
        bypass,
        memory: instance.pods(),
    })
}

/// The address of the API server's Service, as every pod is told. What comes from there is TLS already.
fn api_server(variable: impl Fn(&str) -> Option<String>) -> Option<Destination> {
    let address: IpAddr = variable("KUBERNETES_SERVICE_HOST")?.parse().ok()?;
    let port = variable("KUBERNETES_SERVICE_PORT")?.parse().ok()?;
    Some(Destination { prefix: IpNet::from(address), port: Some(port) })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use sheath_common::probe::MAX_PROBER_PATH;

    use super::api_server;
    use crate::capture::KubeletSetting;
    use crate::config::Config;
    use crate::desired::BypassOrigin;
    use crate::discovery::{Discovery, Kubernetes, PodIdentities};
    use crate::gate::cni::Installation;
    use crate::kubernetes::Access;

    const IDENTITY: &str = "identity: { ca: { dir: /var/lib/sheath/ca } }\n";

    fn parse(more: &str) -> Result<Config, String> {
        let text = format!(
            "trustDomain: example.org\nnode: node-a\ncapture: {{ pods: {{ root: /kubepods.slice }} }}\n{more}"
        );
        Config::parse(&text, Path::new("sheath.yaml")).map_err(|error| error.to_string())
    }

    fn discovery(more: &str) -> Kubernetes {
        let config = parse(&format!("{IDENTITY}{more}")).unwrap();
        let mut all = config.discoveries.iter();
        let found: Arc<dyn Discovery> =
            all.find(|found| found.kind() == "kubernetes").cloned().unwrap();
        let found: Arc<dyn std::any::Any + Send + Sync> = found;
        Kubernetes::clone(&found.downcast().unwrap())
    }

    #[test]
    fn the_section_alone_is_a_configuration() {
        let found = discovery("kubernetes: {}\n");
        assert_eq!((&found.access, &*found.node), (&Access::Pod, "node-a"));
        assert!(matches!(found.identities, PodIdentities::Ca(_)));
        let system: Vec<_> = found.rules.system_namespaces.iter().collect();
        assert_eq!(system, ["kube-system", "sheath-system"]);
    }

    #[test]
    fn every_key_is_read() {
        let found = discovery(
            "kubernetes:\n  kubeconfig: /etc/kubeconfig\n  node: other\n  systemNamespaces: [infra]\n  \
             gate: nri\n  nriSocket: /run/nri.sock\n  runtimeHandlers: [runsc]\n  \
             runtimeClasses: [crun]\n  bypass: [\"10.96.0.10/32:53\"]\n",
        );
        assert_eq!(found.access, Access::Kubeconfig("/etc/kubeconfig".into()));
        assert_eq!(found.node, "other");
        assert!(found.rules.system_namespaces.iter().eq(["infra"]));
        assert!(found.rules.runtime_classes.iter().eq(["crun"]));
        let destination = "10.96.0.10/32:53".to_owned().try_into().unwrap();
        assert_eq!(found.bypass, BypassOrigin::Kubernetes.of([destination]));
    }

    #[test]
    fn the_api_server_is_where_every_pod_is_told_that_it_is() {
        let at = |host: &str, port: &str| {
            let found = api_server(|name| match name {
                "KUBERNETES_SERVICE_HOST" => Some(host.to_owned()),
                "KUBERNETES_SERVICE_PORT" => Some(port.to_owned()),
                _ => None,
            });
            found.map(|found| found.to_string())
        };
        assert_eq!(at("10.96.0.1", "443").as_deref(), Some("10.96.0.1/32:443"));
        assert_eq!(at("fd00::1", "6443").as_deref(), Some("[fd00::1/128]:6443"));
        assert_eq!((at("api.example", "443"), at("10.96.0.1", "https")), (None, None));
        assert_eq!(api_server(|_| None), None);
    }

    #[test]
    fn the_kubelet_is_looked_for_named_or_nobody() {
        for (section, expected) in [
            ("{}", KubeletSetting::Auto),
            ("{ kubelet: auto }", KubeletSetting::Auto),
            ("{ kubelet: none }", KubeletSetting::None),
            (
                "{ kubelet: { cgroup: system.slice/kubelet.service } }",
                KubeletSetting::Cgroup("/system.slice/kubelet.service".into()),
            ),
        ] {
            let config = parse(&format!("{IDENTITY}kubernetes: {section}\n")).unwrap();
            assert_eq!(config.pods.unwrap().kubelet, expected, "{section}");
        }
        let [auto, none] = ["{}", "{ kubelet: none }"]
            .map(|section| parse(&format!("{IDENTITY}kubernetes: {section}\n")).unwrap());
        assert_eq!(auto.check_reload(&none).unwrap_err().0, "kubernetes.kubelet");
        let long = format!("/{}", "x".repeat(MAX_PROBER_PATH));
        for (cgroup, reason) in [
            ("/", "must be the path of the kubelet's own cgroup"),
            ("/a/../b", "must be the path of the kubelet's own cgroup"),
            ("/kubelet*", "must be the path of the kubelet's own cgroup"),
            (&*long, "of at most"),
            ("/kubepods.slice/kubelet", "lies below capture.pods.root `/kubepods.slice`"),
        ] {
            let section =
                format!("{IDENTITY}kubernetes: {{ kubelet: {{ cgroup: \"{cgroup}\" }} }}\n");
            let error = parse(&section).unwrap_err();
            assert!(error.contains(reason), "{cgroup}: {error}");
        }
        assert!(parse(&format!("{IDENTITY}kubernetes: {{ kubelet: maybe }}\n")).is_err());
    }

    #[test]
    fn services_are_bypassed_by_name_where_a_controller_tells_where_they_are() {
        const CONTROLLER: &str = "controller: { address: \"127.0.0.1:1\", roots: /roots.pem, token: /token, spiffeId: \"spiffe://example.org/ns/sheath-system/sa/sheath-controller\" }\n";
        let with = |list: &str, controller: &str| {
            parse(&format!("{IDENTITY}{controller}kubernetes: {{ bypassServices: [{list}] }}\n"))
        };
        let bypassed = |list: &str| -> Vec<String> {
            let found = with(list, CONTROLLER).unwrap().bypassed_services;
            found.iter().map(ToString::to_string).collect()
        };
        assert!(bypassed("").is_empty());
        let twice = bypassed("shop/web, \"kube-system/kube-dns:53\", shop/web");
        assert_eq!(twice, ["kube-system/kube-dns:53", "shop/web"]);
        let error = with("shop/web", "").unwrap_err();
        assert!(error.contains("kubernetes.bypassServices needs `controller`"), "{error}");
        let error = with("kube-dns", CONTROLLER).unwrap_err();
        assert!(error.contains("`kube-dns` names no Service"), "{error}");
        let [none, some] = ["", "shop/web"].map(|list| with(list, CONTROLLER).unwrap());
        assert_eq!(none.check_reload(&some).unwrap_err().0, "kubernetes.bypassServices");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_key() {
        for (identity, section, reason) in [
            (IDENTITY, "{ node: \"Node A\" }", "kubernetes.node `Node A` is no name of a node"),
            // It would change what is asked for.
            (IDENTITY, "{ node: \"a,spec.nodeName!=a\" }", "is no name of a node"),
            (
                IDENTITY,
                "{ kubeconfig: kubeconfig }",
                "kubernetes.kubeconfig must be an absolute path",
            ),
            ("", "{}", "kubernetes: has no identity"),
            (
                "identity: { files: { dir: /svids } }\n",
                "{}",
                "identity.files cannot be the source for pods",
            ),
        ] {
            let error = parse(&format!("{identity}kubernetes: {section}\n")).unwrap_err();
            assert!(error.contains(reason), "{section}: {error}");
        }
        let podless = "trustDomain: example.org\nnode: node-a\nkubernetes: {}\n";
        let error = Config::parse(&format!("{podless}{IDENTITY}"), Path::new("sheath.yaml"));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("kubernetes needs capture.pods.root"), "{error}");
        let error =
            parse(&format!("{IDENTITY}kubernetes: {{ nriSocket: nri.sock }}\n")).unwrap_err();
        assert!(error.contains("kubernetes.nriSocket must be an absolute path"), "{error}");
        for (section, reason) in [
            ("{ gate: cni, cni: { confDir: net.d } }", "must be absolute paths"),
            ("{ gate: nri, cni: {} }", "kubernetes.gate leaves it out"),
            ("{ gate: none, cni: {} }", "kubernetes.gate leaves it out"),
            ("{ gate: cni, cni: { conf: /x } }", "confDir"),
        ] {
            let error = parse(&format!("{IDENTITY}kubernetes: {section}\n")).unwrap_err();
            assert!(error.contains(reason), "{section}: {error}");
        }
        for section in ["{ gate: cni, cni: {} }", "{ cni: {} }"] {
            let gate = parse(&format!("{IDENTITY}kubernetes: {section}\n")).unwrap().gate;
            assert_eq!(gate.unwrap().installation, Some(Installation::default()), "{section}");
        }
        let nothing = parse(IDENTITY).unwrap_err();
        assert!(nothing.contains("neither `workloads` nor `kubernetes`"), "{nothing}");
    }
}
