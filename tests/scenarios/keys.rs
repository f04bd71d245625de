//! Private keys stay where they are: not in logs, answers, files, core dumps or swap, and not in memory when they are
//! not needed any more. And what may be known of the certificates is shown.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use sheath_tests::agent::Agent;
use sheath_tests::binaries;
use sheath_tests::ca::{Ca, Leaf, PemFiles, sha256};
use sheath_tests::config::{
    Crl, Identity, Select, TlsContext, TrustDomain, Workload, WorkloadIdentity, spiffe_id,
};
use sheath_tests::live::LiveFlow;
use sheath_tests::pair::{Pair, Setting, client, configs, say};
use sheath_tests::place::Place;
use sheath_tests::probe;
use sheath_tests::script::Step;
use sheath_tests::secrets::Secrets;
use sheath_tests::spire::{Entry, SpireAgent, Subject};
use sheath_tests::status::Status;
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{Family, TRUST_DOMAIN, World};
use tempfile::TempDir;

const PARTNER: &str = "partner.org";

/// The usual scene, with keys from every source and a certificate with a name on the server's side, at level trace.
struct Scene {
    pair: Pair,
    root: Ca,
    spire: SpireAgent,
    dir: TempDir,
    web: Leaf,
    secrets: Secrets,
}

impl Scene {
    fn new() -> Self {
        let (spire, dir) = (SpireAgent::start(), tempfile::tempdir().unwrap());
        let root = Ca::named("root", TRUST_DOMAIN);
        let other = dir.path().join("other");
        Ca::init(&other, TRUST_DOMAIN);
        let context = Ca::private().issue("https://example.org/context");
        context.write(&dir.path().join("context"));
        let authorities = [root.certificate(), Ca::load(&other, 1).certificate()];
        spire.set_bundles(&[(TRUST_DOMAIN, &authorities)]);
        let [client, web] = ["client", "web"].map(|name| root.issue(&spiffe_id(name)));
        let mut secrets = Secrets::default()
            .and("the named certificate", &context)
            .and("from SPIRE", &client)
            .and("from files", &web);
        secrets.add("the CA", private_key(&other.join("ca.key")).secret_der());
        spire.register("client", Entry::new(Subject::selectors(&["unix:uid:0"]), &client));
        write(dir.path(), &web, &root);
        let pair = Pair::with(Setting::Host, |a, b| {
            for config in [&mut *a, &mut *b] {
                config.log.level = "trace";
            }
            a.identity = Identity::spire(&spire.socket());
            let selectors = vec!["unix:uid:0".to_owned()];
            a.workloads[0].identity = Some(WorkloadIdentity::Spire { selectors });
            b.identity = Identity::files(dir.path());
            b.identity.source = Some("files");
            b.identity.ca = Identity::ca(&other, Some("1h")).ca;
            b.workloads.push(Workload {
                select: Select::Cgroup(format!("{}/other*", b.capture.cgroup)),
                identity: Some(WorkloadIdentity::Ca { svid_ttl: "1h" }),
                ..Workload::new("other", "")
            });
            let files = PemFiles::in_dir(&dir.path().join("context"));
            b.tls_contexts = vec![TlsContext { name: "named".to_owned(), files }];
        });
        Self { pair, root, spire, dir, web, secrets }
    }
}

fn write(dir: &Path, leaf: &Leaf, root: &Ca) {
    leaf.write(&dir.join("web"));
    root.write_certificate(&dir.join("web/ca.crt"));
}

fn private_key(file: &Path) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(file).expect("a private key")
}

