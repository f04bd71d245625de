//! Agents get identities of their pods from the controller: keys that never leave the node, renewed in time, and the roots of the
//! trust domain as they are now.

use std::path::PathBuf;

use serde_json::{Value, json};
use sheath_tests::agent::{self, Agent};
use sheath_tests::api_server::{ApiServer, Kind};
use sheath_tests::ca::Ca;
use sheath_tests::config::{self, Kubernetes};
use sheath_tests::controller::{self, Controller};
use sheath_tests::kubelet::{Depth, Driver, Kubelet};
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{TRUST_DOMAIN, World};

const POD: &str = "shop/web-1";
const SVID: &str = "spiffe://example.org/ns/shop/sa/web";

/// A node whose agent knows its pods by an API server, and the controller of that cluster.
struct Scene {
    controller: Controller,
    api: ApiServer,
    kubelet: Kubelet,
    world: World,
    roots: PathBuf,
    token: PathBuf,
}

impl Scene {
    fn new(change: impl FnOnce(&mut Value)) -> Self {
        let world = World::new();
        let api = ApiServer::start(&world.a.netns);
        let kubelet = Kubelet::start(&world.a.cgroup, Driver::Systemd, Depth::Flat);
        controller::know_agent(&api, "node-a", "token");
        let label = json!({"sheath.dev/protect": "require"});
        api.put(Kind::Namespace, json!({"metadata": {"name": "shop", "labels": label}}));
        api.put(
            Kind::Pod,
            json!({
                "metadata": {
                    "namespace": "shop",
                    "name": "web-1",
                    "uid": "00000000-0000-4000-8000-000000000001",
                },
                "spec": {"nodeName": "node-a", "serviceAccountName": "web", "containers": []},
                "status": {"phase": "Running"},
            }),
        );
        let controller = Controller::start(&api, &world.a.netns, "one", change);
        controller::wait_leads(&api, &controller);
        let dir = world.dir.path();
        let roots = controller::write(dir, "roots.pem", &controller::wait_roots(&api));
        let token = controller::write(dir, "token", "token\n");
        Self { controller, api, kubelet, world, roots, token }
    }

    fn agent(&self) -> Agent {
        let mut config = agent::config(&self.world, &self.world.a);
        config.kubernetes = Some(Kubernetes {
            kubelet: sheath_tests::config::Kubelet::None,
            ..Kubernetes::new(self.api.kubeconfig())
        });
        config.capture.pods = Some(self.kubelet.settings());
        config.identity = config::Identity {
            controller: Some(config::OfController {}),
            ..config::Identity::default()
        };
        config.controller = Some(config::Controller {
            address: self.controller.address().to_string(),
            roots: self.roots.clone(),
            token: self.token.clone(),
        });
        Agent::start(&self.world, &self.world.a, config)
    }
}

/// Waits until status says this of the pod's identity.
#[track_caller]
fn wait_complains(agent: &Agent, words: &str) {
    agent.wait_for_certificate(POD, words, |seen| seen.complains(words));
}

#[track_caller]
fn wait_serial(agent: &Agent, before: Option<&str>) -> String {
    let is_new = |serial: &str| !serial.is_empty() && Some(serial) != before;
    let seen = agent.wait_for_certificate(POD, "another SVID", |seen| {
        seen.serial.as_deref().is_some_and(is_new)
    });
    seen.serial.unwrap()
}

