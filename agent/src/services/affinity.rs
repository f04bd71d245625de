//! Which endpoint a client has had, for Services whose clients stay with one (sessionAffinity `ClientIP`).
//!
//! kube-proxy of each node remembers it for itself, by client and port of the Service, whichever of its addresses was dialled, and
//! each connection begins the time anew (`nftables/proxier.go`). The first time, a client is given the endpoint with the greatest hash
//! of both: so most clients keep theirs when an agent starts anew, and where there is no room to remember it.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::endpoints::Backend;
use super::frontend::{Served, Stickiness};
use crate::kubernetes::ServiceName;

/// How many clients of Services are remembered: 500 pods that each use a hundred such Services, and more.
const MOST: usize = 65_536;
/// How often those that have expired are searched for, where there is no room.
const LOOK: Duration = Duration::from_secs(1);

/// A client of a port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    client: IpAddr,
    service: ServiceName,
    port: u16,
    /// That of the [`Stickiness`].
    number: u64,
}

#[derive(Clone, Copy, Debug)]
struct Had {
    endpoint: SocketAddr,
    until: Instant,
}

/// What clients have had.
#[derive(Debug)]
pub struct Affinity {
    had: Mutex<Table>,
    most: usize,
    /// Of the Services of one namespace: three quarters, so that nobody has all of it.
    most_of_namespace: usize,
}

#[derive(Debug, Default)]
struct Table {
    by_client: HashMap<Key, Had>,
    by_namespace: HashMap<Arc<str>, usize>,
    looked: Option<Instant>,
}

impl Default for Affinity {
    fn default() -> Self {
        Self::with_room_for(MOST)
    }
}

impl Affinity {
    #[must_use]
    pub fn with_room_for(most: usize) -> Self {
        Self { had: Mutex::default(), most, most_of_namespace: most - most / 4 }
    }

    /// The endpoint that the client has had last, if not too long ago.
    pub fn last(&self, served: &Served, client: IpAddr, now: Instant) -> Option<SocketAddr> {
        let key = key(served, served.stickiness?, client);
        let had = self.table().by_client.get(&key).copied()?;
        (now < had.until).then_some(had.endpoint)
    }

    /// Remembers what a client has now. Without room it is not remembered.
    pub fn remember(&self, served: &Served, client: IpAddr, endpoint: SocketAddr, now: Instant) {
        let Some(stickiness) = served.stickiness else {
            return;
        };
        let key = key(served, stickiness, client);
        let had = Had { endpoint, until: now + stickiness.timeout };
        let mut table = self.table();
        if let Some(known) = table.by_client.get_mut(&key) {
            *known = had;
            return;
        }
        if !self.has_room(&table, &key) {
            table.forget_expired(now);
        }
        if self.has_room(&table, &key) {
            *table.by_namespace.entry(key.service.namespace.clone()).or_default() += 1;
            table.by_client.insert(key, had);
        }
    }

    fn has_room(&self, table: &Table, key: &Key) -> bool {
        let of = table.by_namespace.get(&key.service.namespace).copied().unwrap_or_default();
        table.by_client.len() < self.most && of < self.most_of_namespace
    }

    /// How many clients are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table().by_client.len()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.had.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn forget_expired(&mut self, now: Instant) {
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK) {
            return;
        }
        self.looked = Some(now);
        self.by_client.retain(|_, had| now < had.until);
        self.by_namespace.clear();
        for key in self.by_client.keys() {
            *self.by_namespace.entry(key.service.namespace.clone()).or_default() += 1;
        }
    }
}

fn key(served: &Served, stickiness: Stickiness, client: IpAddr) -> Key {
    Key {
        client,
        service: served.service.clone(),
        port: served.port.port,
        number: stickiness.number,
    }
}

