//! Identities from files: read again however they change, and not taken when they are broken. Which certificate is in use
//! is seen on the wire.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sheath_tests::agent::Agent;
use sheath_tests::ca::{Ca, Leaf, PemFiles, San};
use sheath_tests::config::{Config, Identity, Select, WorkloadIdentity, spiffe_id};
use sheath_tests::live::LiveFlow;
use sheath_tests::names;
use sheath_tests::pair::{Pair, Setting, client, say};
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Job, Step};
use sheath_tests::shown;
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{Family, TRUST_DOMAIN};
use tempfile::TempDir;

/// How often the agent looks at files without being told.
const POLL: Duration = Duration::from_secs(20);

/// The usual scene with identities from files: `<dir>/client` and `<dir>/web`.
struct Scene {
    pair: Pair,
    root: Ca,
    dir: TempDir,
    _echo: Probe,
}

impl Scene {
    /// Good files on both sides, written by `write`.
    fn new(write: fn(&Path, &Leaf, &Ca)) -> Self {
        Self::with(write, |_, _, _| {})
    }

    #[track_caller]
    fn with(
        write: fn(&Path, &Leaf, &Ca),
        change: impl FnOnce(&mut Config, &mut Config, &Path),
    ) -> Self {
        let dir = tempfile::tempdir().expect("a directory for identities");
        let root = Ca::named("root 1", TRUST_DOMAIN);
        for name in ["client", "web"] {
            let files = dir.path().join(name);
            fs::create_dir(&files).unwrap();
            write(&files, &root.issue(&spiffe_id(name)), &root);
        }
        let pair = Pair::with(Setting::Host, |a, b| {
            for config in [&mut *a, &mut *b] {
                config.identity = Identity::files(dir.path());
            }
            change(a, b, dir.path());
        });
        let echo = pair.serve(Family::V4, &[Step::Echo]);
        Self { pair, root, dir, _echo: echo }
    }

    /// The directory of the server workload.
    fn web(&self) -> PathBuf {
        self.dir.path().join("web")
    }

    /// What the server workload shows.
    #[track_caller]
    fn shown(&self) -> rustls::pki_types::CertificateDer<'static> {
        shown::by_server(&self.pair, &self.root.issue(&spiffe_id("client")))
    }

    fn live_flow(&self) -> LiveFlow {
        LiveFlow::start(&self.pair.client, self.pair.target(Family::V4))
    }
}

/// Writes a file as it is.
fn put(path: &Path, text: &str) {
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(path).expect("a file");
    file.write_all(text.as_bytes()).expect("writing a file");
}

/// In place: truncated, and written again.
fn in_place(dir: &Path, leaf: &Leaf, root: &Ca) {
    put(&dir.join("tls.key"), leaf.key_pem());
    put(&dir.join("tls.crt"), leaf.certificate_pem());
    put(&dir.join("ca.crt"), root.certificate_pem());
}

/// Under another name first, and then renamed: each file is the old or the new one at any time.
fn renamed(dir: &Path, leaf: &Leaf, root: &Ca) {
    for (name, text) in [
        ("tls.key", leaf.key_pem()),
        ("tls.crt", leaf.certificate_pem()),
        ("ca.crt", root.certificate_pem()),
    ] {
        let new = dir.join(format!(".{name}.new"));
        put(&new, text);
        fs::rename(new, dir.join(name)).expect("renaming a file");
    }
}

/// As the kubelet does with the volume of a Secret: everything at once, by one symbolic link.
fn swapped(dir: &Path, leaf: &Leaf, root: &Ca) {
    let data = dir.join("..data");
    let old = fs::read_link(&data).ok();
    let version = format!("..{}", names::unique());
    fs::create_dir(dir.join(&version)).expect("a directory of this version");
    in_place(&dir.join(&version), leaf, root);
    let new = dir.join("..data_tmp");
    symlink(&version, &new).expect("a symbolic link");
    fs::rename(new, &data).expect("the swap");
    for name in ["tls.key", "tls.crt", "ca.crt"] {
        // Kept from the first time on.
        let _ = symlink(Path::new("..data").join(name), dir.join(name));
    }
    if let Some(old) = old {
        fs::remove_dir_all(dir.join(old)).expect("the version before");
    }
}

