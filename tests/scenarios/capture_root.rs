//! Promise 1 when the cgroup that the programs are attached to is removed and made anew: nobody in the new one speaks in
//! the clear, whether an agent runs or not, and a running one attaches to it.

use std::process::Stdio;
use std::sync::Arc;

use sheath_tests::agent::Agent;
use sheath_tests::binaries;
use sheath_tests::cgroup::Cgroup;
use sheath_tests::config::Select;
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, Setting, any, client, configs, say, server};
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Event, Job, Socket, Step, Try};
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{FAMILIES, Family, World};

const OPEN_PORT: u16 = 9090;
const TRIES: usize = 10;

/// A node whose agent captures `slice` below the node's cgroup, and one with the usual server.
struct Scene {
    agent: Agent,
    _server: Agent,
    /// Taken out while there is none.
    slice: Option<Arc<Cgroup>>,
    world: World,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let (mut a, b) = configs(&world, Setting::Host);
        a.capture.cgroup += "/slice";
        a.workloads[0] = a.workloads[0].clone().inbound("strict", Some(&[PORT]), &["nobody"]);
        a.workloads[0].select = Select::Cgroup(format!("{}/client*", a.capture.cgroup));
        let slice = Some(world.a.cgroup.child("slice"));
        let agent = Agent::start(&world, &world.a, a);
        let server = Agent::start(&world, &world.b, b);
        Self { agent, _server: server, slice, world }
    }

    /// As a service manager does when the last unit of a slice stops and the next one starts.
    fn make_anew(&mut self) {
        self.slice = None;
        self.slice = Some(self.world.a.cgroup.child("slice"));
    }

    fn slice(&self) -> &Arc<Cgroup> {
        self.slice.as_ref().unwrap()
    }

    /// A process that makes a cgroup in the slice, moves there and connects at once.
    fn newborn(&self, family: Family, secret: &str) -> Vec<Try> {
        let job = Job::Newborn {
            cgroup: self.slice().path().join("client"),
            to: self.world.b.addresses.at(family, OPEN_PORT),
            text: secret.to_owned(),
            tries: TRIES,
        };
        let mut probe = Probe::start(&self.world.a.host(&format!("cradle-{family:?}")), &job);
        let attempt = |event: &Event| match event {
            Event::Try(attempt) => Some(attempt.clone()),
            _ => None,
        };
        (0..TRIES).map(|_| probe.expect("a newborn's try", GENEROUS, attempt)).collect()
    }

    /// A process of a workload in the slice listens, if it can, and a stranger connects.
    fn assert_nobody_answers(&self, family: Family, secret: &str) {
        let steps = [Step::Send(secret.to_owned()), Step::ReceiveToEnd];
        let job = serde_json::to_string(&server(any(family, PORT), &steps)).unwrap();
        let place = Place::new(&self.world.a.netns, &self.slice().child("client-server"));
        let mut app = place.command(binaries::probe());
        app.arg(job).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _app = place.spawn(&mut app);
        let socket = Socket { connect_limit: Some(500), ..Socket::default() };
        let to = self.world.a.addresses.at(family, PORT);
        let job = Job::Client { socket, to, steps: say("let me in") };
        let stranger = self.world.b.host(&format!("stranger-{family:?}"));
        for _ in 0..3 {
            let seen = probe::run(&stranger, &job);
            assert!(seen.ended_by().is_some(), "{family:?}: {seen:?}");
        }
    }
}

#[test]
fn nobody_in_a_capture_root_that_was_made_anew_speaks_in_the_clear() {
    for alive in [true, false] {
        let mut scene = Scene::new();
        let open = scene.world.b.host("open");
        let _open =
            FAMILIES.map(|f| Probe::start(&open, &server(any(f, OPEN_PORT), &[Step::Echo])));
        let tap = scene.world.tap();
        let (secret, exposed) = (marker(), marker());
        if !alive {
            scene.agent.kill();
        }
        for family in FAMILIES {
            scene.make_anew();
            let tries = scene.newborn(family, &exposed);
            let context = format!("alive: {alive}, {family:?}");
            assert!(tries.iter().all(|attempt| attempt.error.is_some()), "{context}: {tries:?}");
            scene.assert_nobody_answers(family, &exposed);
        }
        if !alive {
            scene.agent.launch();
        }
        // And it is served.
        let app = Place::new(&scene.world.b.netns, &scene.world.b.host("web").cgroup);
        let _echo = Probe::start(&app, &server(any(Family::V4, PORT), &[Step::Echo]));
        let place = Place::new(&scene.world.a.netns, &scene.slice().child("client-later"));
        let to = scene.world.b.addresses.at(Family::V4, PORT);
        wait::wait_until("the new slice to be served", GENEROUS, || {
            probe::run(&place, &client(to, &say(&secret))).last().text == secret
        });
        let status = scene.agent.status();
        assert!(status.programs.iter().all(|program| program.observed), "{status:#?}");
        for text in [&exposed, &secret] {
            assert_eq!(tap.sightings(text), 0, "alive: {alive}: plaintext on the wire");
        }
    }
}

/// Between the two there is nothing that the programs could be in force for, and status says so.
#[test]
fn a_capture_root_that_is_gone_is_told_of() {
    let mut scene = Scene::new();
    scene.slice = None;
    scene.agent.wait_for_status("programs that are not in force", |status| {
        status.programs.iter().any(|program| !program.observed)
    });
    scene.agent.wait_for_log("WARN", "capture.cgroup has been removed");
    scene.make_anew();
    scene.agent.wait_for_status("all programs in force", |status| {
        status.programs.iter().all(|program| program.observed)
    });
}
