//! Pods whose identities are SPIRE's: the controller still says who is where.

use sheath_tests::ca::Ca;
use sheath_tests::config::Identity;
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, any, client, say, server};
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Job, Step};
use sheath_tests::spire::{Entry, SpireAgent, Subject};
use sheath_tests::tap::Tap;
use sheath_tests::world::{Family, TRUST_DOMAIN};

use crate::cluster_directory::{Cluster, uid};

#[test]
fn pods_prove_the_identities_that_spire_gives_them_by_uid_or_by_service_account() {
    let spire = SpireAgent::start();
    let root = Ca::named("root of spire", TRUST_DOMAIN);
    spire.set_bundles(&[("spiffe://example.org", &[root.certificate()])]);
    let id = |number: u8| format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/account-{number}");
    let (caller_svid, web_svid) = (root.issue(&id(2)), root.issue(&id(3)));
    // As SPIRE's controller manager writes entries, and as people do.
    let by_uid = format!("k8s:pod-uid:{}", uid(2));
    spire.register("caller", Entry::new(Subject::selectors(&[&by_uid]), &caller_svid));
    let by_account = Subject::selectors(&["k8s:ns:shop", "k8s:sa:account-3"]);
    spire.register("web", Entry::new(by_account, &web_svid));
    let cluster = Cluster::with(|config| config.identity = Identity::spire(&spire.socket()));
    cluster.namespace("shop", Some("require"));
    let (caller, web) = (cluster.run("shop", 2), cluster.run("shop", 3));
    let tap = Tap::new(&cluster.world.a.netns, "pod3");
    let _echo = Probe::start(&web.place(), &server(any(Family::V4, PORT), &[Step::Echo]));
    let _idle = Probe::start(&caller.place(), &Job::Idle);
    cluster.agent.wait_for_svid("shop/pod-2", &caller_svid);
    cluster.agent.wait_for_svid("shop/pod-3", &web_svid);
    cluster.wait_for("both are protected", [0, 0, 2]);
    let text = marker();
    let to = web.pod.addresses.at(Family::V4, PORT);
    let call = || probe::run(&caller.place(), &client(to, &say(&text)));
    let seen = call();
    assert_eq!((seen.ended_by(), seen.last().text.as_str()), (None, text.as_str()), "{seen:?}");
    assert_ciphertext(&tap, PORT, &text);
    let access = cluster.agent.wait_for_access("the flow", |access| {
        access.is("outbound", "ok") && access.local_id == id(2)
    });
    assert_eq!(access.peer_id, id(3));
    assert_eq!(cluster.agent.status().workload("shop/pod-3").identity.source, "spire");
    // Nobody else has the entry of a pod, and one without an entry is nobody.
    spire.unregister("web");
    cluster.agent.wait_for_status("the identity to be withdrawn", |status| {
        status.workload("shop/pod-3").identity.problem.contains("has no SVID")
    });
    assert!(call().ended_by().is_some(), "it is served without an identity");
}
