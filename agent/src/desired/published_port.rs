//! Ports that clients know by another number: `inbound.publishedPorts`.

use serde::Deserialize;

/// A port of a workload and the port that clients dial, where something on the way translates: a Kubernetes Service, or a
/// host that publishes a container's port.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct PublishedPort {
    pub published: u16,
    pub port: u16,
}

impl TryFrom<String> for PublishedPort {
    type Error = String;

    /// Written as Docker writes it: the published port first.
    fn try_from(text: String) -> Result<Self, String> {
        let port = |text: &str| text.parse().ok().filter(|port| *port != 0);
        let ports =
            text.split_once(':').and_then(|(published, own)| Some((port(published)?, port(own)?)));
        match ports {
            Some((published, port)) if published != port => Ok(Self { published, port }),
            Some(_) => Err(format!("inbound.publishedPorts: `{text}` translates nothing")),
            None => Err(format!(
                "inbound.publishedPorts: `{text}` is no pair of ports; write the port that clients dial and the workload's own, like `80:8080`"
            )),
        }
    }
}
