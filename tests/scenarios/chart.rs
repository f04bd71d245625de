//! The chart as it is written, before anything is installed: what it refuses, and what it makes.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sheath_tests::binaries;
use sheath_tests::cluster::{helm, shared};

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

/// As those without Helm apply them, but for the last step.
#[test]
fn the_api_server_takes_every_object_of_the_manifests() {
    let turn = shared::turn();
    let kubectl = turn.cluster.kubectl();
    let text = fs::read_to_string(helm::manifests()).unwrap();
    // What is in a namespace is looked at if that is there.
    let (namespace, _) = text.split_once("\n---\n").unwrap();
    kubectl.feed(["apply", "--server-side", "--filename=-"], namespace).unwrap();
    let apply = ["apply", "--server-side", "--dry-run=server", "--filename=-"];
    let said = kubectl.feed(apply, &text).unwrap();
    let is_taken = |line: &&str| line.ends_with("serverside-applied (server dry run)");
    let taken = said.lines().filter(is_taken).count();
    let objects = text.lines().filter(|line| line.starts_with("kind: ")).count();
    assert!(objects > 15 && taken == objects, "{taken} of {objects}: {said}");
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
        ("agent.holdHostNetwork=perhaps", "/agent/holdHostNetwork"),
        ("agent.spire.adminSocket=api.sock", "/agent/spire/adminSocket"),
        ("agent.spire.socket=/api.sock", "'socket'"),
        ("agent.extraVolumes[0].hostPath.path=/x", "/agent/extraVolumes/0"),
        ("agent.extraVolumeMounts[0].name=x", "/agent/extraVolumeMounts/0"),
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
        ("objects.enabled=perhaps", "/objects/enabled"),
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

/// Account, whether for all namespaces, verb, resource, and the one object that it is about.
type Right = (String, bool, String, String, Option<String>);

/// What the documentation says that accounts may do.
fn documented_rights() -> BTreeSet<Right> {
    let text = fs::read_to_string(helm::chart().join("../../../docs/kubernetes.md")).unwrap();
    let (_, section) = text.split_once("\n## Rights\n").expect("the section");
    let lines = section.lines().skip_while(|line| !line.starts_with("|---"));
    let mut rights = BTreeSet::new();
    for line in lines.skip(1).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [account, place, verbs, what, _] = &cells[..] else { panic!("{line}") };
        let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let accounts: Vec<String> = quoted(account);
        let resources: Vec<String> = quoted(what);
        let is_everywhere = match *place {
            "all namespaces" => true,
            "its own" => false,
            other => panic!("{other}: {line}"),
        };
        // What else is quoted is a value of the chart.
        for resource in resources.iter().filter(|text| !text.contains(':')) {
            for verb in verbs.split(',').map(str::trim) {
                let (kind, name) = match resource.split_once('/') {
                    Some((kind, name)) => (kind.to_owned(), Some(name.to_owned())),
                    None => (resource.clone(), None),
                };
                rights.insert((accounts[0].clone(), is_everywhere, verb.to_owned(), kind, name));
            }
        }
    }
    rights
}

/// What a role grants, if it is bound to an account.
fn granted(role: &Value, account: &str) -> BTreeSet<Right> {
    let texts = |value: &Value| -> Vec<String> {
        let all = value.as_array().into_iter().flatten();
        all.map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        let names = match texts(&rule["resourceNames"]) {
            names if names.is_empty() => vec![None],
            names => names.into_iter().map(Some).collect(),
        };
        for verb in texts(&rule["verbs"]) {
            for resource in texts(&rule["resources"]) {
                for name in &names {
                    let is_everywhere = role["kind"] == "ClusterRole";
                    let (verb, resource) = (verb.clone(), resource.clone());
                    rights.insert((
                        account.to_owned(),
                        is_everywhere,
                        verb,
                        resource,
                        name.clone(),
                    ));
                }
            }
        }
    }
    rights
}