/// Everything below a directory.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(tree(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn keys_are_in_no_log_no_answer_and_no_file() {
    let mut scene = Scene::new();
    let echo = scene.pair.serve(Family::V4, &[Step::Echo]);
    scene.pair.assert_served();
    // Rotated, broken and mended: each has something to say.
    let [client, web] = ["client", "web"].map(|name| scene.root.issue(&spiffe_id(name)));
    let secrets =
        std::mem::take(&mut scene.secrets).and("from SPIRE", &client).and("from files", &web);
    let (pair, spire) = (&scene.pair, &scene.spire);
    let subject = Subject::selectors(&["unix:uid:0"]);
    spire.register("client", Entry::new(subject.clone(), &client));
    write(scene.dir.path(), &web, &scene.root);
    pair.agent_a.wait_for_svid("client", &client);
    pair.agent_b.wait_for_svid("web", &web);
    let mut broken = Entry::new(subject.clone(), &client);
    // Half a key is still half of one.
    broken.svids[0].key.truncate(100);
    spire.register("client", broken);
    let key = scene.dir.path().join("web/tls.key");
    let text = fs::read_to_string(&key).unwrap();
    for (damaged, reason) in [
        (text.repeat(2), "more than one private key"),
        (text.replace("-----END", "?-----END"), "malformed PEM"),
        (text.replace("PRIVATE KEY", "CERTIFICATE"), "no private key"),
        // What comes of it when it has been through a variable of a shell.
        (text.replace('\n', ""), "malformed PEM"),
        (text.replace('\n', "").replace("KEY-----", "KEY----"), "malformed PEM"),
    ] {
        fs::write(&key, damaged).unwrap();
        pair.agent_b.wait_for_certificate("web", reason, |seen| seen.complains(reason));
    }
    pair.agent_a.wait_for_certificate("client", "half a key", |seen| seen.complains("key"));
    let ca = pair.agent_b.config().ca_dir().join("ca.key");
    let ca_text = fs::read_to_string(&ca).unwrap();
    for file in [ca.clone(), ca.with_file_name("ca-2.crt")] {
        fs::write(&file, ca_text.replace('\n', "")).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        pair.agent_b.wait_for_certificate("other", name, |seen| seen.complains(name));
        fs::write(&ca, &ca_text).unwrap();
    }
    fs::remove_file(ca.with_file_name("ca-2.crt")).unwrap();
    pair.agent_b.wait_for_certificate("other", "a good CA", |seen| seen.state == "ok");
    fs::write(&key, text).unwrap();
    spire.register("client", Entry::new(subject, &client));
    pair.agent_a.wait_for_svid("client", &client);
    pair.agent_b.wait_for_svid("web", &web);
    pair.assert_served();
    drop(echo);

    for agent in [&pair.agent_a, &pair.agent_b] {
        let log = agent.log_lines();
        assert!(log.iter().any(|line| line.contains("\"level\":\"DEBUG\"")), "the level is on");
        secrets.assert_none("the log", log.join("\n").as_bytes());
        for command in ["status", "certs"] {
            for format in ["json", "text"] {
                let output = agent.sheath(command, &["--output", format]);
                assert!(output.status.success(), "{output:?}");
                secrets.assert_none(command, &output.stdout);
            }
        }
        let instance = agent.run_dir().join(agent.instance());
        let mode = fs::metadata(&instance).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} is for others: {mode:o}", instance.display());
        let files = tree(agent.run_dir());
        assert!(files.len() > 2, "{files:?}");
        for file in files.iter().filter(|file| file.is_file()) {
            assert_eq!(secrets.find(&fs::read(file).unwrap()), Vec::<&str>::new(), "{file:?}");
        }
    }
}

