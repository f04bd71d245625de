use super::*;

fn read(more: &str) -> Result<Settings, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let fixed = "trustDomain: example.org\nname: controller-0\nadvertise: 10.0.0.1:0\n";
    std::fs::write(file.path(), format!("{fixed}{more}")).unwrap();
    Settings::load(file.path()).map_err(|error| error.to_string())
}

#[test]
fn little_has_to_be_said() {
    let settings = read("").unwrap();
    assert_eq!(settings.own.as_str(), "spiffe://example.org/ns/sheath-system/sa/sheath-controller");
    assert_eq!(settings.listen.to_string(), "[::]:15443");
    assert_eq!(settings.access, Access::Pod);
    assert_eq!(settings.agent_service_account, "sheath-system/sheath-agent");
    assert_eq!(settings.terms.svid_ttl, DAY);
    assert_eq!(settings.node_ranges, NodeRanges::Own);
    assert_eq!((settings.health, settings.metrics), (None, None));
}

#[test]
fn every_key_is_read() {
    let settings = read(
        "listen: 127.0.0.1:1\nkubeconfig: /etc/kubeconfig\nnamespace: sheath\nserviceAccount: ca\n\
         agentServiceAccount: sheath/agent\nsystemNamespaces: [infra]\nclusterRanges: [10.0.0.0/8]\nserviceRanges: [10.96.0.0/12]\nnodeRanges: shared\n\
         identity: { svidTtl: 1h, intermediateTtl: 10h, rootTtl: 500h, distribute: 2h, secret: my-ca }\n\
         health: { listen: \"[::]:2\" }\nmetrics: { listen: 127.0.0.1:3 }\n\
         log: { level: debug, format: json }\n",
    )
    .unwrap();
    assert_eq!(settings.own.as_str(), "spiffe://example.org/ns/sheath/sa/ca");
    assert_eq!(settings.access, Access::Kubeconfig("/etc/kubeconfig".into()));
    assert_eq!(settings.agent_service_account, "sheath/agent");
    assert!(settings.system_namespaces.iter().eq(["infra", "sheath"]), "its own as well");
    assert_eq!(settings.cluster_ranges, ["10.0.0.0/8".parse::<IpNet>().unwrap()]);
    assert_eq!(settings.service_ranges, ["10.96.0.0/12".parse::<IpNet>().unwrap()]);
    assert_eq!(settings.node_ranges, NodeRanges::Shared);
    assert_eq!(settings.health, Some("[::]:2".parse().unwrap()));
    assert_eq!(settings.metrics, Some("127.0.0.1:3".parse().unwrap()));
    assert_eq!(settings.provided_ca.as_deref(), Some("my-ca"));
    let terms = settings.terms;
    assert_eq!([terms.svid_ttl, terms.distribute], [HOUR, 2 * HOUR]);
    assert_eq!([terms.intermediate_ttl, terms.root_ttl], [10 * HOUR, 500 * HOUR]);
}

#[test]
fn what_makes_no_sense_is_refused_with_its_key() {
    for (text, reason) in [
        ("namespace: \"a b\"\n", "namespace `a b` is no name"),
        ("serviceAccount: \"\"\n", "serviceAccount `` is no name"),
        ("agentServiceAccount: agent\n", "is not <namespace>/<name>"),
        ("agentServiceAccount: a/b/c\n", "is not <namespace>/<name>"),
        ("kubeconfig: here\n", "kubeconfig must be an absolute path"),
        ("identity: { svidTtl: 1s }\n", "identity.svidTtl is shorter than 10s"),
        ("identity: { svidTtl: 8d }\n", "identity.svidTtl is longer than 7days"),
        ("identity: { intermediateTtl: 2d }\n", "identity.intermediateTtl is shorter than 6days"),
        ("identity: { rootTtl: 60d }\n", "identity.rootTtl is shorter than"),
        ("log: { level: \"[\" }\n", "log.level"),
        ("nodeRanges: mine\n", "`mine` is none of `own`, `shared`"),
        ("unknown: 1\n", "unknown"),
        ("identity: { secret: A/b }\n", "identity.secret `A/b` is no name"),
        ("identity: { secret: sheath-ca }\n", "identity.secret is sheath-ca"),
        ("health: { listen: here }\n", "invalid socket address"),
        ("metrics: { listen: \"[::]:15443\" }\n", "metrics.listen has the port 15443"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
}
