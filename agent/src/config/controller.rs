//! The controller in the configuration: where it is, and how the two know each other.

use std::env;

use super::raw;
use crate::controller_api::{ControllerAddress, LinkSettings, NotAnAddress};
use crate::spiffe::{SpiffeError, TrustDomain};

/// Where every pod is told the address of the Service `sheath-controller`.
const HOST: &str = "SHEATH_CONTROLLER_SERVICE_HOST";
const PORT: &str = "SHEATH_CONTROLLER_SERVICE_PORT";
/// The controller's identity below the trust domain, as the chart installs it.
const IDENTITY: &str = "ns/sheath-system/sa/sheath-controller";

/// What is wrong with the settings of the controller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    #[error("controller.address: {0}")]
    Address(#[from] NotAnAddress),
    #[error(
        "controller.address is missing, and {HOST} and {PORT} are not set, which they are in pods of a namespace with the Service `sheath-controller`"
    )]
    NoAddress,
    #[error("controller.{0} must be an absolute path")]
    Relative(&'static str),
    #[error("controller.spiffeId {found} is not of the trust domain {domain}")]
    OtherDomain { found: String, domain: TrustDomain },
    #[error("controller.spiffeId: {0}")]
    Identity(#[from] SpiffeError),
}

/// # Errors
/// What is wrong with them.
pub fn settings(
    raw: raw::Controller,
    trust_domain: &TrustDomain,
) -> Result<LinkSettings, ControllerError> {
    for (key, path) in [("roots", &raw.roots), ("token", &raw.token)] {
        if !path.is_absolute() {
            return Err(ControllerError::Relative(key));
        }
    }
    let spiffe_id = match raw.spiffe_id {
        Some(id) if id.trust_domain() == trust_domain => id,
        Some(id) => {
            let (found, domain) = (id.to_string(), trust_domain.clone());
            return Err(ControllerError::OtherDomain { found, domain });
        }
        None => format!("spiffe://{trust_domain}/{IDENTITY}").parse()?,
    };
    let address = match raw.address {
        Some(address) => address.try_into()?,
        None => of_environment()?,
    };
    Ok(LinkSettings { address, roots: raw.roots, spiffe_id, token: raw.token })
}

fn of_environment() -> Result<ControllerAddress, ControllerError> {
    let [host, port] = [HOST, PORT].map(|name| env::var(name).ok());
    let (Some(host), Some(port)) = (host, port) else {
        return Err(ControllerError::NoAddress);
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Ok(format!("{host}:{port}").try_into()?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;
    use crate::discovery::{Discovery, Kubernetes, PodIdentities};

    const REST: &str = "trustDomain: example.org\nnode: node-a\ncapture: { pods: { root: /kubepods.slice } }\nkubernetes: {}\n";

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(&format!("{REST}{text}"), Path::new("sheath.yaml"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn pods_have_their_identities_of_the_controller() {
        let config = parse(
            "identity: { controller: {} }\n\
             controller:\n  address: \"10.96.0.7:15443\"\n  roots: /roots\n  token: /token\n  \
             spiffeId: spiffe://example.org/ca\n",
        )
        .unwrap();
        let link = config.controller.clone().unwrap();
        assert_eq!(link.address.to_string(), "10.96.0.7:15443");
        assert_eq!([link.roots.to_str(), link.token.to_str()], [Some("/roots"), Some("/token")]);
        assert_eq!(link.spiffe_id.as_str(), "spiffe://example.org/ca");
        let found = config.discoveries.iter().find_map(|found| {
            let found: &dyn std::any::Any = &**found as &dyn Discovery;
            found.downcast_ref::<Kubernetes>()
        });
        assert_eq!(found.unwrap().identities, PodIdentities::Controller(link));
    }

    #[test]
    fn the_rest_has_defaults() {
        let config =
            parse("identity: { controller: {} }\ncontroller: { address: \"ca:1\" }\n").unwrap();
        let link = config.controller.unwrap();
        let id = "spiffe://example.org/ns/sheath-system/sa/sheath-controller";
        assert_eq!(link.spiffe_id.as_str(), id);
        assert_eq!(link.token, Path::new("/var/run/secrets/sheath/token"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_key() {
        for (text, reason) in [
            (
                "identity: { controller: {} }\n",
                "identity.controller needs the section `controller`",
            ),
            (
                "identity: { controller: {} }\ncontroller: { address: nowhere }\n",
                "controller.address: `nowhere` is not the address and port",
            ),
            (
                "identity: { controller: {} }\ncontroller: {}\n",
                "controller.address is missing, and SHEATH_CONTROLLER_SERVICE_HOST",
            ),
            (
                "identity: { controller: {} }\ncontroller: { address: \"a:1\", token: token }\n",
                "controller.token must be an absolute path",
            ),
            (
                "identity: { controller: {} }\ncontroller: { address: \"a:1\", spiffeId: \"spiffe://b/c\" }\n",
                "is not of the trust domain example.org",
            ),
            (
                "identity: { controller: { x: 1 } }\ncontroller: { address: \"a:1\" }\n",
                "unknown key `x`",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn workloads_of_the_file_have_no_identity_of_the_controller() {
        let text = "identity: { controller: {} }\ncontroller: { address: \"a:1\" }\n\
                    workloads: [{ name: a, select: { cgroup: /a }, outbound: { mode: require } }]\n";
        let error = parse(text).unwrap_err();
        assert!(error.contains("the controller knows pods alone"), "{error}");
    }
}
