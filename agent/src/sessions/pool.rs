//! Sessions between flows, kept by clients for the next connection to the same place: it then costs no handshake.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sheath_common::workload::WorkloadId;

use super::{Sessions, WireLeg};
use crate::flow::Inherited;
use crate::metrics::{OfWorkloads, Registry, RegistryError, Scalar};
use crate::peer::UidHash;
use crate::wire::GoAwayCode;

/// How often sessions that have expired are searched for.
const LOOK: Duration = Duration::from_secs(1);

/// What a session can be used for: only flows that agree in all of this. The peer's identity, and the workload's own,
/// are covered by the session's revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    pub workload: WorkloadId,
    /// Cookie of the network namespace.
    pub namespace: u64,
    /// Where the application has bound its end, if it has.
    pub source: Option<IpAddr>,
    pub destination: SocketAddr,
    /// Which pod is there, if the directory says so.
    pub pod: Option<UidHash>,
    /// What its connection has taken over from the application's socket.
    pub inherited: Inherited,
}

/// How long an address is taken for a virtual one, and how many such addresses are remembered. Finding out costs a flow
/// one round trip.
const VIRTUAL_FOR: Duration = Duration::from_secs(10 * 60);
const MOST_VIRTUAL: usize = 4096;

/// How long sessions are kept for the next flow, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reuse {
    /// With none, every flow has a session of its own.
    pub per_workload: usize,
    pub max_idle: Duration,
    pub max_age: Duration,
}

/// Sessions of all workloads.
#[derive(Debug)]
pub struct IdleSessions {
    reuse: Reuse,
    sessions: Arc<Sessions>,
    pool: Mutex<Pool>,
    virtuals: Mutex<HashMap<Address, Instant>>,
}

/// A namespace's cookie, and an address that means the same to all in there.
type Address = (u64, SocketAddr);

#[derive(Debug, Default)]
struct Pool {
    by_route: HashMap<Route, Vec<Idle>>,
    count: HashMap<WorkloadId, usize>,
}

#[derive(Debug)]
struct Idle {
    leg: WireLeg,
    since: Instant,
}

impl IdleSessions {
    #[must_use]
    pub fn new(reuse: Reuse, sessions: Arc<Sessions>) -> Self {
        Self { reuse, sessions, pool: Mutex::default(), virtuals: Mutex::default() }
    }

    /// Takes a session for another flow: the one that was used last, preferably one of the calling thread.
    #[must_use]
    pub fn take(&self, route: &Route) -> Option<WireLeg> {
        loop {
            let idle = self.pool().take(route)?;
            if !self.is_good(route, &idle) || !idle.leg.session.is_quiet() {
                self.close(route, idle);
            } else if let Some(leg) = idle.leg.moved_here() {
                return Some(leg);
            }
        }
    }

    /// Keeps a session for the next flow, if it may have one.
    pub fn keep(&self, route: Route, mut leg: WireLeg) {
        leg.session.rest_keys();
        let idle = Idle { leg, since: Instant::now() };
        if !self.is_good(&route, &idle) || self.is_virtual(&route) {
            return self.close(&route, idle);
        }
        if let Some(surplus) = self.pool().put(route, idle, self.reuse.per_workload) {
            self.close(&route, surplus);
        }
    }

    /// Notes that a server has ended a session, and why. Where the address that was dialled may lead to other servers,
    /// sessions are not kept: the load balancer has to choose a server for each flow.
    pub fn ended(&self, route: &Route, reason: GoAwayCode) {
        if reason != GoAwayCode::VIRTUAL {
            return;
        }
        let mut virtuals = self.virtuals.lock().unwrap_or_else(PoisonError::into_inner);
        if virtuals.len() >= MOST_VIRTUAL {
            virtuals.retain(|_, since| since.elapsed() < VIRTUAL_FOR);
        }
        if virtuals.len() < MOST_VIRTUAL {
            virtuals.insert((route.namespace, route.destination), Instant::now());
        }
    }

