//! The client's agent is killed with SIGKILL while curl runs again and again.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::Family;

use crate::report::Report;
use crate::scene::Scene;

pub fn nothing_leaks(scene: &mut Scene, report: &mut Report) {
    let Scene { agent_a, prelude, .. } = scene;
    let tap = prelude.world.tap();
    let target = prelude.http(Family::V4);
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (fetch, failed_in) = thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let page = prelude.curl(&prelude.client, target).page;
                served.fetch_add(usize::from(page == prelude.secret), Ordering::Relaxed);
            }
        });
        let traffic =
            wait::try_for(GENEROUS, || (served.load(Ordering::Relaxed) >= 3).then_some(()));
        agent_a.kill();
        let killed = Instant::now();
        let fetch = prelude.curl(&prelude.client, target);
        let failed_in = killed.elapsed();
        assert!(traffic.is_some(), "curl was not served before the kill");
        (fetch, failed_in)
    });

    report.section("An agent killed with SIGKILL under traffic");
    let refused = fetch.page.is_empty() && !fetch.error.is_empty();
    let seen = format!("after {} ms: {}", failed_in.as_millis(), fetch.error);
    report.check("curl fails at once", refused && failed_in.as_secs() < 5, seen);

    let restarted = Instant::now();
    agent_a.launch();
    let fetch = prelude.curl(&prelude.client, target);
    let seen = format!("{} ms after the start", restarted.elapsed().as_millis());
    report.check("curl is served by the next agent", fetch.page == prelude.secret, seen);
    let sightings = tap.sightings(&prelude.secret);
    report.check("packets with the secret", sightings == 0, sightings.to_string());
}

/// Ends the traffic also when the demo is interrupted while it waits.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
