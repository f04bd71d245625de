//! Agents without a kernel: flows begin in the relay stage, between connections over loopback.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use sheath_common::workload::{FIRST_ID, WorkloadId};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::saved::SavedFlow;
use super::*;
use crate::capture::{ClientName, Place};
use crate::config::Config;
use crate::credentials::{Credentials, Identities, IdentityState};
use crate::flow::{Direction, Negotiated, PeerId, Protection, Role};
use crate::handover::{FlowResumer, FlowTaker, GoOn, MovingFlow, Offer};
use crate::identity::Svid;
use crate::limits::Limits;
use crate::materials::Materials;
use crate::origin::Origin;
use crate::peer::testing::{ids, judge};
use crate::peer::{PeerCertificates, Target, crypto_provider};
use crate::policy::Policy;
use crate::relay::IdleTimeouts;
use crate::services::Chooser;
use crate::sessions::{Reuse, Route, SessionFacts, Sessions, Standing, Terms};
use crate::sys::netns::NetworkNamespace;
use crate::tls::{Proof, TlsConfigs};
use crate::trust::testing::{Ca, Leaf, svid};
use crate::wire::testing::tcp_pair;
use crate::x509::CertificateFacts;

/// The workload of all agents here.
pub const WEB: WorkloadId = FIRST_ID;
pub const WEB_ID: &str = "spiffe://example.org/web";

/// What is written about the workload.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    pub name: &'static str,
    /// Who is expected at 10.0.0.0/8, and may call.
    pub peer: &'static str,
    pub inbound: &'static str,
    pub outbound: &'static str,
}

impl Default for Written {
    fn default() -> Self {
        Self { name: "web", peer: WEB_ID, inbound: "strict", outbound: "require" }
    }
}

/// Authorities that all agents trust, and a certificate of the workload by them.
pub struct Trusted {
    pub ca: Ca,
    pub leaf: Leaf,
}

impl Trusted {
    pub fn new() -> Self {
        let ca = Ca::new("example.org");
        let leaf = ca.issue(svid(WEB_ID, |_| {}));
        Self { ca, leaf }
    }

    /// The certificates of a peer with this role that has just been judged.
    pub fn shown(&self, role: Role) -> PeerCertificates {
        let trust = self.ca.trust();
        let judge = judge(trust.clone(), ids(&[WEB_ID]));
        let now = rustls_pki_types::UnixTime::now();
        let judged = judge.judge(self.leaf.peer(), role, now).unwrap();
        PeerCertificates::new(self.leaf.chain.clone(), role, &judged, trust.verified())
    }

    /// The server is the one that is expected at an address.
    pub fn outbound(&self) -> Basis {
        Basis::Outbound {
            target: Target::Agent(ids(&[WEB_ID])),
            destination: destination(),
            certificates: self.shown(Role::Server),
        }
    }

    /// The client may call.
    pub fn inbound(&self, as_agent: bool) -> Basis {
        Basis::Inbound { as_agent, certificates: self.shown(Role::Client) }
    }
}

pub fn destination() -> SocketAddr {
    "10.0.0.1:80".parse().unwrap()
}

/// The test's own network namespace, with nobody in the kernel to tell.
#[derive(Debug)]
struct Here {
    is_over: AtomicBool,
    stay: CancellationToken,
}

impl Place for Here {
    fn stay(&self, _: WorkloadId) -> Option<CancellationToken> {
        (!self.is_over.load(Relaxed)).then(|| self.stay.clone())
    }

    fn name_client(&self, _: SocketAddr, _: SocketAddr) -> io::Result<ClientName> {
        Ok(ClientName::default())
    }
}

/// An agent.
pub struct Agent {
    pub pipeline: Arc<Pipeline>,
    place: Arc<Here>,
}

impl Agent {
    pub fn new(trusted: &Trusted, written: Written) -> Self {
        Self::with_limit(trusted, written, None)
    }

    /// Of which a workload may have so many flows.
    pub fn with_limit(trusted: &Trusted, written: Written, flows: Option<usize>) -> Self {
        let policy = Arc::new(ArcSwap::from_pointee(policy(written)));
        let identities = Arc::new(Identities::default());
        let sessions = Arc::new(Sessions::new(policy.clone(), identities.clone()));
        let limits = Limits { flows, handshakes_per_second: 100, buffers: 64 << 20 };
        let forever = Duration::from_secs(3600);
        let reuse = Reuse { per_workload: 8, max_idle: forever, max_age: forever };
        let random = crypto_provider().secure_random;
        let pipeline = Arc::new(Pipeline {
            published: Published {
                policy,
                directory: Arc::default(),
                services: Arc::new(Chooser::new(Arc::default(), random)),
                identities,
                sessions: sessions.clone(),
            },
            counters: Arc::default(),
            quotas: Arc::new(Quotas::new(limits, 2)),
            idle: Arc::new(IdleSessions::new(reuse, sessions)),
            timeouts: Timeouts {
                connect: forever,
                handshake: forever,
                idle: IdleTimeouts::default(),
            },
            ids: FlowIds::new(7),
            workers: Workers::start(2).unwrap(),
            tasks: TaskTracker::new(),
            moves: Moves::default(),
            places: Places::default(),
            ending: CancellationToken::new(),
        });
        let agent = Self {
            pipeline,
            place: Arc::new(Here {
                is_over: AtomicBool::default(),
                stay: CancellationToken::new(),
            }),
        };
        agent.identify(Some(trusted));
        agent.serve();
        agent
    }

