//! The chart as it is written, before anything is installed: what it refuses, and what it makes.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;
use sheath_tests::binaries;
use sheath_tests::cluster::helm;

/// What `helm` says, and whether it is content.
fn template(more: &[&str]) -> Result<String, String> {
    let mut command = Command::new(binaries::cluster_program("helm"));
    command.args(["template", "sheath", "--namespace", "sheath-system"]).arg(helm::chart());
    let output = command.args(more).stdin(Stdio::null()).output().unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

/// The objects of a chart, of one kind.
fn objects(text: &str, kind: &str) -> Vec<Value> {
    let documents = text.split("\n---\n").filter(|text| text.contains("kind:"));
    let parsed = documents.map(|text| serde_saphyr::from_str::<Value>(text).unwrap());
    parsed.filter(|object| object["kind"] == kind).collect()
}

#[test]
fn the_manifests_are_the_chart_rendered() {
    let written = fs::read_to_string(helm::manifests()).unwrap_or_default();
    assert!(written == helm::render().unwrap(), "run `cargo xtask manifests`");
}

#[test]
fn the_chart_is_what_helm_expects_of_one() {
    let mut lint = Command::new(binaries::cluster_program("helm"));
    let output = lint.args(["lint", "--strict"]).arg(helm::chart()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn values_that_make_no_sense_are_refused_by_their_names() {
    for (value, name) in [
        ("trustDomain=Example.Org", "/trustDomain"),
        ("trustDomain=a/b", "/trustDomain"),
        ("agent.gat=cni", "'gat'"),
        ("agent.gate=maybe", "/agent/gate"),
        ("agent.podsRoot=kubepods", "/agent/podsRoot"),
        ("agent.unknownPods=deny", "/agent/unknownPods"),
        ("agent.bypassServices[0]=kube-dns", "/agent/bypassServices/0"),
        ("controller.nodeRanges=mine", "/controller/nodeRanges"),
        ("agent.drain=soon", "/agent/drain"),
        ("agent.paths.run=run", "/agent/paths/run"),
        ("agent.paths.proc=/proc", "'proc'"),
        ("controller.port=80", "/controller/port"),
        ("controller.replicas=0", "/controller/replicas"),
        ("controller.healthPort=80", "/controller/healthPort"),
        ("controller.metricsPort=1", "/controller/metricsPort"),
        ("admission.enabled=perhaps", "/admission/enabled"),
        ("admission.probeHosts=never", "/admission/probeHosts"),
        ("ca.existingSecret=a/b", "/ca/existingSecret"),
        ("controller.svidTtl=1y", "/controller/svidTtl"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("log.format=xml", "/log/format"),
        ("log.colour=red", "'colour'"),
        ("uninstall.enabled=perhaps", "/uninstall/enabled"),
        ("anything=else", "'anything'"),
    ] {
        let refused = template(&["--set", value]).unwrap_err();
        assert!(refused.contains(name), "{value}: {refused}");
    }
}

/// What [docs/kubernetes.md] says of rights is what the chart grants.
#[test]
fn agents_read_and_nobody_but_the_controller_has_secrets() {
    let rendered = template(&[]).unwrap();
    let roles = [objects(&rendered, "ClusterRole"), objects(&rendered, "Role")].concat();
    for role in &roles {
        let name = role["metadata"]["name"].as_str().unwrap();
        for rule in role["rules"].as_array().unwrap() {
            let has = |key: &str, what: &str| {
                rule[key].as_array().unwrap().iter().any(|one| one == what || one == "*")
            };
            let writes = ["create", "update", "patch", "delete", "deletecollection"];
            if name == "sheath-agent" {
                assert!(!writes.iter().any(|verb| has("verbs", verb)), "{rule}");
                assert!(!has("resources", "secrets"), "{rule}");
            }
            if has("resources", "secrets") {
                assert_eq!((name, &role["kind"]), ("sheath-controller", &Value::from("Role")));
                assert!(!has("verbs", "list") && !has("verbs", "watch"), "{rule}");
            }
        }
    }
    let names: Vec<_> = roles.iter().map(|role| role["metadata"]["name"].clone()).collect();
    assert_eq!(names.iter().filter(|name| *name == "sheath-agent").count(), 1);
}

#[test]
fn the_controller_is_restricted_and_the_agent_has_named_capabilities_and_a_read_only_root() {
    let rendered = template(&[]).unwrap();
    let [controller] = &objects(&rendered, "Deployment")[..] else { panic!("one Deployment") };
    let pod = &controller["spec"]["template"]["spec"];
    let container = &pod["containers"][0]["securityContext"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["readOnlyRootFilesystem"], true);
    assert_eq!(container["capabilities"]["drop"][0], "ALL");
    let sets = objects(&rendered, "DaemonSet");
    for set in &sets {
        let pod = &set["spec"]["template"]["spec"];
        let containers = [&pod["containers"], &pod["initContainers"]];
        let containers = containers.into_iter().filter_map(Value::as_array).flatten();
        for container in containers {
            let security = &container["securityContext"];
            assert_eq!(security["readOnlyRootFilesystem"], true, "{container}");
            assert_ne!(security["privileged"], true, "{container}");
            assert_eq!(security["capabilities"]["drop"][0], "ALL", "{container}");
        }
    }
    assert_eq!(sets.len(), 2, "the agent, and what cleans up");
    let privileged = template(&["--set", "agent.privileged=true"]).unwrap();
    let agent = objects(&privileged, "DaemonSet")
        .into_iter()
        .find(|set| set["metadata"]["name"] == "sheath-agent");
    let container = &agent.unwrap()["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["securityContext"]["privileged"], true);
    assert!(container["securityContext"]["capabilities"].is_null());
}

#[test]
fn the_nodes_networks_are_the_agents_business_where_the_plugin_of_cni_is_wanted() {
    let agent = |gate: &str| {
        let rendered = template(&["--set", &format!("agent.gate={gate}")]).unwrap();
        let sets = objects(&rendered, "DaemonSet");
        let agent = sets.into_iter().find(|set| set["metadata"]["name"] == "sheath-agent");
        agent.unwrap()["spec"]["template"]["spec"].clone()
    };
    let mounts = |pod: &Value| pod["volumes"].to_string().contains("/etc/cni/net.d");
    for gate in ["auto", "nri", "none", "cni"] {
        assert_eq!(mounts(&agent(gate)), ["auto", "cni"].contains(&gate), "{gate}");
    }
}

#[test]
fn the_api_server_is_told_what_to_refuse_unless_somebody_does_not_want_it() {
    let policies = |more: &[&str]| {
        let rendered = template(more).unwrap();
        let all = objects(&rendered, "ValidatingAdmissionPolicy");
        assert_eq!(all.len(), objects(&rendered, "ValidatingAdmissionPolicyBinding").len());
        all
    };
    let all = policies(&["--set", "systemNamespaces={kube-system,infra}"]);
    let names: Vec<_> = all.iter().map(|policy| policy["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["sheath-namespaces", "sheath-pods"]);
    for policy in &all {
        assert!(policy.to_string().contains("['kube-system','infra','sheath-system']"), "{policy}");
    }
    let hosts = |more: &[&str]| policies(more)[1].to_string();
    assert!(hosts(&[]).contains("postStart.?httpGet.?host"));
    let everywhere = hosts(&["--set", "admission.probeHosts=everywhere"]);
    assert!(everywhere.len() < hosts(&[]).len() && everywhere.contains("?host"));
    assert!(!hosts(&["--set", "admission.probeHosts=allowed"]).contains("?host"));
    assert!(policies(&["--set", "admission.enabled=false"]).is_empty());
}

#[test]
fn the_controller_is_asked_about_its_health_and_metrics_at_ports_of_their_own() {
    let rendered = |more: &[&str]| {
        let rendered = template(more).unwrap();
        let [controller] = &objects(&rendered, "Deployment")[..] else { panic!("one Deployment") };
        let container = controller["spec"]["template"]["spec"]["containers"][0].clone();
        let maps = objects(&rendered, "ConfigMap");
        let map = maps.into_iter().find(|map| map["metadata"]["name"] == "sheath-controller");
        let settings = map.unwrap()["data"]["controller.yaml"].as_str().unwrap().to_owned();
        (container, serde_saphyr::from_str::<Value>(&settings).unwrap())
    };
    let (container, settings) = rendered(&[]);
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/livez");
    assert_eq!(settings["health"]["listen"], "[::]:7444");
    assert_eq!(settings["metrics"]["listen"], "[::]:7445");
    let (container, settings) = rendered(&["--set", "controller.metricsPort=0"]);
    assert!(settings["metrics"].is_null());
    assert_eq!(container["ports"].as_array().unwrap().len(), 2);
}

#[test]
fn the_controller_reads_a_ca_of_somebody_elses_and_nothing_but_that() {
    let rendered = template(&["--set", "ca.existingSecret=my-ca"]).unwrap();
    let roles = objects(&rendered, "Role");
    let of = |role: &&Value| role["metadata"]["name"] == "sheath-controller";
    let rules = roles.iter().find(of).unwrap()["rules"].clone();
    let named = |rule: &&Value| rule["resourceNames"][0] == "my-ca";
    let rule = rules.as_array().unwrap().iter().find(named).unwrap().clone();
    assert_eq!(rule["verbs"].as_array().unwrap(), &["get"]);
    assert!(rendered.contains("secret: my-ca"), "the controller is told");
}