#[test]
fn files_written_in_place_are_read_again() {
    files_are_read_again(in_place);
}

#[test]
fn files_that_are_renamed_are_read_again() {
    files_are_read_again(renamed);
}

#[test]
fn a_kubernetes_volume_is_read_again_when_it_swaps() {
    files_are_read_again(swapped);
}

fn files_are_read_again(write: fn(&Path, &Leaf, &Ca)) {
    let scene = Scene::new(write);
    let pair = &scene.pair;
    let flow = scene.live_flow();
    let started = Instant::now();
    for _ in 0..3 {
        let (client, web) =
            (scene.root.issue(&spiffe_id("client")), scene.root.issue(&spiffe_id("web")));
        write(&scene.dir.path().join("client"), &client, &scene.root);
        write(&scene.web(), &web, &scene.root);
        pair.agent_a.wait_for_svid("client", &client);
        pair.agent_b.wait_for_svid("web", &web);
        assert_eq!(shown::by_client(pair, &web), client.chain[0]);
        assert_eq!(shown::by_server(pair, &client), web.chain[0]);
        pair.assert_served();
    }
    assert!(started.elapsed() < POLL, "found by looking, not told");
    flow.finish();
    let shown = pair.agent_b.certs().certificate("web").clone();
    assert_eq!((shown.kind.as_str(), shown.source.as_str()), ("workload", "files"), "{shown:?}");
    assert_eq!(pair.agent_b.status().workload("web").identity.source, "files");
}

/// Changes where the kernel does not tell: the file itself is somewhere else.
#[test]
fn what_nobody_tells_is_found_by_looking() {
    let scene = Scene::new(|dir, leaf, root| {
        let elsewhere = dir.parent().unwrap().join(format!("{}-files", leaf.serial()));
        fs::create_dir(&elsewhere).unwrap();
        in_place(&elsewhere, leaf, root);
        for name in ["tls.key", "tls.crt", "ca.crt"] {
            symlink(elsewhere.join(name), dir.join(name)).unwrap();
        }
    });
    let next = scene.root.issue(&spiffe_id("web"));
    let files = fs::read_link(scene.web().join("tls.crt")).unwrap();
    in_place(files.parent().unwrap(), &next, &scene.root);
    scene.pair.agent_b.wait_for_svid("web", &next);
    assert_eq!(scene.shown(), next.chain[0]);
}

/// A way to break an identity, and words of the reason.
type Damage = (&'static str, Box<dyn Fn(&Path, &Scene)>, &'static str);

