//! Two machines, set up by nothing but README.md's first configuration: nginx on host B, a service on host A that calls it.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use sheath_tests::names::marker;
use sheath_tests::status::Status;
use sheath_tests::vm::machine::{Machine, Plan, SHORT};
use sheath_tests::vm::readme::FirstConfiguration;
use sheath_tests::vm::wire::Wire;
use sheath_tests::wait;

use crate::package::PACKAGE;
use crate::setting::Setting;

/// The port that README.md's server listens on.
pub const PORT: u16 = 8080;
/// Its address.
pub const SERVER: &str = "http://10.0.2.1:8080/";

/// The configuration's file.
pub const FILE: &str = "/etc/sheath/sheath.yaml";

const README: &str = include_str!("../../../../README.md");

/// The machines and the wire between them.
pub struct Hosts {
    pub a: Machine,
    pub b: Machine,
    pub wire: Wire,
    pub first: FirstConfiguration,
    /// What the server answers, and clients say. Nobody may see it on the wire.
    pub secret: String,
}

impl Hosts {
    /// Boots both, and does what README.md says.
    #[track_caller]
    pub fn boot(setting: &Setting) -> Self {
        let wire = Wire::new();
        let plan = |name, number: u8| Plan {
            name,
            wire: Some((number, wire.end(usize::from(number) - 1))),
            memory_mib: 1024,
            processors: 1,
        };
        let start = |plan| Machine::start(&setting.images, &setting.kernel, setting.accel, &plan);
        let (mut a, mut b) = (start(plan("host-a", 1)), start(plan("host-b", 2)));
        for machine in [&mut a, &mut b] {
            machine.wait_up();
            machine.wait_running();
        }
        let first = FirstConfiguration::read(README);
        let mut hosts = Self { a, b, wire, first, secret: marker() };
        hosts.start_applications();
        hosts.follow_readme();
        hosts
    }

    /// nginx, and the unit of a client that starts later.
    #[track_caller]
    fn start_applications(&mut self) {
        let page = format!(
            "server {{
    listen 8080;
    listen [::]:8080;
    location / {{ default_type text/plain; return 200 \"{} $remote_addr:$remote_port\\n\"; }}
}}",
            self.secret
        );
        self.b.write("/etc/nginx/sites-available/default", &page);
        self.b.must("systemctl enable --now nginx");
        self.a.write("/etc/systemd/system/client.service", &client_unit("", &self.secret));
    }

    /// Everything that README.md says, in its words.
    #[track_caller]
    fn follow_readme(&mut self) {
        let FirstConfiguration { authority, server, client, commands } = &self.first;
        for machine in [&mut self.a, &mut self.b] {
            machine.must(&format!("dpkg --install {PACKAGE}"));
        }
        self.a.must(authority);
        // "Copy the directory to the other host."
        let directory =
            self.a.must("tar --create --directory /var/lib/sheath ca | base64 --wrap 0");
        self.b.must(&format!("mkdir -p /var/lib/sheath && printf %s '{directory}' | base64 --decode | tar --extract --directory /var/lib/sheath"));
        self.a.write(FILE, client);
        self.b.write(FILE, server);
        for machine in [&mut self.a, &mut self.b] {
            machine.must(&format!("set -e\n{commands}"));
        }
        self.a.must("systemctl daemon-reload && systemctl enable --now client");
    }

    /// Puts README.md's configuration back, where it is not.
    #[track_caller]
    pub fn use_readme(&mut self) {
        let (client, server) = (self.first.client.clone(), self.first.server.clone());
        self.configure(&client, &server);
        self.a.must("systemctl start client");
    }

    /// Has both agents read these files.
    #[track_caller]
    pub fn configure(&mut self, client: &str, server: &str) {
        for (machine, text) in [(&mut self.a, client), (&mut self.b, server)] {
            machine.write(FILE, text);
            machine.must("systemctl reload sheath");
        }
    }

    #[track_caller]
    pub fn is_as_promised(&mut self) -> String {
        let mark = self.wire.mark();
        self.assert_served();
        self.assert_ciphertext(mark);
        for (machine, workload) in [(&mut self.a, "client"), (&mut self.b, "web")] {
            let status = status(machine);
            assert_eq!(status.workload(workload).state, "protected", "{status:#?}");
            assert!(status.problems.is_empty(), "{status:#?}");
        }
        // The server sees the client's address, and the client has it in its answer.
        let said = self.a.must("journalctl --unit client --output cat --lines 1");
        assert!(said.starts_with(&format!("{} 10.0.1.1:", self.secret)), "{said}");
        self.assert_stranger_refused();
        String::new()
    }

