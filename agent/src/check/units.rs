//! Network settings of a systemd unit that does not run yet. Once it runs, the filters on its cgroup are
//! tried instead.

use std::net::IpAddr;
use std::process::{Command, Stdio};

use ipnet::IpNet;

/// Properties of a unit that keep its processes from addresses or interfaces (systemd.resource-control(5)).
const PROPERTIES: &str = "IPAddressDeny,IPAddressAllow,RestrictNetworkInterfaces";

/// The service that a workload's pattern stands for, if it is one of the system manager's.
pub fn service(pattern: &str) -> Option<&str> {
    let name = pattern.strip_prefix("/system.slice/")?.rsplit('/').next()?;
    let is_one = name.ends_with(".service") && !pattern.contains(['*', '?']);
    is_one.then_some(name)
}

/// The settings that a unit lacks, as its file has them; `None` if it lacks none, or systemd does not answer.
pub fn lacks(unit: &str) -> Option<String> {
    let output = Command::new("systemctl")
        .args(["show", "--property", PROPERTIES, "--", unit])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    judge(&String::from_utf8_lossy(&output.stdout))
}

/// Judges `Property=value` lines. Without a loopback address that is allowed, one that is denied is lost.
fn judge(properties: &str) -> Option<String> {
    let value = |name: &str| {
        let line = properties.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().trim()
    };
    let covers = |name: &str, address: IpAddr| {
        value(name).split_whitespace().any(|word| match word {
            "any" => true,
            "localhost" => address.is_loopback(),
            prefix => prefix
                .parse::<IpNet>()
                .or_else(|_| prefix.parse::<IpAddr>().map(IpNet::from))
                .is_ok_and(|net| net.contains(&address)),
        })
    };
    let loopback = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
    let mut lacks = Vec::new();
    if loopback.iter().any(|a| covers("IPAddressDeny", *a) && !covers("IPAddressAllow", *a)) {
        lacks.push("`localhost` in IPAddressAllow=");
    }
    if is_without_lo(value("RestrictNetworkInterfaces")) {
        lacks.push("`lo` in RestrictNetworkInterfaces=");
    }
    (!lacks.is_empty()).then(|| lacks.join(" and "))
}

/// A list of interfaces that are allowed, or, after `~`, of those that are not.
fn is_without_lo(interfaces: &str) -> bool {
    let (is_inverse, list) = match interfaces.strip_prefix('~') {
        Some(list) => (true, list),
        None => (false, interfaces),
    };
    let names_lo = list.split_whitespace().any(|name| name.trim_start_matches('~') == "lo");
    !list.trim().is_empty() && names_lo == is_inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_behind_a_pattern_is_known() {
        assert_eq!(service("/system.slice/nginx.service"), Some("nginx.service"));
        assert_eq!(service("/system.slice/system-app.slice/app@1.service"), Some("app@1.service"));
        for none in
            ["/system.slice/web-*.service", "/demo.slice/web.service", "/system.slice/x.scope"]
        {
            assert_eq!(service(none), None, "{none}");
        }
    }

    #[test]
    fn properties_that_keep_a_unit_from_loopback_are_found() {
        for (properties, lacks) in [
            ("IPAddressDeny=::/0 0.0.0.0/0\nIPAddressAllow=\n", "`localhost` in IPAddressAllow="),
            ("IPAddressDeny=any\nIPAddressAllow=127.0.0.0/8\n", "`localhost` in IPAddressAllow="),
            ("RestrictNetworkInterfaces=eth0\n", "`lo` in RestrictNetworkInterfaces="),
            ("RestrictNetworkInterfaces=~lo\n", "`lo` in RestrictNetworkInterfaces="),
        ] {
            assert_eq!(judge(properties).as_deref(), Some(lacks), "{properties}");
        }
        for properties in [
            "",
            "IPAddressAllow=\nIPAddressDeny=\nRestrictNetworkInterfaces=\n",
            "IPAddressAllow=127.0.0.0/8 ::1/128\nIPAddressDeny=::/0 0.0.0.0/0\n",
            "IPAddressAllow=localhost\nIPAddressDeny=any\n",
            "IPAddressDeny=192.0.2.0/24\n",
            "RestrictNetworkInterfaces=eth0 lo\n",
            "RestrictNetworkInterfaces=~eth1\n",
        ] {
            assert_eq!(judge(properties), None, "{properties}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[A-Za-z=~/.: \n]{0,200}") {
            let _ = judge(&text);
        }
    }
}