fn damages() -> Vec<Damage> {
    fn damage(
        name: &'static str,
        reason: &'static str,
        work: impl Fn(&Path, &Scene) + 'static,
    ) -> Damage {
        (name, Box::new(work), reason)
    }
    /// The certificate and key of another leaf, the bundle as it is.
    fn replace(dir: &Path, leaf: &Leaf) {
        put(&dir.join("tls.key"), leaf.key_pem());
        put(&dir.join("tls.crt"), leaf.certificate_pem());
    }
    let mode = |mode| {
        move |dir: &Path, _: &Scene| {
            fs::set_permissions(dir.join("tls.key"), Permissions::from_mode(mode)).unwrap();
        }
    };
    vec![
        damage("garbage for a certificate", "tls.crt: no certificate", |dir, _| {
            put(&dir.join("tls.crt"), "garbage\n");
        }),
        damage("half a certificate", "tls.crt: malformed PEM", |dir, _| {
            let text = fs::read_to_string(dir.join("tls.crt")).unwrap();
            put(&dir.join("tls.crt"), &text[..text.len() / 2]);
        }),
        damage("a certificate that is none", "certificate 1 in it cannot be parsed", |dir, _| {
            let text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
            put(&dir.join("tls.crt"), text);
        }),
        damage("an empty certificate", "tls.crt: no certificate", |dir, _| {
            put(&dir.join("tls.crt"), "");
        }),
        damage("garbage for a key", "tls.key: no private key", |dir, _| {
            put(&dir.join("tls.key"), "garbage\n");
        }),
        damage("two keys", "tls.key: more than one private key", |dir, _| {
            let text = fs::read_to_string(dir.join("tls.key")).unwrap();
            put(&dir.join("tls.key"), &text.repeat(2));
        }),
        damage(
            "a key of another certificate",
            "does not belong to the certificate",
            |dir, scene| {
                put(&dir.join("tls.key"), scene.root.issue(&spiffe_id("web")).key_pem());
            },
        ),
        damage("expired", "has expired", |dir, scene| {
            replace(dir, &scene.root.issue_expired(&spiffe_id("web")));
        }),
        damage("not valid yet", "is not valid yet", |dir, scene| {
            replace(dir, &scene.root.issue_for_later(&spiffe_id("web")));
        }),
        damage("another SPIFFE ID", "sa/somebody-else, not of spiffe://", |dir, scene| {
            replace(dir, &scene.root.issue(&spiffe_id("somebody-else")));
        }),
        damage("no SPIFFE ID", "no X.509-SVID of", |dir, scene| {
            replace(dir, &scene.root.issue_named(&[San::dns("web.example.org")]));
        }),
        damage("a key for the group", "mode 0640", mode(0o640)),
        damage("a key for everybody", "mode 0604", mode(0o604)),
        damage("no certificate", "cannot read", |dir, _| {
            fs::remove_file(dir.join("tls.crt")).unwrap();
        }),
        damage("no key", "cannot read", |dir, _| {
            fs::remove_file(dir.join("tls.key")).unwrap();
        }),
        damage("no directory", "cannot read", |dir, _| fs::remove_dir_all(dir).unwrap()),
        damage("garbage for a bundle", "ca.crt: no certificate", |dir, _| {
            put(&dir.join("ca.crt"), "garbage\n");
        }),
    ]
}

#[test]
fn a_broken_update_is_refused_and_what_was_there_stays() {
    let scene = Scene::new(in_place);
    let pair = &scene.pair;
    let mut flow = scene.live_flow();
    let mut good = scene.root.issue(&spiffe_id("web"));
    in_place(&scene.web(), &good, &scene.root);
    for (name, work, reason) in damages() {
        pair.agent_b.wait_for_svid("web", &good);
        let logged = pair.agent_b.log_lines().len();
        work(&scene.web(), &scene);
        let shown = pair.agent_b.wait_for_certificate("web", name, |shown| shown.complains(reason));
        assert_eq!(shown.state, "stale", "{name}: {shown:?}");
        assert_eq!(shown.serial.as_deref(), Some(good.serial()), "{name}: {shown:?}");
        assert_told(&pair.agent_b, name, reason, logged);
        assert_eq!(scene.shown(), good.chain[0], "{name}: another certificate is shown");
        pair.assert_served();
        flow.assert_alive();

        good = scene.root.issue(&spiffe_id("web"));
        fs::create_dir_all(scene.web()).unwrap();
        let _ = fs::remove_file(scene.web().join("tls.key"));
        in_place(&scene.web(), &good, &scene.root);
    }
    pair.agent_b.wait_for_svid("web", &good);
    assert_eq!(scene.shown(), good.chain[0]);
    assert_eq!(pair.agent_b.status().workload("web").identity.problem, "");
    flow.finish();
}

