//! Somebody removes the pins of the maps: what is loaded afterwards still uses the maps that the agent writes.

use sheath_tests::hammer::Hammer;
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, Pair, SETTINGS, Setting, any, client, say, server};
use sheath_tests::pins;
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::Step;
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{FAMILIES, Family};

const OPEN_PORT: u16 = 9090;

/// A program of its own is loaded for each new namespace.
#[test]
fn namespaces_that_come_after_the_pins_of_maps_were_removed_are_served() {
    let pair = Pair::new(Setting::Pods);
    let tap = pair.world.tap();
    let secret = marker();
    let agents = [&pair.agent_a, &pair.agent_b];
    let removed = agents.map(|agent| pins::remove_maps(agent.instance()));
    assert!(removed.iter().all(|pins| !pins.is_empty()));
    for (index, family) in (20..).zip(FAMILIES) {
        let [a, b] = [&pair.world.a, &pair.world.b].map(|node| node.pod(index));
        let later = |node: &sheath_tests::world::Node, name, pod: &sheath_tests::world::Pod| {
            Place::new(&pod.netns, &node.host(&format!("{name}-{index}")).cgroup)
        };
        let app = later(&pair.world.b, "web", &b);
        let _echo = Probe::start(&app, &server(any(family, PORT), &[Step::Echo]));
        let caller = later(&pair.world.a, "client", &a);
        Hammer::start(&caller, b.addresses.at(family, PORT), &secret).succeed(3);
    }
    assert_ciphertext(&tap, PORT, &secret);
    for (agent, removed) in agents.into_iter().zip(removed) {
        wait::wait_until("the pins to be put back", GENEROUS, || {
            let now = pins::list(agent.instance());
            removed.iter().all(|pin| now.contains(pin))
        });
        agent.wait_for_log("WARN", "pins of maps");
    }
}

/// The agent starts anew, with the maps of the programs that are still in force, not with empty ones.
#[test]
fn pins_of_maps_that_are_removed_while_no_agent_runs_are_found_again() {
    for setting in SETTINGS {
        let mut pair = Pair::new(setting);
        let tap = pair.world.tap();
        let (secret, exposed) = (marker(), marker());
        let open = server(any(Family::V4, OPEN_PORT), &[Step::Echo]);
        let _open = Probe::start(&pair.world.b.host("open"), &open);
        let _echo = pair.serve(Family::V4, &[Step::Echo]);
        let mut protected = Hammer::start(&pair.client, pair.target(Family::V4), &secret);
        let to = pair.world.b.addresses.at(Family::V4, OPEN_PORT);
        let mut refused = Hammer::start(&pair.client, to, &exposed);
        protected.succeed(3);
        let before = pair.agent_a.status().counter("connect_protected");
        pair.agent_a.kill();
        assert!(!pins::remove_maps(pair.agent_a.instance()).is_empty());
        pair.agent_a.launch();
        protected.succeed(3);
        let after = pair.agent_a.status().counter("connect_protected");
        assert!(after > before, "{setting:?}: counted on from {before}: {after}");
        let tries = refused.so_far();
        assert!(tries.iter().all(|attempt| attempt.error.is_some()), "{setting:?}: {tries:?}");
        let late = Place::new(&pair.client.netns, &pair.world.a.host("client-later").cgroup);
        let seen = probe::run(&late, &client(to, &say(&exposed)));
        assert!(seen.ended_by().is_some(), "{setting:?}: {seen:?}");
        drop((protected, refused));
        assert_eq!(tap.sightings(&exposed), 0, "{setting:?}: plaintext on the wire");
        assert_ciphertext(&tap, PORT, &secret);
    }
}
