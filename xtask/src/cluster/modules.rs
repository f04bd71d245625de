//! The Go modules under `tests/cluster/`, and what is built of each. Their `go.mod` files pin the versions, and their
//! `go.sum` files everything that these versions consist of.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::workspace;

/// A Go module whose tools are programs of the cluster.
pub struct Module {
    /// Its folder in `tests/cluster/`.
    pub name: &'static str,
    /// The module of the programs, whose version is theirs.
    pub source: &'static str,
    /// Import paths below `source`, with the programs' names.
    pub programs: &'static [(&'static str, &'static str)],
    /// Variables that say the version, and how: see [`Self::variables`].
    variables: &'static [(&'static str, &'static str)],
    pub tags: &'static str,
    /// Whether there is C in it.
    pub cgo: bool,
}

pub const MODULES: [Module; 8] = [PAUSE, RUNC, CNI, COREDNS, CONTAINERD, ETCD, HELM, KUBERNETES];

const KUBERNETES: Module = Module {
    name: "kubernetes",
    source: "k8s.io/kubernetes",
    programs: &[
        ("/cmd/kube-apiserver", "kube-apiserver"),
        ("/cmd/kube-controller-manager", "kube-controller-manager"),
        ("/cmd/kube-proxy", "kube-proxy"),
        ("/cmd/kube-scheduler", "kube-scheduler"),
        ("/cmd/kubectl", "kubectl"),
        ("/cmd/kubelet", "kubelet"),
    ],
    // Client and server tell each other what they are, and act on it.
    variables: &[
        ("k8s.io/component-base/version.gitVersion", "{version}"),
        ("k8s.io/component-base/version.gitMajor", "{major}"),
        ("k8s.io/component-base/version.gitMinor", "{minor}"),
        ("k8s.io/component-base/version.gitTreeState", "clean"),
        ("k8s.io/client-go/pkg/version.gitVersion", "{version}"),
        ("k8s.io/client-go/pkg/version.gitMajor", "{major}"),
        ("k8s.io/client-go/pkg/version.gitMinor", "{minor}"),
        ("k8s.io/client-go/pkg/version.gitTreeState", "clean"),
    ],
    tags: "",
    cgo: false,
};

/// What is built of it is ours: its own program has the modules of every cloud in it.
const COREDNS: Module = Module {
    name: "coredns",
    source: "sheath.dev/tests/cluster/coredns",
    programs: &[("", "coredns")],
    variables: &[],
    tags: "",
    cgo: false,
};

/// A program of our own, and so a module of its own.
const PAUSE: Module = Module {
    name: "pause",
    source: "sheath.dev/tests/cluster/pause",
    programs: &[("", "pause")],
    variables: &[],
    tags: "",
    cgo: false,
};

const ETCD: Module = Module {
    name: "etcd",
    source: "go.etcd.io/etcd/server/v3",
    programs: &[("", "etcd")],
    variables: &[],
    tags: "",
    cgo: false,
};

const CONTAINERD: Module = Module {
    name: "containerd",
    source: "github.com/containerd/containerd/v2",
    programs: &[
        ("/cmd/containerd", "containerd"),
        ("/cmd/containerd-shim-runc-v2", "containerd-shim-runc-v2"),
        ("/cmd/ctr", "ctr"),
    ],
    variables: &[("github.com/containerd/containerd/v2/version.Version", "{version}")],
    tags: "",
    cgo: false,
};

/// Its `init` goes into namespaces before Go's threads start, in C, and its seccomp filters are made by libseccomp.
const RUNC: Module = Module {
    name: "runc",
    source: "github.com/opencontainers/runc",
    programs: &[("", "runc")],
    variables: &[],
    tags: "seccomp",
    cgo: true,
};

const CNI: Module = Module {
    name: "cni",
    source: "github.com/containernetworking/plugins",
    programs: &[
        ("/plugins/ipam/host-local", "host-local"),
        ("/plugins/main/loopback", "loopback"),
        ("/plugins/main/ptp", "ptp"),
    ],
    variables: &[(
        "github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion",
        "{version}",
    )],
    tags: "",
    cgo: false,
};

const HELM: Module = Module {
    name: "helm",
    source: "helm.sh/helm/v4",
    programs: &[("/cmd/helm", "helm")],
    variables: &[("helm.sh/helm/v4/internal/version.version", "{version}")],
    tags: "",
    cgo: false,
};

impl Module {
    pub fn dir(&self) -> PathBuf {
        workspace::root().join("tests/cluster").join(self.name)
    }

    /// What the linker is told: no symbols, and the version.
    ///
    /// # Errors
    /// When the module's `go.mod` does not name a version.
    pub fn linker_flags(&self) -> Result<String> {
        if self.variables.is_empty() {
            return Ok(self.flags_for(""));
        }
        let manifest = self.dir().join("go.mod");
        let text = fs::read_to_string(&manifest)
            .with_context(|| format!("cannot read {}", manifest.display()))?;
        let version = version_in(&text, self.source)
            .with_context(|| format!("{} requires no {}", manifest.display(), self.source))?;
        Ok(self.flags_for(version))
    }

    fn flags_for(&self, version: &str) -> String {
        let mut numbers = version.trim_start_matches('v').split('.');
        let (major, minor) =
            (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        let mut flags = "-s -w".to_owned();
        for (variable, value) in self.variables {
            let value = value.replace("{version}", version);
            let value = value.replace("{major}", major).replace("{minor}", minor);
            flags.push_str(&format!(" -X {variable}={value}"));
        }
        flags
    }
}

/// The version of a module that a `go.mod` requires.
fn version_in<'t>(manifest: &'t str, module: &str) -> Option<&'t str> {
    manifest.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word == "require");
        (words.next()? == module).then(|| words.next()).flatten().filter(|it| it.starts_with('v'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_module_pins_what_is_built_of_it() {
        let is_ours = |module: &&Module| [PAUSE.name, COREDNS.name].contains(&module.name);
        for module in MODULES.iter().filter(|module| !is_ours(module)) {
            let flags = module.linker_flags().unwrap();
            assert!(!flags.contains('{'), "{flags}");
            let text = fs::read_to_string(module.dir().join("go.mod")).unwrap();
            assert!(version_in(&text, module.source).is_some(), "{}", module.name);
            for (path, _) in module.programs {
                let tool = format!("{}{path}", module.source);
                let is_tool =
                    text.lines().any(|line| line.trim_start_matches("tool").trim() == tool);
                assert!(is_tool, "{}/go.mod lacks the tool {tool}", module.name);
            }
        }
    }

    #[test]
    fn programs_say_the_version_that_is_pinned() {
        let text = "tool a.io/b\n\nrequire (\n\ta.io/bc v2.0.0\n\ta.io/b v1.37.2 // indirect\n)\n";
        assert_eq!(version_in(text, "a.io/b"), Some("v1.37.2"));
        assert_eq!(version_in("require a.io/b v1.0.0\n", "a.io/b"), Some("v1.0.0"));
        assert_eq!(version_in(text, "a.io/c"), None);
        let flags = KUBERNETES.flags_for("v1.37.2");
        for part in ["version.gitVersion=v1.37.2", "version.gitMajor=1", "version.gitMinor=37"] {
            assert!(flags.contains(part), "{flags}");
        }
    }
}