/// The endpoint that a client is given the first time: with fewer or more endpoints, it is the same for most clients (rendezvous
/// hashing).
pub fn first<'b>(
    served: &Served,
    client: IpAddr,
    backends: impl IntoIterator<Item = &'b Backend>,
) -> Option<&'b Backend> {
    let rank = |backend: &Backend| {
        let mut hasher = DefaultHasher::new();
        (client, &served.service, served.port.port, backend.at).hash(&mut hasher);
        (hasher.finish(), backend.at)
    };
    backends.into_iter().max_by_key(|backend| rank(backend))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::testing::{at, backends, served};

    const HOUR: Duration = Duration::from_secs(3600);

    fn sticky(number: u64) -> Served {
        Served {
            stickiness: Some(Stickiness { timeout: HOUR, number }),
            ..served(&["10.1.0.1:80"])
        }
    }

    fn client(number: u8) -> IpAddr {
        [10, 1, 9, number].into()
    }

    #[test]
    fn each_connection_begins_the_time_anew() {
        let (affinity, served, begun) = (Affinity::default(), sticky(1), Instant::now());
        let endpoint = at("10.1.0.1:80");
        assert_eq!(affinity.last(&served, client(1), begun), None);
        affinity.remember(&served, client(1), endpoint, begun);
        affinity.remember(&served, client(1), endpoint, begun + HOUR / 2);
        assert_eq!(affinity.last(&served, client(1), begun + HOUR), Some(endpoint));
        assert_eq!(affinity.last(&served, client(1), begun + HOUR / 2 + HOUR), None);
        assert_eq!(affinity.last(&served, client(2), begun), None);
    }

    #[test]
    fn a_service_that_begins_again_has_forgotten_its_clients() {
        let (affinity, begun) = (Affinity::default(), Instant::now());
        affinity.remember(&sticky(1), client(1), at("10.1.0.1:80"), begun);
        assert_eq!(affinity.last(&sticky(2), client(1), begun), None);
        let served = crate::services::testing::served(&["10.1.0.1:80"]);
        assert_eq!(affinity.last(&served, client(1), begun), None, "no affinity any more");
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let (affinity, served, begun) = (Affinity::with_room_for(2), sticky(1), Instant::now());
        let endpoint = at("10.1.0.1:80");
        for number in 1..=3 {
            affinity.remember(&served, client(number), endpoint, begun);
        }
        assert_eq!(affinity.len(), 2);
        assert_eq!(affinity.last(&served, client(3), begun), None);
        // Those that have expired make room.
        affinity.remember(&served, client(4), endpoint, begun + 2 * HOUR);
        assert_eq!(affinity.len(), 1);
        assert_eq!(affinity.last(&served, client(4), begun + 2 * HOUR), Some(endpoint));
    }

    #[test]
    fn one_namespace_leaves_room_for_others() {
        let (affinity, begun) = (Affinity::with_room_for(8), Instant::now());
        let (own, mut other) = (sticky(1), sticky(2));
        other.service.namespace = "other".into();
        let endpoint = at("10.1.0.1:80");
        for number in 1..=8 {
            affinity.remember(&own, client(number), endpoint, begun);
        }
        assert_eq!(affinity.len(), 6);
        affinity.remember(&other, client(1), endpoint, begun);
        affinity.remember(&other, client(2), endpoint, begun);
        assert_eq!(affinity.last(&other, client(2), begun), Some(endpoint));
        affinity.remember(&other, client(3), endpoint, begun);
        assert_eq!(affinity.len(), 8);
        // What has expired is counted no more.
        for number in 9..=16 {
            affinity.remember(&own, client(number), endpoint, begun + 2 * HOUR);
        }
        assert_eq!(affinity.last(&own, client(14), begun + 2 * HOUR), Some(endpoint));
        assert_eq!(affinity.len(), 6);
    }

    #[test]
    fn the_first_choice_moves_only_clients_of_the_endpoint_that_went() {
        let served = sticky(1);
        let all = backends(&["10.1.0.1:80", "10.1.0.2:80", "10.1.0.3:80"]);
        let fewer = &all[..2];
        let (mut of_gone, mut counts) = (0, HashMap::new());
        for number in 0..=255 {
            let before = first(&served, client(number), &all).unwrap();
            let after = first(&served, client(number), fewer).unwrap();
            *counts.entry(before.at).or_insert(0) += 1;
            if before.at == all[2].at {
                of_gone += 1;
            } else {
                assert_eq!(before, after);
            }
        }
        assert!(of_gone > 0);
        assert!(counts.values().all(|count| *count > 256 / 6), "{counts:?}");
    }
}