/// The log, `sheath status` and `sheath certs`, for people and for programs.
#[track_caller]
fn assert_told(agent: &Agent, name: &str, reason: &str, logged: usize) {
    let is_told = |line: &String| line.contains("\"ERROR\"") && line.contains(reason);
    assert!(agent.log_lines()[logged..].iter().any(is_told), "{name}: the log is silent");
    let status = agent.status();
    assert!(status.workload("web").identity.problem.contains(reason), "{name}: {status:#?}");
    for command in ["status", "certs"] {
        let output = agent.sheath(command, &[]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(reason), "{name}: no {reason:?} in sheath {command}:\n{text}");
    }
}

/// There is nothing to keep: nothing passes until the files are as they should be.
#[test]
fn an_agent_starts_with_broken_files() {
    let scene = Scene::new(|dir, leaf, root| {
        if !dir.ends_with("web") {
            in_place(dir, leaf, root);
        }
    });
    let pair = &scene.pair;
    let shown = pair.agent_b.certs().certificate("web").clone();
    assert_eq!(shown.state, "missing", "{shown:?}");
    assert!(shown.complains("tls.key"), "{shown:?}");
    pair.assert_refused();
    let line = pair.agent_b.wait_for_access("the refusal", |line| line.stage == "identity");
    assert!(line.reason.contains("tls.key"), "{line:?}");
    let good = scene.root.issue(&spiffe_id("web"));
    renamed(&scene.web(), &good, &scene.root);
    pair.agent_b.wait_for_svid("web", &good);
    pair.assert_served();
}

#[test]
fn an_identity_lasts_until_it_expires() {
    let scene = Scene::new(in_place);
    let pair = &scene.pair;
    let flow = scene.live_flow();
    let short = scene.root.issue_short(&spiffe_id("web"), Duration::from_secs(8));
    in_place(&scene.web(), &short, &scene.root);
    let shown = pair.agent_b.wait_for_certificate("web", "expiry", |seen| seen.state == "expired");
    assert_eq!(shown.serial.as_deref(), Some(short.serial()), "{shown:?}");
    assert!(shown.complains("has expired"), "{shown:?}");
    pair.assert_refused();
    let line = pair.agent_b.wait_for_access("the refusal", |line| line.stage == "identity");
    assert!(line.reason.contains("has expired"), "{line:?}");
    let status = pair.agent_b.status();
    assert!(status.workload("web").identity.problem.contains("has expired"), "{status:?}");
    // Who has proved himself in time need not do so again.
    flow.finish();
    let next = scene.root.issue(&spiffe_id("web"));
    in_place(&scene.web(), &next, &scene.root);
    pair.agent_b.wait_for_svid("web", &next);
    pair.assert_served();
}

#[test]
fn a_readable_key_is_taken_if_that_is_said() {
    let scene = Scene::with(
        |dir, leaf, root| {
            in_place(dir, leaf, root);
            fs::set_permissions(dir.join("tls.key"), Permissions::from_mode(0o644)).unwrap();
        },
        |a, b, dir| {
            for (config, name, allow) in [(a, "client", false), (b, "web", true)] {
                config.workloads[0].identity = Some(files(&dir.join(name), allow));
            }
        },
    );
    let shown = scene.pair.agent_a.certs().certificate("client").clone();
    assert_eq!(shown.state, "missing", "{shown:?}");
    assert!(shown.complains("mode 0644") && shown.complains("allowReadableKey"), "{shown:?}");
    scene.pair.assert_refused();
    // The server's is in use.
    assert_eq!(scene.pair.agent_b.certs().certificate("web").state, "ok");
    scene.shown();
}

fn files(dir: &Path, allow_readable_key: bool) -> WorkloadIdentity {
    WorkloadIdentity::Files {
        pair: PemFiles { certificate: dir.join("tls.crt"), key: dir.join("tls.key") },
        bundle: Some(dir.join("ca.crt")),
        allow_readable_key,
    }
}

