//! What is to become of a pod: a pure function of the pod, its namespace and the rules.

use std::collections::BTreeSet;

use super::{Lifetime, Namespace, NotAProtection, Pod, Protection, Wish};

/// Rules of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Namespaces that cannot be selected: what the cluster itself needs must not depend on Sheath.
    pub system_namespaces: BTreeSet<String>,
    /// Runtime classes whose pods use sockets of this kernel, besides pods without one.
    pub runtime_classes: BTreeSet<String>,
}

/// What is to become of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Its connections are left alone.
    Plain,
    /// They are protected, or refused.
    Protected(Protection),
    /// Nothing is said about it: it is over, or it runs under another uid.
    None,
    /// Nobody can say yet.
    Undecided(Undecided),
}

/// Why nobody can say what is to become of a pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecided {
    #[error("its namespace is not known yet")]
    Namespace,
    #[error("of its namespace, {0}")]
    NamespaceLabel(NotAProtection),
    #[error("{0}")]
    Label(NotAProtection),
}

/// Why a pod that is selected is not protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    #[error(
        "static pods cannot be protected: a node makes their image in the API, and could give it any label"
    )]
    Mirror,
    #[error(
        "pods of this namespace cannot be protected: the cluster needs them before Sheath runs"
    )]
    System,
    #[error(
        "its runtime class may stand for a sandbox with a network stack of its own, which the agent does not see; all of its connections are refused. List the class in kubernetes.runtimeClasses if its pods use the node's kernel"
    )]
    RuntimeClass,
}

impl Rules {
    /// What is to become of a pod in a namespace; `None` if that is not known.
    #[must_use]
    pub fn decide(&self, pod: &Pod, namespace: Option<&Namespace>) -> Decision {
        match pod.lifetime == Lifetime::Over || pod.is_mirror {
            true => Decision::None,
            false => self.decide_by(&pod.namespace, &pod.wish, namespace),
        }
    }

    /// The same, of a pod that lives and is no mirror: by the name of its namespace, and what its own label asks for.
    #[must_use]
    pub fn decide_by(&self, name: &str, wish: &Wish, namespace: Option<&Namespace>) -> Decision {
        if self.system_namespaces.contains(name) {
            return Decision::Plain;
        }
        match wanted(wish, namespace) {
            Ok(Protection::False) => Decision::Plain,
            Ok(protection) => Decision::Protected(protection),
            Err(undecided) => Decision::Undecided(undecided),
        }
    }

    /// Why a pod that asks for protection does not get it.
    #[must_use]
    pub fn unsupported(&self, pod: &Pod, namespace: Option<&Namespace>) -> Option<Unsupported> {
        // A label that nobody understands asks for something.
        let asks = !matches!(wanted(&pod.wish, namespace), Ok(Protection::False));
        match () {
            () if pod.lifetime == Lifetime::Over || !asks => None,
            () if pod.is_mirror => Some(Unsupported::Mirror),
            () if self.is_system(pod) => Some(Unsupported::System),
            () if self.is_foreign(pod) => Some(Unsupported::RuntimeClass),
            () => None,
        }
    }

    /// Why a pod gets no identity though it is protected: whatever it is, nobody sees what it sends.
    #[must_use]
    pub fn without_identity(&self, pod: &Pod) -> Option<Unsupported> {
        self.is_foreign(pod).then_some(Unsupported::RuntimeClass)
    }

    fn is_system(&self, pod: &Pod) -> bool {
        self.system_namespaces.contains(&*pod.namespace)
    }

    fn is_foreign(&self, pod: &Pod) -> bool {
        pod.runtime_class.as_deref().is_some_and(|class| !self.runtime_classes.contains(class))
    }
}

/// What a namespace asks for at least, whatever its pods say.
#[must_use]
pub fn least(namespace: Option<&Namespace>) -> Protection {
    let of_namespace = namespace.and_then(|namespace| namespace.wish.protection().ok());
    of_namespace.unwrap_or(Protection::False)
}

/// The stronger of what the pod and its namespace ask for: whoever may make pods is not who decides for the namespace.
fn wanted(wish: &Wish, namespace: Option<&Namespace>) -> Result<Protection, Undecided> {
    let namespace = namespace.ok_or(Undecided::Namespace)?;
    let of_namespace = namespace.wish.protection().map_err(Undecided::NamespaceLabel)?;
    // What a pod says can only add to that.
    if of_namespace == Protection::Require {
        return Ok(of_namespace);
    }
    let of_pod = wish.protection().map_err(Undecided::Label)?;
    Ok(of_namespace.max(of_pod))
}

#[cfg(test)]
mod tests;
