use crate::capture::{CaptureRoot, UnknownPods};
use crate::config::Config;
use crate::config::tests::{EXAMPLE, parse};
use crate::desired::{CgroupSelector, Pods};

const POD: &str = "0a1b2c3d-4e5f-4789-8abc-def012345678";

fn selecting(select: &str) -> String {
    EXAMPLE.replace("cgroup: \"demo.slice/web*\"", select)
}

/// The example, with a kubelet.
fn with_pods(pods: &str, select: &str) -> Result<Config, String> {
    parse(&selecting(select).replace("{ cgroup: auto }", &format!("{{ pods: {pods} }}")))
}

#[test]
fn a_kubelets_pods_are_below_a_root_and_selected_by_uid() {
    let select = format!("podUid: \"{POD}\"");
    let config = with_pods("{ root: /kubepods.slice }", &select).unwrap();
    let pods = config.pods.as_ref().unwrap();
    assert_eq!(pods.root.as_str(), "/kubepods.slice");
    assert_eq!((pods.unknown, pods.hold_host_network), (UnknownPods::Hold, false));
    assert_eq!(config.desired.pods, None, "nothing is known about other pods");
    let web = &config.desired.workloads[0];
    assert_eq!(web.cgroup, CgroupSelector::Pod(POD.parse().unwrap()));
    assert!(!web.key().contains("web") && web.key().contains(POD), "{}", web.key());
    let all =
        format!("{{ root: /a/kubepods, unknown: allow, hostNetwork: true, plain: [\"{POD}\"] }}");
    let config = with_pods(&all, "cgroup: /web").unwrap();
    let pods = config.pods.unwrap();
    assert_eq!((pods.unknown, pods.hold_host_network), (UnknownPods::Allow, true));
    assert!(config.desired.pods.unwrap().plain.contains(&POD.parse().unwrap()));
    let none = with_pods("{ root: /kubepods, plain: [] }", "cgroup: /web").unwrap();
    assert_eq!(none.desired.pods, Some(Pods::default()));
}

#[test]
fn programs_attach_at_the_pods_cgroup_where_nothing_else_is_a_workload() {
    let pod = format!("podUid: \"{POD}\"");
    let pods = || CaptureRoot::Pods("/kubepods.slice".to_owned());
    for (capture, select, expected) in [
        ("{ pods: { root: /kubepods.slice } }", &*pod, pods()),
        ("{ cgroup: auto, pods: { root: /kubepods.slice } }", &pod, pods()),
        ("{ pods: { root: /kubepods.slice } }", "cgroup: /web", CaptureRoot::Auto),
        ("{ pods: { root: /kubepods.slice } }", "systemdUnit: web.service", CaptureRoot::Auto),
        (
            "{ cgroup: /kubepods.slice, pods: { root: /kubepods.slice } }",
            &pod,
            CaptureRoot::Below("/kubepods.slice".to_owned()),
        ),
        ("{ cgroup: /a, pods: { root: /a/kubepods } }", &pod, CaptureRoot::Below("/a".to_owned())),
    ] {
        let text = selecting(select).replace("{ cgroup: auto }", capture);
        assert_eq!(parse(&text).unwrap().capture, expected, "{capture} {select}");
    }
    // A workload of another kind takes a restart: the programs would not see it.
    let alone = with_pods("{ root: /kubepods.slice }", &pod).unwrap();
    let more = with_pods("{ root: /kubepods.slice }", "cgroup: /web").unwrap();
    assert_eq!(alone.check_reload(&more).unwrap_err().0, "capture");
}

#[test]
fn what_makes_no_sense_of_pods_is_refused() {
    let select = format!("podUid: \"{POD}\"");
    for (pods, select, expected) in [
        ("{ root: kubepods }", "cgroup: /web", "must be the path of the cgroup"),
        ("{ root: / }", "cgroup: /web", "must be the path of the cgroup"),
        ("{ root: /a/../b }", "cgroup: /web", "must be the path of the cgroup"),
        ("{ root: /.slice }", "cgroup: /web", "must be the path of the cgroup"),
        ("{ root: /a/b/c/d/e/f/g/h/i/j/k/l/m/n/o }", "cgroup: /web", "too deep"),
        ("{ root: /kubepods, unknown: maybe }", "cgroup: /web", "sheath.yaml"),
        ("{ root: /kubepods, plain: [\"web\"] }", "cgroup: /web", "`web` is no pod's uid"),
        ("{ unknown: hold }", "cgroup: /web", "root"),
        ("{ root: /kubepods }", "podUid: \"0A\"", "`0A` is no pod's uid"),
    ] {
        let error = with_pods(pods, select).unwrap_err();
        assert!(error.contains(expected), "{pods} {select}: {error}");
    }
    let long = format!("{{ root: /{} }}", "a".repeat(250));
    assert!(with_pods(&long, "cgroup: /web").unwrap_err().contains("too long"));
    let both = format!("{{ root: /kubepods, plain: [\"{POD}\"] }}");
    assert!(with_pods(&both, &select).unwrap_err().contains("is also a workload"));
    let error = parse(&selecting(&select)).unwrap_err();
    assert!(error.contains("podUid needs capture.pods.root"), "{error}");
    let capture = "{ cgroup: /demo.slice, pods: { root: /kubepods } }";
    let error = parse(&EXAMPLE.replace("{ cgroup: auto }", capture)).unwrap_err();
    assert!(error.contains("capture.pods.root `/kubepods` is not below"), "{error}");
}
