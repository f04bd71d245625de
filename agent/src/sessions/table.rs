//! The sessions in use: by number, and by the address that they go to.
//!
//! Every flow is entered and removed here, so nobody may be kept for long: the sessions are spread over parts with a lock each.
//! Whoever looks at all of them locks one part after the other; who wants those at an address looks at no others.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::facts::SessionFacts;
use super::interruption::Interruption;

const PARTS: usize = 16;

/// What a session is interrupted by.
pub type Way = oneshot::Sender<Interruption>;

#[derive(Debug, Default)]
pub struct Table {
    parts: [Mutex<Part>; PARTS],
}

#[derive(Debug, Default)]
struct Part {
    entries: HashMap<u64, Entry>,
    /// Those that go to somebody, by the address at which the directory may tell who it is.
    by_address: BTreeSet<(IpAddr, u64)>,
    /// Sessions are called as soon as they begin.
    are_called: bool,
}

#[derive(Debug)]
struct Entry {
    facts: Arc<SessionFacts>,
    /// `None` while the session is called, and has not said that it stays.
    way: Option<Way>,
}

impl Table {
    /// A session that begins. It is called at once, if all are.
    pub fn enter(&self, number: u64, facts: Arc<SessionFacts>, way: Way) {
        let mut part = self.part(number);
        let way = match part.are_called {
            true => {
                // Somebody waits for it.
                let _ = way.send(Interruption::Called(None));
                None
            }
            false => Some(way),
        };
        if let Some(address) = facts.goes_to() {
            part.by_address.insert((address, number));
        }
        part.entries.insert(number, Entry { facts, way });
    }

    pub fn remove(&self, number: u64) {
        let mut part = self.part(number);
        if let Some(Entry { facts, .. }) = part.entries.remove(&number)
            && let Some(address) = facts.goes_to()
        {
            part.by_address.remove(&(address, number));
        }
    }

    pub fn facts(&self, number: u64) -> Option<Arc<SessionFacts>> {
        self.part(number).entries.get(&number).map(|entry| entry.facts.clone())
    }

    /// Takes the way to interrupt a session.
    pub fn take_way(&self, number: u64) -> Option<Way> {
        self.part(number).entries.get_mut(&number)?.way.take()
    }

    /// A session that was called stays, and is interrupted in this way from now on. Returns what it rests on, if it is there.
    pub fn stays(&self, number: u64, way: Way) -> Option<Arc<SessionFacts>> {
        let mut part = self.part(number);
        let entry = part.entries.get_mut(&number)?;
        entry.way = Some(way);
        Some(entry.facts.clone())
    }

    /// Has every session called that begins from now on, and returns the numbers of the others.
    pub fn begin_calls(&self) -> Vec<u64> {
        let each = self.each().map(|mut part| {
            part.are_called = true;
            part.entries.keys().copied().collect::<Vec<_>>()
        });
        each.flatten().collect()
    }

    pub fn end_calls(&self) {
        self.each().for_each(|mut part| part.are_called = false);
    }

    /// Those of which `concerned` is true.
    pub fn select(
        &self,
        concerned: impl Fn(&SessionFacts) -> bool,
    ) -> Vec<(u64, Arc<SessionFacts>)> {
        let each = self.each().map(|part| {
            let entries = part.entries.iter().filter(|(_, entry)| concerned(&entry.facts));
            entries.map(|(number, entry)| (*number, entry.facts.clone())).collect::<Vec<_>>()
        });
        each.flatten().collect()
    }

    /// Those that go to one of the addresses.
    pub fn at(&self, addresses: &HashSet<IpAddr>) -> Vec<(u64, Arc<SessionFacts>)> {
        let each = self.each().map(|part| {
            let of_address =
                |address: &IpAddr| part.by_address.range((*address, 0)..=(*address, u64::MAX));
            let numbers = addresses.iter().flat_map(of_address).map(|(_, number)| *number);
            let found = numbers.filter_map(|number| {
                part.entries.get(&number).map(|entry| (number, entry.facts.clone()))
            });
            found.collect::<Vec<_>>()
        });
        each.flatten().collect()
    }

    fn each(&self) -> impl Iterator<Item = MutexGuard<'_, Part>> {
        self.parts.iter().map(lock)
    }

    fn part(&self, number: u64) -> MutexGuard<'_, Part> {
        lock(&self.parts[number as usize % PARTS])
    }
}

fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::Basis;
    use std::net::SocketAddr;
    use tokio_util::sync::CancellationToken;

    fn facts(destination: Option<SocketAddr>) -> Arc<SessionFacts> {
        let basis = match destination {
            Some(destination) => Basis::Plain { destination, pod: None },
            None => Basis::Permissive,
        };
        Arc::new(SessionFacts { workload: 1, basis, stay: CancellationToken::new() })
    }

    fn numbers(found: Vec<(u64, Arc<SessionFacts>)>) -> BTreeSet<u64> {
        found.into_iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn sessions_are_found_by_their_address_and_in_all_parts() {
        let table = Table::default();
        let [one, other]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|it| it.parse().unwrap());
        // In the form of IPv6 it is the same address.
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        for number in 0..64 {
            let to = [Some(one), Some(other), Some(mapped), None][number as usize % 4];
            let (way, _) = oneshot::channel();
            table.enter(number, facts(to.map(|ip| (ip, 80).into())), way);
        }
        let of_one: BTreeSet<_> = (0..64).filter(|number| number % 2 == 0).collect();
        assert_eq!(numbers(table.at(&[one].into())), of_one);
        assert_eq!(table.at(&HashSet::new()).len(), 0);
        assert_eq!(table.select(|_| true).len(), 64);
        assert_eq!(table.select(|facts| matches!(facts.basis, Basis::Permissive)).len(), 16);
        of_one.iter().for_each(|number| table.remove(*number));
        assert_eq!(table.at(&[one].into()).len(), 0);
        assert_eq!(table.at(&[other].into()).len(), 16);
        (0..64).for_each(|number| table.remove(number));
        assert!(table.each().all(|part| part.entries.is_empty() && part.by_address.is_empty()));
    }

    #[test]
    fn a_session_is_called_once_whether_it_began_before_or_after() {
        let table = Table::default();
        let [(before, mut heard_before), (after, mut heard_after)] =
            [(); 2].map(|()| oneshot::channel());
        table.enter(7, facts(None), before);
        assert_eq!(table.begin_calls(), [7]);
        table.enter(8, facts(None), after);
        assert!(matches!(heard_after.try_recv(), Ok(Interruption::Called(None))));
        assert!(table.take_way(8).is_none());
        let way = table.take_way(7).unwrap();
        assert!(table.take_way(7).is_none() && heard_before.try_recv().is_err());
        assert!(table.stays(7, way).is_some() && table.take_way(7).is_some());
        table.end_calls();
        let (way, mut heard) = oneshot::channel();
        table.enter(9, facts(None), way);
        assert!(heard.try_recv().is_err() && table.take_way(9).is_some());
    }
}