/// A bundle by default may be left out; one that is named, or was there before, must be there.
#[test]
fn a_bundle_that_goes_is_missed() {
    let scene = Scene::with(in_place, |a, _, dir| {
        a.workloads[0].identity = Some(files(&dir.join("client"), false));
    });
    let pair = &scene.pair;
    for (agent, name) in [(&pair.agent_a, "client"), (&pair.agent_b, "web")] {
        let bundle = scene.dir.path().join(name).join("ca.crt");
        let aside = scene.dir.path().join("aside");
        fs::rename(&bundle, &aside).unwrap();
        let shown = agent.wait_for_certificate(name, "the reason", |shown| {
            shown.complains("cannot read") && shown.complains("ca.crt")
        });
        assert_eq!(shown.state, "stale", "{shown:?}");
        pair.assert_served();
        fs::rename(&aside, &bundle).unwrap();
        agent.wait_for_certificate(name, "the bundle again", |shown| shown.state == "ok");
    }
}

#[test]
fn without_a_bundle_nobody_is_believed() {
    let scene = Scene::new(|dir, leaf, root| {
        in_place(dir, leaf, root);
        if dir.ends_with("client") {
            fs::remove_file(dir.join("ca.crt")).unwrap();
        }
    });
    let pair = &scene.pair;
    let certs = pair.agent_a.certs();
    assert_eq!(certs.certificate("client").state, "ok", "{certs:?}");
    assert_eq!(certs.authorities("client", TRUST_DOMAIN), None);
    pair.assert_refused();
    let line = pair.agent_a.wait_for_access("the refusal", |line| line.outcome == "denied");
    assert!(line.reason.contains("there is no bundle for the trust domain of"), "{line:?}");
    scene.root.write_certificate(&scene.dir.path().join("client/ca.crt"));
    wait::wait_until("the bundle", GENEROUS, || {
        pair.agent_a.certs().authorities("client", TRUST_DOMAIN).is_some()
    });
    pair.assert_served();
}

/// The bundle is a file like the others: another root is believed when it is there, the old one not any more when it
/// is gone.
#[test]
fn the_bundle_is_read_again_too() {
    let scene = Scene::new(in_place);
    let pair = &scene.pair;
    let flow = scene.live_flow();
    let next = Ca::named("root 2", TRUST_DOMAIN);
    let both = format!("{}{}", scene.root.certificate_pem(), next.certificate_pem());
    for name in ["client", "web"] {
        put(&scene.dir.path().join(name).join("ca.crt"), &both);
    }
    for (agent, name) in [(&pair.agent_a, "client"), (&pair.agent_b, "web")] {
        wait::wait_until("both roots to be believed", GENEROUS, || {
            let certs = agent.certs();
            certs.authorities(name, TRUST_DOMAIN).is_some_and(|roots| roots.len() == 2)
        });
    }
    let client = next.issue(&spiffe_id("client"));
    let files = scene.dir.path().join("client");
    put(&files.join("tls.key"), client.key_pem());
    put(&files.join("tls.crt"), client.certificate_pem());
    pair.agent_a.wait_for_svid("client", &client);
    let young = scene.live_flow();
    put(&scene.web().join("ca.crt"), next.certificate_pem());
    flow.wait_reset();
    let cut = pair.agent_b.wait_for_access("the old flow", |line| line.outcome == "revoked");
    assert!(cut.reason.contains("does not chain"), "{cut:?}");
    young.finish();
    pair.assert_served();
}

#[test]
fn a_chain_with_an_intermediate_is_shown_as_a_whole() {
    let scene = Scene::new(|dir, leaf, root| {
        if dir.ends_with("web") {
            in_place(dir, &root.intermediate("between").issue(&spiffe_id("web")), root);
        } else {
            in_place(dir, leaf, root);
        }
    });
    scene.pair.assert_served();
    let shown = scene.pair.agent_b.certs().certificate("web").clone();
    assert_eq!(shown.issuer.as_deref(), Some("CN=between"), "{shown:?}");
}