    /// Bytes of a flow's memory that its relay stage takes.
    pub fn size_of_relay(&self, app: &TcpStream, session: Box<dyn Session>, basis: Basis) -> usize {
        let pipeline = &self.pipeline;
        let client = app.local_addr().unwrap();
        let mut log = pipeline.begin(Direction::Outbound, WEB, (client, destination()));
        let facts = SessionFacts { workload: WEB, basis, stay: self.place.stay(WEB).unwrap() };
        let revision = pipeline.published.sessions.revision();
        let mut live = pipeline.published.sessions.open(facts, revision).unwrap();
        let mut relay = Relay::new(pipeline.timeouts.idle);
        let relaying = pipeline.relay((app, session), &mut relay, &mut live, &mut log);
        size_of_val(&relaying) + size_of::<Relay>()
    }

    /// Gives the workload its certificate, or takes it away.
    pub fn identify(&self, trusted: Option<&Trusted>) {
        let policy = self.pipeline.published.policy.load();
        let credentials = trusted.map(|Trusted { ca, leaf }| {
            let key = leaf.certified();
            let inbound = policy.inbound(WEB).unwrap();
            let provider = Arc::new(crypto_provider());
            let tls = TlsConfigs::new(provider, key.clone(), ca.trust(), inbound).unwrap();
            let facts = CertificateFacts::of(&leaf.chain[0]).unwrap();
            let id = Some(WEB_ID.parse().unwrap());
            let svid = Arc::new(Svid { id, key, facts, issued: SystemTime::now() });
            Arc::new(Credentials { svid, tls })
        });
        let state =
            IdentityState { credentials, source: "test", problem: None, next_renewal: None };
        self.pipeline.published.identities.publish([(WEB, Arc::new(state))].into());
    }

    /// Serves the test's own network namespace.
    fn serve(&self) {
        let place: Arc<dyn Place> = self.place.clone();
        let cookie = NetworkNamespace::own().unwrap().cookie().unwrap();
        self.pipeline.places.add(cookie, &place);
    }

    /// The namespace is no longer served.
    pub fn leave(&self) {
        self.place.is_over.store(true, Relaxed);
    }

    /// Puts another policy in force, as the control plane does.
    pub fn rewrite(&self, written: Written) {
        self.pipeline.published.policy.store(Arc::new(policy(written)));
        self.pipeline.published.sessions.review(|_| true);
    }

    /// The same, before anybody is judged by it.
    pub fn rewrite_silently(&self, written: Written) {
        self.pipeline.published.policy.store(Arc::new(policy(written)));
    }

    /// Keeps a session for the next flow.
    pub fn keep(&self, trusted: &Trusted, session: Box<dyn Session>) {
        let certificates = trusted.shown(Role::Server);
        let peer = WEB_ID.parse::<PeerId>().unwrap();
        let negotiated = Negotiated::default();
        let rule = Origin::BuiltIn;
        let proof = Proof { peer, rule, certificates, is_mutual: true, negotiated };
        let terms = Terms {
            revision: self.pipeline.published.sessions.revision(),
            opened: Instant::now(),
            good_until: proof.certificates.good_until(),
            place: CancellationToken::new(),
        };
        let standing = Box::new(Standing { proof, is_with_agent: true, terms });
        let route = Route {
            workload: WEB,
            namespace: 1,
            source: None,
            destination: destination(),
            pod: None,
            inherited: Default::default(),
        };
        self.pipeline.keep(route, WireLeg { session, standing });
    }

    /// How many sessions are kept.
    pub fn kept(&self) -> u64 {
        let mut registry = crate::metrics::Registry::new(|_| None);
        self.pipeline.idle.register(&mut registry).unwrap();
        registry.snapshot().total("idle_sessions")
    }

    pub fn account(&self) -> Arc<crate::wire::buffers::Account> {
        self.pipeline.quotas.of(WEB).buffers.clone()
    }