/// What `docs/kubernetes.md` says of rights is what the chart grants: all of it, and nothing else.
#[test]
fn accounts_have_the_rights_that_are_documented_and_no_others() {
    let rendered = template(&["--set", "ca.existingSecret=my-ca"]).unwrap();
    let of = |kinds: [&str; 2]| kinds.map(|kind| objects(&rendered, kind)).concat();
    let roles = of(["ClusterRole", "Role"]);
    let mut all = BTreeSet::new();
    for binding in of(["ClusterRoleBinding", "RoleBinding"]) {
        let refers = &binding["roleRef"];
        let is_meant = |role: &&Value| {
            role["kind"] == refers["kind"] && role["metadata"]["name"] == refers["name"]
        };
        let role = roles.iter().find(is_meant).unwrap_or_else(|| panic!("no role of {binding}"));
        let [subject] = &binding["subjects"].as_array().unwrap()[..] else { panic!("{binding}") };
        assert_eq!(
            (&subject["kind"], &subject["namespace"]),
            (&json!("ServiceAccount"), &json!("sheath-system"))
        );
        all.extend(granted(role, subject["name"].as_str().unwrap()));
    }
    let documented = documented_rights();
    let missing: Vec<_> = documented.difference(&all).collect();
    let spare: Vec<_> = all.difference(&documented).collect();
    assert!(
        missing.is_empty() && spare.is_empty(),
        "not granted: {missing:?}\nnot documented: {spare:?}"
    );
    // Whatever is documented.
    let writes = ["create", "update", "patch", "delete", "deletecollection", "*"];
    let is_agents = |right: &&Right| right.0 == "sheath-agent";
    assert!(all.iter().filter(is_agents).all(|(_, _, verb, kind, _)| {
        !writes.contains(&&**verb) && kind != "secrets" && kind != "*"
    }));
    assert!(all.iter().filter(|right| right.3 == "secrets").all(
        |(account, everywhere, verb, ..)| {
            account == "sheath-controller"
                && !everywhere
                && ["create", "get", "update"].contains(&&**verb)
        }
    ));
    // A CA of the controller's own gives no right to another.
    let rendered = template(&[]).unwrap();
    assert!(
        !rendered.contains("my-ca") && all.iter().any(|right| right.4.as_deref() == Some("my-ca"))
    );
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

/// The pod of an agent and its configuration, with these values.
fn agent_of(more: &[&str]) -> (Value, Value) {
    let rendered = template(more).unwrap();
    let named = |object: &Value| object["metadata"]["name"] == "sheath-agent";
    let set = objects(&rendered, "DaemonSet").into_iter().find(named).unwrap();
    let map = objects(&rendered, "ConfigMap").into_iter().find(named).unwrap();
    let settings = map["data"]["sheath.yaml"].as_str().unwrap();
    (set["spec"]["template"]["spec"].clone(), serde_saphyr::from_str(settings).unwrap())
}

#[test]
fn agents_get_identities_from_spire_where_its_socket_is_named() {
    let (pod, settings) = agent_of(&[]);
    assert_eq!(settings["identity"], json!({"controller": {}}));
    assert!(!pod.to_string().contains("spire"), "{pod}");
    let (pod, settings) = agent_of(&["--set", "agent.spire.adminSocket=/run/spire/admin/api.sock"]);
    assert_eq!(settings["identity"], json!({"spire": {"socket": "/run/spire/admin/api.sock"}}));
    assert!(settings["controller"].is_object(), "who is where the controller says all the same");
    let find = |list: &Value| {
        let list = list.as_array().unwrap().iter();
        list.clone().find(|one| one["name"] == "spire").cloned().unwrap_or_default()
    };
    let mount = find(&pod["containers"][0]["volumeMounts"]);
    assert_eq!(mount["mountPath"], "/run/spire/admin");
    assert_eq!(find(&pod["volumes"])["hostPath"]["path"], mount["mountPath"]);
}

#[test]
fn an_agents_pod_has_the_volumes_that_somebody_adds() {
    let volumes = "agent.extraVolumes=[{\"name\":\"more\",\"hostPath\":{\"path\":\"/srv\"}}]";
    let mounts = "agent.extraVolumeMounts=[{\"name\":\"more\",\"mountPath\":\"/more\"}]";
    let (pod, _) = agent_of(&["--set-json", volumes, "--set-json", mounts]);
    let has = |list: &Value, key: &str, value: Value| {
        list.as_array().unwrap().iter().any(|one| one["name"] == "more" && one[key] == value)
    };
    assert!(has(&pod["volumes"], "hostPath", json!({"path": "/srv"})), "{pod}");
    assert!(has(&pod["containers"][0]["volumeMounts"], "mountPath", json!("/more")), "{pod}");
}

#[test]
fn pods_in_the_nodes_network_are_held_where_somebody_wants_it() {
    let hold = |more: &[&str]| agent_of(more).1["capture"]["pods"]["hostNetwork"].clone();
    assert_eq!(hold(&[]), false);
    assert_eq!(hold(&["--set", "agent.holdHostNetwork=true"]), true);
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
fn kinds_of_objects_are_there_if_somebody_wants_them_and_outlive_the_chart() {
    let kinds = |more: &[&str]| objects(&template(more).unwrap(), "CustomResourceDefinition");
    assert!(kinds(&[]).is_empty());
    let all = kinds(&["--set", "objects.enabled=true"]);
    assert_eq!(all.len(), 5);
    for kind in &all {
        assert_eq!(kind["metadata"]["annotations"]["helm.sh/resource-policy"], "keep", "{kind}");
    }
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