/// The configuration names one source for all, and a workload may have another. A workload may be whoever its files say.
#[test]
fn a_workload_may_have_another_source_than_the_default() {
    let dir = tempfile::tempdir().expect("a directory for identities");
    let other_id = spiffe_id("other");
    let pair = Pair::with(Setting::Host, |a, b| {
        let root = Ca::load(a.ca_dir(), 1);
        let files = dir.path().join("other");
        fs::create_dir(&files).unwrap();
        in_place(&files, &root.issue(&other_id), &root);
        a.identity.source = Some("files");
        a.identity.files = Identity::files(dir.path()).files;
        let mut other = a.workloads[0].clone();
        other.name = "other".to_owned();
        other.spiffe_id = None;
        other.select = Select::Cgroup(format!("{}/other*", a.capture.cgroup));
        a.workloads.push(other);
        a.workloads[0].identity = Some(WorkloadIdentity::Ca { svid_ttl: "10m" });
        let inbound = b.workloads[0].inbound.as_mut().unwrap();
        inbound.allow.push(other_id.clone());
    });
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let certs = pair.agent_a.certs();
    for (name, source, id) in
        [("client", "ca", spiffe_id("client")), ("other", "files", other_id.clone())]
    {
        let shown = certs.certificate(name);
        assert_eq!((shown.source.as_str(), shown.state.as_str()), (source, "ok"), "{shown:?}");
        assert_eq!(shown.spiffe_id, Some(id), "{shown:?}");
        assert_eq!(pair.agent_a.status().workload(name).identity.source, source);
    }
    pair.assert_served();
    let other = pair.world.a.host("other");
    let _resident = Probe::start(&other, &Job::Idle);
    pair.agent_a.wait_enrolled("other", &other);
    let seen = probe::run(&other, &client(pair.target(Family::V4), &say("hello")));
    assert_eq!((seen.ended_by(), seen.last().text.as_str()), (None, "hello"), "{seen:?}");
    pair.agent_b.wait_for_access("the other's flow", |line| line.peer_id == other_id);
}

/// After a reload, what the source before has given stays until the new one has something, as long as it is for the same
/// SPIFFE ID.
#[test]
fn another_source_takes_over_without_a_gap() {
    let mut scene = Scene::new(in_place);
    let mut flow = scene.live_flow();
    let elsewhere = scene.dir.path().join("elsewhere");
    let before = scene.pair.agent_b.certs().certificate("web").serial.clone();
    let identity = files(&elsewhere, false);
    let agent = &mut scene.pair.agent_b;
    let output = agent.reload(|config| config.workloads[0].identity = Some(identity));
    assert!(output.status.success(), "{output:?}");
    let shown = agent.wait_for_certificate("web", "the reason", |shown| {
        shown.complains("cannot read") && shown.complains("elsewhere")
    });
    assert_eq!((shown.state.as_str(), shown.serial), ("stale", before));
    flow.assert_alive();
    scene.pair.assert_served();

    let next = scene.root.issue(&spiffe_id("web"));
    fs::create_dir(&elsewhere).unwrap();
    renamed(&elsewhere, &next, &scene.root);
    scene.pair.agent_b.wait_for_svid("web", &next);
    assert_eq!(scene.shown(), next.chain[0]);
    flow.assert_alive();

    let agent = &mut scene.pair.agent_b;
    let other = spiffe_id("somebody-else");
    let output = agent.reload(|config| config.workloads[0].spiffe_id = Some(other));
    assert!(output.status.success(), "{output:?}");
    flow.wait_reset();
    let shown = agent.wait_for_certificate("web", "the reason", |shown| shown.complains("not of"));
    assert_eq!(shown.state, "missing", "{shown:?}");
    scene.pair.assert_refused();
}
