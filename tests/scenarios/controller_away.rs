//! The controller is away for longer than certificates live.

use std::time::{Duration, Instant};

use serde_json::json;
use sheath_tests::controller::Controller;
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, any, server};
use sheath_tests::probe::Probe;
use sheath_tests::script::{Job, Step};
use sheath_tests::tap::Tap;
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::Family;

use super::cluster_directory::{Cluster, call};

/// How long certificates live. They are renewed at half of it.
const LIFE: Duration = Duration::from_secs(20);

#[test]
fn pods_are_served_until_their_certificates_end_then_refused_and_served_again_with_the_controller()
{
    let life = |settings: &mut serde_json::Value| {
        settings["identity"]["svidTtl"] = json!(format!("{}s", LIFE.as_secs()));
        settings["identity"]["intermediateTtl"] = json!("10m");
    };
    let mut cluster = Cluster::under(|_| {}, life, |_| {});
    cluster.namespace("shop", Some("require"));
    let (caller, web) = (cluster.run("shop", 2), cluster.run("shop", 3));
    let tap = Tap::new(&cluster.world.a.netns, "pod3");
    let _echo = Probe::start(&web.place(), &server(any(Family::V4, PORT), &[Step::Echo]));
    let _idle = Probe::start(&caller.place(), &Job::Idle);
    cluster.wait_for("both are protected", [0, 0, 2]);
    let text = marker();
    let served = || {
        let seen = call(&caller, &web, &text);
        let heard = seen.last().text;
        assert!(heard.is_empty() || heard == text, "{heard}");
        seen.ended_by().is_none() && heard == text
    };
    assert!(served(), "before");

    let address = cluster.controller.address();
    cluster.controller.kill();
    let since = Instant::now();
    assert!(served(), "meanwhile");
    wait::wait_until("a refusal", 2 * LIFE, || !served());
    let took = since.elapsed();
    println!("refused {took:.1?} after the controller had ended");
    // They had half of their lives or more, if the machine was not too busy to renew them; and no more than the whole.
    let bounds = LIFE / 4..LIFE + Duration::from_secs(5);
    assert!(bounds.contains(&took), "{took:?}");
    for _ in 0..5 {
        assert!(!served(), "a certificate that has ended is used");
    }
    cluster.agent.wait_for_status("complaints", |status| {
        let mut pods = ["shop/pod-2", "shop/pod-3"].into_iter();
        pods.all(|pod| !status.workload(pod).identity.problem.is_empty())
    });

    let _next = Controller::start(&cluster.api, &cluster.world.a.netns, "two", |settings| {
        life(settings);
        for key in ["listen", "advertise"] {
            settings[key] = json!(address.to_string());
        }
    });
    wait::wait_until("both to be served again", 3 * GENEROUS, served);
    assert_eq!(tap.sightings(&text), 0, "plaintext on the wire");
}
