//! CoreDNS as clusters have it: a Deployment behind the address that pods' `resolv.conf` names.

use anyhow::Result;

use super::image::Image;
use super::names::DNS_SERVICE;
use super::{Cluster, binaries};

const IMAGE: &str = "sheath.dev/coredns:dev";

/// Deploys it, and waits until it answers.
///
/// # Errors
/// When it cannot be deployed, or is not ready in time.
pub fn deploy(cluster: &Cluster) -> Result<()> {
    let archive = cluster.state.at("coredns.tar");
    Image::of_programs(IMAGE, &[binaries::cluster_program("coredns")])?.write(&archive)?;
    cluster.load(&archive)?;
    let kubectl = cluster.kubectl();
    kubectl.apply(&objects())?;
    kubectl.run([
        "rollout",
        "status",
        "--namespace=kube-system",
        "deployment/coredns",
        "--timeout=120s",
    ])?;
    Ok(())
}

/// As kubeadm makes them, with one replica and no forwarder.
fn objects() -> String {
    format!(
        "
apiVersion: v1
kind: ServiceAccount
metadata: {{name: coredns, namespace: kube-system}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: system:coredns}}
rules:
- {{apiGroups: [''], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}}
- {{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: system:coredns}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:coredns}}
subjects: [{{kind: ServiceAccount, name: coredns, namespace: kube-system}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: coredns, namespace: kube-system}}
data:
  Corefile: |
    .:53 {{
        errors
        health
        ready
        kubernetes cluster.local in-addr.arpa ip6.arpa {{
            pods insecure
        }}
        cache 5
    }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: coredns, namespace: kube-system}}
spec:
  replicas: 1
  selector: {{matchLabels: {{k8s-app: kube-dns}}}}
  template:
    metadata: {{labels: {{k8s-app: kube-dns}}}}
    spec:
      serviceAccountName: coredns
      priorityClassName: system-cluster-critical
      dnsPolicy: Default
      terminationGracePeriodSeconds: 1
      containers:
      - name: coredns
        image: {IMAGE}
        imagePullPolicy: Never
        args: [-conf, /etc/coredns/Corefile]
        ports: [{{name: dns, containerPort: 53, protocol: UDP}}, {{name: dns-tcp, containerPort: 53}}]
        readinessProbe: {{httpGet: {{path: /ready, port: 8181}}, periodSeconds: 1}}
        livenessProbe: {{httpGet: {{path: /health, port: 8080}}, initialDelaySeconds: 30}}
        volumeMounts: [{{name: configuration, mountPath: /etc/coredns, readOnly: true}}]
      volumes: [{{name: configuration, configMap: {{name: coredns}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: kube-dns, namespace: kube-system, labels: {{k8s-app: kube-dns}}}}
spec:
  clusterIP: {DNS_SERVICE}
  selector: {{k8s-app: kube-dns}}
  ports: [{{name: dns, port: 53, protocol: UDP}}, {{name: dns-tcp, port: 53, protocol: TCP}}]
"
    )
}