/// Not so a key from SPIRE, which was in buffers of the gRPC library, too: nobody wipes those.
#[test]
fn a_key_that_is_not_needed_any_more_is_gone_from_memory() {
    let scene = Scene::new();
    let pair = &scene.pair;
    let echo = pair.serve(Family::V4, &[Step::Echo]);
    let flow = LiveFlow::start(&pair.client, pair.target(Family::V4));
    let ca = pair.agent_b.config().ca_dir().to_owned();
    let pid = pair.agent_b.pid();
    let mut old = Secrets::default().and("the SVID's key", &scene.web);
    let in_use = old.in_memory(pid).len();
    assert!(in_use > 0, "a search that finds nothing");
    for (name, key) in
        [("the named certificate's", "context/tls.key"), ("the CA's", "other/ca.key")]
    {
        old.add(name, private_key(&scene.dir.path().join(key)).secret_der());
        assert!(old.in_memory(pid).len() > in_use, "a search that finds nothing");
    }
    let web = scene.root.issue(&spiffe_id("web"));
    write(scene.dir.path(), &web, &scene.root);
    Ca::private().issue("https://example.org/context").write(&scene.dir.path().join("context"));
    let other = pair.agent_b.certs().certificate("other").serial.clone();
    for arguments in [["rotate", "--overlap", "0s"], ["retire", "--force", "--after=0s"]] {
        let mut command = Command::new(binaries::sheath());
        let output = command.arg("ca").args(arguments).arg("--dir").arg(&ca).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    pair.agent_b.wait_for_svid("web", &web);
    pair.agent_b.wait_for_certificate("other", "an SVID of the new root", |seen| {
        seen.state == "ok" && seen.serial != other
    });
    pair.assert_served();
    // Sessions may keep what they have begun with.
    flow.finish();
    drop(echo);
    pair.agent_b.wait_for_status("no flow", Status::is_idle);
    let gone = wait::try_for(GENEROUS, || old.in_memory(pid).is_empty().then_some(()));
    assert!(gone.is_some(), "still there: {:?}", old.in_memory(pid));
}

/// A process that may dump its core has its files in /proc for its own group; one that may not, for root's.
#[test]
fn the_process_leaves_no_core_and_nothing_in_swap() {
    const GROUP: u32 = 4242;
    let world = World::new();
    let agent = Agent::prepare(&world, &world.a, configs(&world, Setting::Host).0);
    let log = world.dir.path().join("log");
    let mut command = agent.run_command();
    command.gid(GROUP).stdin(Stdio::null()).stderr(File::create(&log).unwrap());
    let place = Place::new(&world.a.netns, agent.cgroup());
    let process = place.spawn(&mut command);
    wait::wait_until("the agent's `ready`", GENEROUS, || {
        fs::read_to_string(&log).unwrap().contains("\"message\":\"ready\"")
    });
    let mut other = Command::new("sleep");
    let mut other = other.arg("600").gid(GROUP).spawn().unwrap();
    let group = |pid: u32| fs::metadata(format!("/proc/{pid}/status")).unwrap().gid();
    let groups = (group(other.id()), group(process.pid()));
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(groups, (GROUP, 0), "whoever may dump his core is known by his group");

    let proc = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", process.pid())).unwrap();
    let limits = proc("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
    let status = proc("status");
    let locked = status.lines().find(|line| line.starts_with("VmLck:")).unwrap();
    let locked: u64 = locked.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(locked > 0, "no memory is locked");
    assert_locked(&proc("smaps"));
}

/// All memory that the process alone writes to is locked (`lo`, proc_pid_smaps(5)).
#[track_caller]
fn assert_locked(smaps: &str) {
    let (mut mapping, mut checked) = ("", 0);
    for line in smaps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            if mapping.contains(" rw-p ") {
                checked += 1;
                assert!(flags.split(' ').any(|flag| flag == "lo"), "{mapping}:{flags}");
            }
        } else if line.split(' ').next().is_some_and(|word| word.contains('-')) {
            mapping = line;
        }
    }
    assert!(checked > 10, "{checked} mappings were looked at");
}

