//! A cluster with real applications, before, with and after Sheath.

mod killed;
mod shop;
mod traffic;

use std::path::Path;
use std::process;

use serde_json::json;
use sheath_tests::cluster::helm::Release;
use sheath_tests::cluster::turn::Turn;
use sheath_tests::cluster::{self, Cluster, dns};

use crate::progress::step;
use crate::report::Report;

use shop::Shop;

const SCENE: &str = "
  node-a                                 node-b
  client: curl, redis-cli, psql          cache (redis), db (PostgreSQL)
  web (nginx)                            web (nginx)
  agent    10.0.0.11 ------ wire ------ 10.0.0.12    agent
                  Services web, cache, db; CoreDNS";

/// Agents stay away from a node with this label.
const WITHOUT_AGENT: &str = "sheath.dev/demo-without-agent";

/// The whole demo. Everything it sets up is gone when it returns.
pub fn play(packages: &Path) -> Report {
    let mut report = Report::new(SCENE);
    let cluster = step("a cluster of real programs", Up::new);
    let cluster = &cluster.0;
    let turn = Turn::take(cluster);
    step("CoreDNS", || dns::deploy(cluster).expect("CoreDNS"));
    let shop = step("nginx, redis and PostgreSQL", || Shop::open(cluster, packages));
    step("clients without Sheath", || traffic::without_sheath(&shop, &mut report));
    let release = step("helm install", || install(&turn, &mut report));
    step("a label on the namespace", || traffic::with_sheath(&shop, &release, &mut report));
    step("strangers", || traffic::strangers(&shop, &mut report));
    step("an agent killed", || killed::nothing_leaks(&shop, &release, &mut report));
    step("helm uninstall", || uninstall(&shop, release, &mut report));
    step("cleaning up", || drop(shop));
    report
}

/// A cluster of the demo's own, which goes with it.
struct Up(Cluster);

impl Up {
    fn new() -> Self {
        cluster::remove_orphans().expect("no cluster of an earlier demo");
        let name = format!("demo{}", process::id());
        Self(Cluster::up(&name, Some(process::id())).expect("a cluster"))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Err(error) = cluster::remove(self.0.name()) {
            eprintln!("error: the cluster {} is left: {error:#}", self.0.name());
        }
    }
}

fn install<'t>(turn: &'t Turn<'_>, report: &mut Report) -> Release<'t> {
    let away = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": WITHOUT_AGENT, "operator": "DoesNotExist"}]}],
    }}});
    let release = Release::install(turn, &json!({"agent": {"affinity": away}}));
    let release = release.expect("helm install");
    report.section("helm install sheath");
    let pods = release.ready_pods().expect("pods of the release");
    report.check("pods that are ready", pods == 4, format!("{pods}: 2 agents, 2 controllers"));
    release
}

fn uninstall(shop: &Shop<'_>, release: Release<'_>, report: &mut Report) {
    release.uninstall().expect("helm uninstall");
    report.section("helm uninstall sheath");
    let left = shop.cluster.pinned();
    let seen = if left.is_empty() { "none".to_owned() } else { left.join(", ") };
    report.check("pins that are left on nodes", left.is_empty(), seen);
    traffic::are_as_before(shop, report);
}
