//! Ports at which the kubelet itself calls a pod: those of its probes and hooks.
//!
//! Only what goes to the pod's own address counts: a probe or hook with a `host` goes elsewhere. `exec` and `sleep` need no
//! port. See the API reference of `Probe` and `LifecycleHandler`, and `pkg/probe/util.go` of Kubernetes for named ports.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, HTTPGetAction, Lifecycle, LifecycleHandler, PodSpec, Probe,
    TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The ports that a pod's specification declares as probes and hooks.
#[must_use]
pub fn ports(spec: &PodSpec) -> BTreeSet<u16> {
    let init = spec.init_containers.iter().flatten();
    // Init containers that are restarted always are sidecars, and may have probes.
    spec.containers.iter().chain(init).flat_map(of_container).collect()
}

fn of_container(container: &Container) -> Vec<u16> {
    let declared = container.ports.as_deref().unwrap_or_default();
    let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
    let probed = probes.into_iter().flatten().filter_map(|probe| of_probe(probe, declared));
    let hooked = container.lifecycle.iter().flat_map(|hooks| of_hooks(hooks, declared));
    probed.chain(hooked).collect()
}

fn of_probe(probe: &Probe, declared: &[ContainerPort]) -> Option<u16> {
    if let Some(grpc) = &probe.grpc {
        return port(grpc.port);
    }
    of_actions(probe.http_get.as_ref(), probe.tcp_socket.as_ref(), declared)
}

fn of_hooks(hooks: &Lifecycle, declared: &[ContainerPort]) -> Vec<u16> {
    let of_hook = |hook: &LifecycleHandler| {
        of_actions(hook.http_get.as_ref(), hook.tcp_socket.as_ref(), declared)
    };
    [&hooks.post_start, &hooks.pre_stop].into_iter().flatten().filter_map(of_hook).collect()
}

fn of_actions(
    http: Option<&HTTPGetAction>,
    tcp: Option<&TCPSocketAction>,
    declared: &[ContainerPort],
) -> Option<u16> {
    let http = http.map(|action| (&action.host, &action.port));
    let tcp = tcp.map(|action| (&action.host, &action.port));
    let (host, target) = http.or(tcp)?;
    if host.as_deref().is_some_and(|host| !host.is_empty()) {
        return None;
    }
    match target {
        IntOrString::Int(number) => port(*number),
        IntOrString::String(name) => named(name, declared),
    }
}

/// A name is one of the same container's ports; failing that, the kubelet reads it as a number.
fn named(name: &str, declared: &[ContainerPort]) -> Option<u16> {
    let declared = declared.iter().find(|port| port.name.as_deref() == Some(name));
    match declared {
        Some(declared) => port(declared.container_port),
        None => name.parse().ok().filter(|port| *port != 0),
    }
}

fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ports_of(spec: serde_json::Value) -> Vec<u16> {
        ports(&serde_json::from_value(spec).unwrap()).into_iter().collect()
    }

    #[test]
    fn ports_of_all_kinds_of_probes_and_hooks_are_found() {
        let spec = json!({
            "containers": [{
                "name": "a",
                "ports": [{"name": "web", "containerPort": 8080}],
                "livenessProbe": {"httpGet": {"port": "web"}},
                "readinessProbe": {"tcpSocket": {"port": 6379}},
                "startupProbe": {"grpc": {"port": 9000}},
                "lifecycle": {
                    "postStart": {"httpGet": {"port": 8081}},
                    "preStop": {"tcpSocket": {"port": "8082"}},
                },
            }],
            "initContainers": [{
                "name": "sidecar",
                "restartPolicy": "Always",
                "readinessProbe": {"tcpSocket": {"port": 7000}},
            }],
        });
        assert_eq!(ports_of(spec), [6379, 7000, 8080, 8081, 8082, 9000]);
    }

    #[test]
    fn what_does_not_go_to_the_pod_or_to_no_port_does_not_count() {
        let spec = json!({
            "containers": [
                {
                    "name": "a",
                    "ports": [{"containerPort": 1}],
                    "livenessProbe": {"exec": {"command": ["true"]}},
                    "readinessProbe": {"httpGet": {"host": "10.0.0.1", "port": 80}},
                    "startupProbe": {"tcpSocket": {"port": 0}},
                    "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
                },
                // A name is looked for in the same container.
                {"name": "b", "ports": [{"name": "other", "containerPort": 5}]},
                {"name": "c", "livenessProbe": {"httpGet": {"port": "other"}}},
                {"name": "d", "livenessProbe": {"tcpSocket": {"port": 70000}}},
            ],
        });
        assert_eq!(ports_of(spec), [0_u16; 0]);
    }
}
