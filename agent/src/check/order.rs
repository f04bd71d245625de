//! Whether the units of workloads start after the agent's. When a host boots nothing of ours is in its kernel: until the
//! agent is ready, what protects is that it comes before the network, and before the workloads.

use std::process::{Command, Stdio};

use super::{Finding, units};
use crate::desired::Desired;

/// The unit that is shipped.
const AGENT: &str = "sheath.service";

/// As many units are asked about.
const MOST: usize = 256;

/// What is wrong with the order. Nothing, where the agent is no unit of systemd's.
pub fn order(desired: &Desired) -> Vec<Finding> {
    let units = desired.workloads.iter().filter_map(|workload| {
        Some((workload.name.as_str(), units::service(workload.cgroup.pattern()?)?))
    });
    let units: Vec<(&str, &str)> = units.take(MOST).collect();
    if units.is_empty() || !is_loaded(&shown(&[AGENT])) {
        return Vec::new();
    }
    let names: Vec<&str> = units.iter().map(|(_, unit)| *unit).collect();
    let text = shown(&names);
    let early = |(workload, unit): (&str, &str)| {
        let properties = text.split("\n\n").find(|it| property(it, "Id") == Some(unit))?;
        may_be_early(properties).then(|| {
            Finding::warning(
                "order",
                format!("`{workload}`: {unit} may start before {AGENT} when the host boots"),
                format!(
                    "where the network is up by then, it is not protected until {AGENT} is ready: put `After={AGENT}` into its [Unit] section"
                ),
            )
        })
    };
    units.into_iter().filter_map(early).collect()
}

/// Properties of units, as `Name=value` lines with an empty line between units; nothing if systemd does not answer.
fn shown(units: &[&str]) -> String {
    let output = Command::new("systemctl")
        .args(["show", "--property", "Id,LoadState,After", "--"])
        .args(units)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn may_be_early(properties: &str) -> bool {
    let after = property(properties, "After").unwrap_or_default();
    is_loaded(properties) && !after.split_whitespace().any(|unit| unit == AGENT)
}

fn is_loaded(properties: &str) -> bool {
    property(properties, "LoadState") == Some("loaded")
}

fn property<'t>(properties: &'t str, name: &str) -> Option<&'t str> {
    properties.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_is_not_ordered_behind_the_agents_may_be_early() {
        for (properties, is_early) in [
            ("Id=web.service\nAfter=basic.target network.target\nLoadState=loaded\n", true),
            ("Id=web.service\nAfter=basic.target other-sheath.service\nLoadState=loaded\n", true),
            ("Id=web.service\nAfter=basic.target sheath.service\nLoadState=loaded\n", false),
            // It may come by another name, or not at all.
            ("Id=web.service\nLoadState=not-found\n", false),
            ("", false),
        ] {
            assert_eq!(may_be_early(properties), is_early, "{properties}");
        }
    }
}