    fn is_virtual(&self, route: &Route) -> bool {
        let virtuals = self.virtuals.lock().unwrap_or_else(PoisonError::into_inner);
        let since = virtuals.get(&(route.namespace, route.destination));
        since.is_some_and(|since| since.elapsed() < VIRTUAL_FOR)
    }

    fn close(&self, route: &Route, idle: Idle) {
        if let Some(reason) = idle.leg.close(None) {
            self.ended(route, reason);
        }
    }

    /// How long a session may wait for its next flow.
    #[must_use]
    pub fn max_idle(&self) -> Duration {
        self.reuse.max_idle
    }

    /// Registers how many there are.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) -> Result<(), RegistryError> {
        let idle = self.clone();
        registry.register_by_workload(
            Scalar::Gauge,
            "idle_sessions",
            "Sessions that are kept for the next flow.",
            move || {
                let pool = idle.pool();
                let living = pool.count.iter().map(|(workload, count)| (*workload, *count as u64));
                OfWorkloads { living: living.collect(), gone: 0 }
            },
        )
    }

    /// Closes all of them.
    pub fn clear(&self) {
        let all = std::mem::take(&mut *self.pool());
        for idle in all.by_route.into_values().flatten() {
            idle.leg.close(None);
        }
    }

    /// Closes sessions that have expired, and at once those that a change has made unusable. Never ends.
    pub async fn evict_expired(&self) {
        loop {
            let revision = self.sessions.revision();
            // Either will do.
            let _ = tokio::time::timeout(LOOK, self.sessions.changed_since(revision)).await;
            let stale = self
                .pool()
                .remove(|route, idle| !self.is_good(route, idle) || !idle.leg.session.is_quiet());
            for (route, idle) in stale {
                self.close(&route, idle);
            }
        }
    }

    fn is_good(&self, route: &Route, idle: &Idle) -> bool {
        let terms = &idle.leg.standing.terms;
        let is_there = |pod| self.sessions.may_lead_to(pod, route.destination);
        route.pod.is_none_or(is_there)
            && terms.revision == self.sessions.revision()
            && idle.since.elapsed() < self.reuse.max_idle
            && terms.opened.elapsed() < self.reuse.max_age
            && SystemTime::now() < terms.good_until
            && !terms.place.is_cancelled()
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    fn take(&mut self, route: &Route) -> Option<Idle> {
        let shelf = self.by_route.get_mut(route)?;
        let near = shelf.iter().rposition(|idle| idle.leg.is_here());
        let idle = near.map(|near| shelf.remove(near)).or_else(|| shelf.pop());
        if shelf.is_empty() {
            self.by_route.remove(route);
        }
        if idle.is_some() {
            self.forget(route.workload, 1);
        }
        idle
    }

    /// Adds a session. Returns the one for which there is no room.
    fn put(&mut self, route: Route, idle: Idle, limit: usize) -> Option<Idle> {
        let count = self.count.entry(route.workload).or_default();
        if *count < limit {
            *count += 1;
            self.by_route.entry(route).or_default().push(idle);
            return None;
        }
        // The oldest of the same route gives way.
        match self.by_route.get_mut(&route) {
            Some(shelf) if !shelf.is_empty() => {
                let oldest = shelf.remove(0);
                shelf.push(idle);
                Some(oldest)
            }
            _ => Some(idle),
        }
    }

    fn remove(&mut self, is_stale: impl Fn(&Route, &Idle) -> bool) -> Vec<(Route, Idle)> {
        let mut stale = Vec::new();
        let mut removed: HashMap<WorkloadId, usize> = HashMap::new();
        self.by_route.retain(|route, shelf| {
            let before = stale.len();
            stale.extend(
                shelf.extract_if(.., |idle| is_stale(route, idle)).map(|idle| (*route, idle)),
            );
            *removed.entry(route.workload).or_default() += stale.len() - before;
            !shelf.is_empty()
        });
        for (workload, count) in removed {
            self.forget(workload, count);
        }
        stale
    }

    fn forget(&mut self, workload: WorkloadId, removed: usize) {
        if let Some(count) = self.count.get_mut(&workload) {
            *count = count.saturating_sub(removed);
            if *count == 0 {
                self.count.remove(&workload);
            }
        }
    }
}
