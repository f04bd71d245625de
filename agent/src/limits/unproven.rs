//! Clients that are connected and have not proved who they are. They have a limited number of slots. When all are taken, the
//! oldest client of the source that has the most of them loses its slot. So no client waits for a slot, and a host that
//! connects and says nothing, however often, costs the others nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The clients of one workload.
#[derive(Debug)]
pub struct UnprovenClients {
    slots: usize,
    clients: Mutex<Clients>,
}

#[derive(Debug, Default)]
struct Clients {
    next: u64,
    /// In the order in which they have come.
    by_source: HashMap<Source, BTreeMap<u64, oneshot::Sender<()>>>,
    /// Sources by how many clients they have; among those with as many, the one with the oldest client comes last. The last
    /// source loses a client.
    order: BTreeSet<(usize, Reverse<u64>, Source)>,
    count: usize,
}

/// What a client counts for: its address, or the network of an IPv6 host, which may use any address of it
/// (RFC 4291, 2.5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Source(IpAddr);

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => Self(Ipv6Addr::from_bits(v6.to_bits() & !0 << 64).into()),
            v4 => Self(v4),
        }
    }
}

/// A client's slot, for as long as this lives.
#[derive(Debug)]
pub struct UnprovenSlot {
    all: Arc<UnprovenClients>,
    source: Source,
    number: u64,
    evicted: oneshot::Receiver<()>,
}

impl UnprovenClients {
    pub fn new(slots: usize) -> Arc<Self> {
        Arc::new(Self { slots: slots.max(1), clients: Mutex::default() })
    }

    /// Gives a client a slot. If none is free, another client loses its own.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> UnprovenSlot {
        let source = Source::of(address);
        let (sender, evicted) = oneshot::channel();
        let mut clients = self.clients();
        let number = clients.next;
        clients.next += 1;
        clients.change(source, |own| own.insert(number, sender));
        clients.count += 1;
        if clients.count > self.slots {
            clients.evict();
        }
        drop(clients);
        UnprovenSlot { all: self.clone(), source, number, evicted }
    }

    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clients {
    fn evict(&mut self) {
        let Some((_, _, greediest)) = self.order.last().copied() else {
            return;
        };
        if let Some((_, oldest)) = self.change(greediest, BTreeMap::pop_first) {
            self.count -= 1;
            // A client that has just proved who it is does not listen any more.
            let _ = oldest.send(());
        }
    }

    /// Changes what a source has, and keeps the order.
    fn change<T>(
        &mut self,
        source: Source,
        change: impl FnOnce(&mut BTreeMap<u64, oneshot::Sender<()>>) -> T,
    ) -> T {
        let own = self.by_source.entry(source).or_default();
        let rank = |own: &BTreeMap<u64, oneshot::Sender<()>>| {
            own.first_key_value().map(|(oldest, _)| (own.len(), Reverse(*oldest), source))
        };
        let before = rank(own);
        let done = change(own);
        let after = rank(own);
        if own.is_empty() {
            self.by_source.remove(&source);
        }
        before.map(|before| self.order.remove(&before));
        self.order.extend(after);
        done
    }
}

impl UnprovenSlot {
    /// Runs `work` until another client gets the slot: then `None`.
    pub async fn hold<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            // The sender is kept until then.
            _ = &mut self.evicted => None,
        }
    }
}

impl Drop for UnprovenSlot {
    fn drop(&mut self) {
        let mut clients = self.all.clients();
        if clients.change(self.source, |own| own.remove(&self.number)).is_some() {
            clients.count -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