    /// Begins a flow. Returns its end of the connection to the application.
    pub async fn begin(
        &self,
        direction: Direction,
        session: Box<dyn Session>,
        basis: Basis,
    ) -> (TcpStream, JoinHandle<()>) {
        let (app, leg) = tcp_pair().await;
        sockopt::close_gracefully(&app).unwrap();
        let pipeline = self.pipeline.clone();
        let client = app.local_addr().unwrap();
        let mut log = pipeline.begin(direction, WEB, (client, destination()));
        log.record.protection = match basis {
            Basis::Outbound { .. } | Basis::Inbound { .. } => Protection::Mtls,
            Basis::Plain { .. } | Basis::Permissive => Protection::Plaintext,
        };
        let stay = self.place.stay(WEB).unwrap();
        let facts = SessionFacts { workload: WEB, basis, stay };
        let permit = pipeline.quotas.admit(WEB).unwrap();
        let revision = pipeline.published.sessions.revision();
        let mut live = pipeline.published.sessions.open(facts, revision).unwrap();
        let task = tokio::spawn(async move {
            let mut relay = Relay::new(pipeline.timeouts.idle);
            let over = pipeline.relay((&leg, session), &mut relay, &mut live, &mut log).await;
            drop((leg, permit));
            log.conclude(over.map(|_| ()));
        });
        (app, task)
    }

    /// How much is counted under a name, whatever the labels.
    pub fn counted(&self, name: &str) -> u64 {
        let mut registry = crate::metrics::Registry::new(|_| None);
        self.pipeline.counters.register(&mut registry).unwrap();
        registry.snapshot().total(name)
    }

    /// The same with one value of a label.
    pub fn counted_with(&self, name: &str, label: &str, value: &str) -> u64 {
        let mut registry = crate::metrics::Registry::new(|_| None);
        self.pipeline.counters.register(&mut registry).unwrap();
        let counted = registry.snapshot();
        let series = counted.family(name).into_iter().flat_map(|family| &family.series);
        let with = series.filter(|series| series.labels[label] == value);
        with.map(|series| series.value.count()).sum()
    }
}

fn policy(written: Written) -> Policy {
    let Written { name, peer, inbound, outbound } = written;
    let text = format!(
        r#"
trustDomain: example.org
node: n
identity: {{ ca: {{ dir: /x }} }}
workloads:
  - name: {name}
    select: {{ cgroup: web }}
    spiffeId: {WEB_ID}
    inbound: {{ mode: {inbound}, ports: [8080], allow: ["{peer}"] }}
    outbound: {{ mode: {outbound} }}
peers:
  - {{ match: ["10.0.0.0/8"], spiffeIds: ["{peer}"] }}
"#
    );
    let mut desired = Config::parse(&text, Path::new("test.yaml")).unwrap().desired;
    desired.number([WEB]);
    let mut materials = Materials::default();
    materials.follow(&desired);
    Policy::new(&desired, &materials)
}

/// The way to another agent.
#[derive(Debug)]
pub struct Way {
    to: FlowHandler,
    treatment: Treatment,
    pub offers: AtomicU64,
    /// What was said of flows that were not taken.
    pub refusals: Mutex<Vec<String>>,
    /// The state of the last flow that was only kept.
    pub kept: Mutex<Option<Zeroizing<Vec<u8>>>>,
}

/// What becomes of a flow on its way.
#[derive(Clone, Copy, Debug)]
enum Treatment {
    /// It is restored, with this change of its state.
    Restored(fn(&mut SavedFlow)),
    /// It is restored, and does not go on.
    Dropped,
    /// Nothing: its state is kept.
    Kept,
}

impl Way {
    pub fn to(agent: &Agent) -> Arc<Self> {
        Self::changing(agent, |_| {})
    }

    pub fn changing(agent: &Agent, change: fn(&mut SavedFlow)) -> Arc<Self> {
        Self::new(agent, Treatment::Restored(change))
    }

    pub fn dropping(agent: &Agent) -> Arc<Self> {
        Self::new(agent, Treatment::Dropped)
    }

    pub fn keeping(agent: &Agent) -> Arc<Self> {
        Self::new(agent, Treatment::Kept)
    }

    fn new(agent: &Agent, treatment: Treatment) -> Arc<Self> {
        Arc::new(Self {
            to: FlowHandler(agent.pipeline.clone()),
            treatment,
            offers: AtomicU64::default(),
            refusals: Mutex::default(),
            kept: Mutex::default(),
        })
    }

    fn give(&self, mut flow: MovingFlow) -> Result<GoOn, String> {
        self.offers.fetch_add(1, Relaxed);
        match self.treatment {
            Treatment::Restored(change) => {
                let mut saved = SavedFlow::decode(&flow.state).unwrap();
                change(&mut saved);
                flow.state = saved.encode().unwrap();
                self.to.restore(flow)
            }
            Treatment::Dropped => {
                drop(self.to.restore(flow)?);
                Err("thought better of it".to_owned())
            }
            Treatment::Kept => {
                *self.kept.lock().unwrap() = Some(flow.state);
                Err("only looking".to_owned())
            }
        }
    }
}

impl FlowTaker for Way {
    fn offer(&self, flow: MovingFlow) -> Pin<Box<dyn Future<Output = Offer> + Send + '_>> {
        Box::pin(async move {
            match self.give(flow) {
                Ok(go_on) => {
                    // Once the predecessor has given it up.
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        go_on();
                    });
                    Offer::Taken
                }
                Err(why) => {
                    self.refusals.lock().unwrap().push(why.clone());
                    Offer::Refused(why)
                }
            }
        })
    }
}