#[test]
fn sheath_certs_shows_what_may_be_known() {
    let dir = tempfile::tempdir().unwrap();
    let partner = Ca::named("the partner", PARTNER);
    let (bundle, crl) = (dir.path().join("partner.crt"), dir.path().join("partner.crl"));
    partner.write_certificate(&bundle);
    let revoked = partner.issue("spiffe://partner.org/bad");
    partner.write_crl(&[], &crl);
    let pair = Pair::with(Setting::Host, |_, b| {
        b.trust_domains = vec![TrustDomain {
            name: PARTNER.to_owned(),
            bundle: Some(bundle.clone()),
            crl: Some(Crl { files: vec![crl.clone()], unknown: "deny", expired: "deny" }),
        }];
    });
    let certs = pair.agent_b.certs();
    let web = certs.certificate("web").clone();
    assert_eq!((web.kind.as_str(), web.source.as_str()), ("workload", "ca"), "{web:?}");
    assert_eq!((web.state.as_str(), &web.problem), ("ok", &None), "{web:?}");
    assert_eq!(web.spiffe_id, Some(spiffe_id("web")));
    assert_eq!(web.issuer.as_deref(), Some("CN=Sheath CA of example.org"));
    let facts = [&web.serial, &web.sha256, &web.not_before, &web.not_after, &web.next_renewal];
    assert!(facts.iter().all(|fact| fact.as_ref().is_some_and(|text| !text.is_empty())), "{web:?}");
    let caller = pair.world.ca().issue(&spiffe_id("client"));
    let echo = pair.serve(Family::V4, &[Step::Echo]);
    assert_eq!(web.sha256, Some(sha256(&sheath_tests::shown::by_server(&pair, &caller))));
    drop(echo);

    // What is believed: by source and by file, each with its age.
    let own = certs.trust.iter().find(|trust| trust.trust_domain == TRUST_DOMAIN).unwrap();
    assert_eq!((own.workload.as_str(), own.revocation), ("web", false), "{own:?}");
    assert_eq!(own.authorities[0].subject, "CN=Sheath CA of example.org");
    let other = certs.trust.iter().find(|trust| trust.trust_domain == PARTNER).unwrap();
    assert_eq!((other.authorities.len(), other.revocation), (1, true), "{other:?}");
    assert_eq!(other.authorities[0].sha256, sha256(&partner.certificate()));
    let file = |path: &Path| {
        let certs = pair.agent_b.certs();
        let file = certs.files.into_iter().find(|file| Path::new(&file.path) == path);
        file.unwrap_or_else(|| panic!("{} in sheath certs", path.display()))
    };
    assert_eq!((file(&bundle).kind.as_str(), file(&bundle).entries), ("certificates", Some(1)));
    assert_eq!((file(&crl).kind.as_str(), file(&crl).entries), ("crl", Some(0)));
    assert!(file(&crl).this_update < file(&crl).next_update, "{:?}", file(&crl));
    wait::wait_until("everything to grow older", GENEROUS, || {
        let trust = pair.agent_b.certs().trust;
        [file(&bundle), file(&crl)].iter().all(|file| file.age_seconds > Some(1))
            && trust.iter().all(|trust| trust.age_seconds > 1)
    });
    partner.write_crl(&[&revoked], &crl);
    wait::wait_until("the new CRL", GENEROUS, || file(&crl).entries == Some(1));
    assert!(file(&crl).age_seconds < file(&bundle).age_seconds, "the CRL is younger");

    let output = pair.agent_b.sheath("certs", &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    let path = crl.display().to_string();
    for fact in facts.into_iter().flatten().filter(|fact| Some(*fact) != web.sha256.as_ref()) {
        assert!(text.contains(fact), "{fact} in\n{text}");
    }
    for fact in ["web", "ok", "ca", &spiffe_id("web"), "CN=the partner", &path, "AGE", PARTNER] {
        assert!(text.contains(fact), "{fact} in\n{text}");
    }
    let mut secrets = Secrets::default();
    let key = private_key(&pair.agent_b.config().ca_dir().join("ca.key"));
    secrets.add("the CA", key.secret_der());
    secrets.assert_none("sheath certs", &output.stdout);
}

#[test]
fn the_access_log_says_how_a_flow_was_protected() {
    let pair = Pair::host();
    let echo = pair.serve(Family::V4, &[Step::Echo]);
    pair.assert_served();
    for (agent, direction, peer) in
        [(&pair.agent_a, "outbound", "web"), (&pair.agent_b, "inbound", "client")]
    {
        let line = agent.wait_for_access(direction, |line| line.is(direction, "ok"));
        assert_eq!(line.protection, "mtls", "{line:?}");
        assert_eq!(line.tls_version, "TLSv1.3", "{line:?}");
        // Between agents, which prefer what quantum computers will not break.
        assert_eq!(line.tls_group, "X25519MLKEM768", "{line:?}");
        let suites = [
            "TLS13_AES_128_GCM_SHA256",
            "TLS13_AES_256_GCM_SHA384",
            "TLS13_CHACHA20_POLY1305_SHA256",
        ];
        assert!(suites.contains(&line.tls_suite.as_str()), "{line:?}");
        assert_eq!(line.peer_id, spiffe_id(peer), "{line:?}");
    }
    drop(echo);
    // Without a handshake there is nothing to say.
    let stranger = pair.world.a.host("stranger");
    probe::run(&stranger, &client(pair.target(Family::V4), &say("no TLS")));
    let line = pair.agent_b.wait_for_access("the stranger", |line| line.outcome != "ok");
    let said = [&line.tls_version, &line.tls_suite, &line.tls_group, &line.peer_id];
    assert!(said.iter().all(|text| text.is_empty()), "{line:?}");
}