    /// The client unit has got two answers that it had not before.
    #[track_caller]
    pub fn assert_served(&mut self) {
        let before = self.answers();
        let mut now = before;
        let served = wait::try_for(SHORT, || {
            now = self.answers();
            (now >= before + 2).then_some(())
        });
        if served.is_none() {
            let said = self.a.must("journalctl --unit client --output cat --lines 5");
            panic!("the client has {before} answers, then {now}; last: {said}");
        }
    }

    /// Answers that the client unit has had since the machine has booted.
    #[track_caller]
    pub fn answers(&mut self) -> u64 {
        let script = format!(
            "journalctl --boot --unit client --output cat | grep -c '^{}' || :",
            self.secret
        );
        self.a.must(&script).parse().expect("a number")
    }

    /// A client on host A that is no workload gets nothing from the server.
    #[track_caller]
    pub fn assert_stranger_refused(&mut self) {
        let ended =
            self.a.run(&format!("curl --silent --show-error --max-time 20 {SERVER}"), SHORT);
        assert!(!ended.success() && !ended.stdout.contains(&self.secret), "{ended:?}");
    }

    /// Since then something has been sent to the server, and the secret has not been on the wire. Connections that were begun
    /// since are TLS from their first byte on; of others, which agents keep for the next request, only a part was seen.
    #[track_caller]
    pub fn assert_ciphertext(&self, mark: usize) {
        const HANDSHAKE: u8 = 22;
        self.assert_unseen(mark);
        let recording = self.wire.since(mark);
        let begun = recording.attempts(|to| to.port() == PORT);
        let streams = recording.streams_to(PORT);
        assert!(streams.iter().any(|stream| !stream.bytes.is_empty()), "nothing was sent");
        for stream in streams.iter().filter(|stream| begun.contains(&stream.source)) {
            let first = stream.bytes.first().copied();
            assert!(first.is_none_or(|byte| byte == HANDSHAKE), "{}: {first:?}", stream.source);
        }
    }

    /// Since then the secret has not been on the wire, whoever has spoken.
    #[track_caller]
    pub fn assert_unseen(&self, mark: usize) {
        assert_eq!(self.wire.since(mark).sightings(&self.secret), 0, "plaintext on the wire");
    }

    /// Runs a command on host A as a unit of its own, `job-*`; returns what it has said.
    #[track_caller]
    pub fn job(&mut self, name: &str, options: &str, command: &str) -> (bool, String) {
        let run = format!(
            "systemd-run --quiet --wait --pipe --collect --unit job-{name} {options} {command}"
        );
        let ended = self.a.run(&run, SHORT);
        (ended.success(), ended.stdout + &ended.stderr)
    }

    /// Prints the logs of both, and writes what was on the wire to a file.
    pub fn tell(&self, kernel: &str) {
        self.a.tell();
        self.b.tell();
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/vm");
        let file = target.join(format!("{kernel}.pcap"));
        match self.wire.save(&file) {
            Ok(()) => eprintln!("--- the wire is in {}", file.display()),
            Err(error) => eprintln!("--- {}: {error}", file.display()),
        }
    }
}

/// A call of the server that says the secret.
pub fn call(secret: &str) -> String {
    format!("curl --silent --show-error --max-time 20 --header 'X-Secret: {secret}' {SERVER}")
}

/// A unit that calls the server again and again.
pub fn client_unit(order: &str, secret: &str) -> String {
    let mut unit = format!("[Unit]\nDescription=Calls the web\n{order}\n");
    let call = call(secret).replace('\'', "\"");
    let _ = writeln!(unit, "[Service]\nExecStart=/bin/sh -c 'while :; do {call}; sleep 0.5; done'");
    unit.push_str("Restart=always\n\n[Install]\nWantedBy=multi-user.target\n");
    unit
}

/// What an agent says of itself.
#[track_caller]
pub fn status(machine: &mut Machine) -> Status {
    let text = machine.must("sheath status --output json");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// Waits until a workload is protected.
#[track_caller]
pub fn wait_protected(machine: &mut Machine, workload: &str) {
    let mut last = None;
    let limit = Duration::from_secs(120);
    let seen = wait::try_for(limit, || {
        let ended = machine.run("sheath status --output json", SHORT);
        let status: Status = serde_json::from_str(&ended.stdout).ok()?;
        let is_it =
            status.workloads.iter().any(|it| it.name == workload && it.state == "protected");
        last = Some(status);
        is_it.then_some(())
    });
    assert!(seen.is_some(), "{workload} is not protected within {limit:?}: {last:#?}");
}