#[test]
fn a_pod_gets_its_identity_renewed_in_time_and_keeps_it_when_the_controller_is_gone() {
    let mut scene = Scene::new(|settings| {
        settings["identity"]["svidTtl"] = json!("40s");
        settings["identity"]["intermediateTtl"] = json!("10m");
    });
    let agent = scene.agent();
    let first = wait_serial(&agent, None);
    let seen = agent.wait_for_certificate(POD, "the identity", |seen| seen.is_fresh(&first));
    assert_eq!(seen.spiffe_id.as_deref(), Some(SVID));
    // Half of its life later.
    let second = wait_serial(&agent, Some(&first));
    scene.controller.kill();
    wait_complains(&agent, "the controller cannot be reached");
    let kept = agent.certs().certificate(POD).clone();
    assert_eq!(kept.serial.as_deref(), Some(&*second), "it is kept");
    // Its keys were never on a disk.
    let text = std::process::Command::new("grep")
        .args(["-rlE", "BEGIN (EC )?PRIVATE"])
        .arg(agent.run_dir())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&text.stdout), "");
}

#[test]
fn another_root_reaches_agents_at_once() {
    let scene = Scene::new(|settings| settings["identity"]["distribute"] = json!("10s"));
    let agent = scene.agent();
    let first = wait_serial(&agent, None);
    let roots = |agent: &Agent| {
        let certs = agent.certs();
        certs.authorities(POD, TRUST_DOMAIN).map_or(0, |authorities| authorities.len())
    };
    assert_eq!(roots(&agent), 1);
    let mut secret = scene.api.get(Kind::Secret, "sheath-system/sheath-ca").unwrap();
    secret["metadata"]["annotations"] = json!({"sheath.dev/rotate-root": "because"});
    scene.api.put(Kind::Secret, secret);
    wait::wait_until("both roots", GENEROUS, || roots(&agent) == 2);
    assert_eq!(
        agent.certs().certificate(POD).serial.as_deref(),
        Some(&*first),
        "no need for another"
    );
}

#[test]
fn an_agent_with_other_roots_does_not_take_it_for_the_controller() {
    let scene = Scene::new(|_| {});
    let own = std::fs::read_to_string(&scene.roots).unwrap();
    let stranger = Ca::stranger(TRUST_DOMAIN);
    controller::write(scene.world.dir.path(), "roots.pem", stranger.certificate_pem());
    let agent = scene.agent();
    wait_complains(&agent, "is not the controller");
    wait_complains(&agent, "are the roots in");
    assert_eq!(scene.api.reviews(), 0, "it has shown its token to a stranger");
    let check = agent.sheath_check();
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("is not the controller") && !check.status.success(), "{said}");
    // As soon as they are right.
    controller::write(scene.world.dir.path(), "roots.pem", &own);
    wait_serial(&agent, None);
    let said = String::from_utf8_lossy(&agent.sheath_check().stdout).into_owned();
    assert!(said.contains("takes this agent's token"), "{said}");
}

#[test]
fn what_keeps_a_pod_from_its_identity_is_told_and_ends_when_it_ends() {
    let scene = Scene::new(|_| {});
    let dir = scene.world.dir.path();
    std::fs::remove_file(&scene.token).unwrap();
    let agent = scene.agent();
    wait_complains(&agent, "cannot read the agent's token");
    controller::write(dir, "token", "");
    wait_complains(&agent, "has no token in it");
    controller::write(dir, "token", "of somebody else");
    wait_complains(&agent, "does not accept the agent's token");
    controller::know_agent(&scene.api, "node-b", "of node b");
    controller::write(dir, "token", "of node b");
    // Roots are everybody's. The pod is another node's.
    wait_complains(&agent, "there is no pod with the uid");
    controller::write(dir, "token", "token");
    wait_serial(&agent, None);
}

#[test]
fn an_agent_finds_the_replica_that_leads() {
    let mut scene = Scene::new(|_| {});
    let two = Controller::start(&scene.api, &scene.world.a.netns, "two", |_| {});
    // Its address is that of a replica which does not lead.
    let one = std::mem::replace(&mut scene.controller, two);
    let agent = scene.agent();
    wait_serial(&agent, None);
    drop(one);
    wait::wait_until("the other leads", GENEROUS, || {
        controller::holder(&scene.api) == Some(scene.controller.identity())
    });
    agent.wait_for_certificate(POD, "no complaint", |seen| seen.problem.is_none());
}
