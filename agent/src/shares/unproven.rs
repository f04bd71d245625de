//! Clients that are connected and have not proved who they are. There is room for so many; when it is full, the oldest of
//! whoever has the most of it has to go. So nobody waits for room, and one host that connects and says nothing, however
//! often, costs the others nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Room of one workload.
#[derive(Debug)]
pub struct Room {
    most: usize,
    guests: Mutex<Guests>,
}

#[derive(Debug, Default)]
struct Guests {
    next: u64,
    /// In the order in which they have come.
    by_source: HashMap<Source, BTreeMap<u64, oneshot::Sender<()>>>,
    /// Sources by how many they have, and among those with as many by who has been here for longest: the last one has to go.
    order: BTreeSet<(usize, Reverse<u64>, Source)>,
    count: usize,
}

/// Whom a connection counts for: an address, or the network of an IPv6 host, which may use any address of it
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

/// A place in the room, for as long as this lives.
#[derive(Debug)]
pub struct Unproven {
    room: Arc<Room>,
    source: Source,
    number: u64,
    gone: oneshot::Receiver<()>,
}

impl Room {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: most.max(1), guests: Mutex::default() })
    }

    /// Takes a place, if need be somebody else's.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Unproven {
        let source = Source::of(address);
        let (sender, gone) = oneshot::channel();
        let mut guests = self.guests();
        let number = guests.next;
        guests.next += 1;
        guests.change(source, |own| own.insert(number, sender));
        guests.count += 1;
        if guests.count > self.most {
            guests.send_somebody_away();
        }
        drop(guests);
        Unproven { room: self.clone(), source, number, gone }
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guests {
    fn send_somebody_away(&mut self) {
        let Some((_, _, greediest)) = self.order.last().copied() else {
            return;
        };
        if let Some((_, oldest)) = self.change(greediest, BTreeMap::pop_first) {
            self.count -= 1;
            // Whoever has just proved who it is does not listen any more.
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
        let place = |own: &BTreeMap<u64, oneshot::Sender<()>>| {
            own.first_key_value().map(|(oldest, _)| (own.len(), Reverse(*oldest), source))
        };
        let before = place(own);
        let done = change(own);
        let after = place(own);
        if own.is_empty() {
            self.by_source.remove(&source);
        }
        before.map(|before| self.order.remove(&before));
        self.order.extend(after);
        done
    }
}

impl Unproven {
    /// Does something until somebody else needs the place: then `None`.
    pub async fn hold<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            // The sender is kept until then.
            _ = &mut self.gone => None,
        }
    }
}

impl Drop for Unproven {
    fn drop(&mut self) {
        let mut guests = self.room.guests();
        if guests.change(self.source, |own| own.remove(&self.number)).is_some() {
            guests.count -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn is_gone(unproven: &mut Unproven) -> bool {
        unproven.gone.try_recv().is_ok()
    }

    /// What a host is sent away for, it has done itself.
    #[test]
    fn one_host_takes_no_place_from_another() {
        for (host, other, same) in [
            ("192.0.2.1", "192.0.2.2", "::ffff:192.0.2.1"),
            // An IPv6 host has as many addresses as it likes, and all of them are its own.
            ("2001:db8::1", "2001:db8:0:1::1", "2001:db8::ffff:1:2"),
        ] {
            let room = Room::new(8);
            let mut honest = room.enter(address(other));
            let mut flood: Vec<_> = (0..100)
                .map(|number| room.enter(address(if number % 2 == 0 { host } else { same })))
                .collect();
            assert!(!is_gone(&mut honest));
            let gone = flood.iter_mut().map(is_gone).collect::<Vec<_>>();
            assert!(gone[..93].iter().all(|gone| *gone), "the oldest go first: {gone:?}");
            assert!(!gone[93..].contains(&true), "{gone:?}");
            // Who comes later finds a place, too.
            let mut late = room.enter(address(other));
            assert!(is_gone(&mut flood[93]) && !is_gone(&mut late) && !is_gone(&mut honest));
            drop((honest, late, flood));
            let guests = room.guests();
            assert!(guests.count == 0 && guests.by_source.is_empty() && guests.order.is_empty());
        }
    }

    #[test]
    fn among_hosts_with_as_many_the_oldest_goes() {
        let room = Room::new(2);
        let mut first = room.enter(address("192.0.2.9"));
        let mut second = room.enter(address("192.0.2.1"));
        let mut third = room.enter(address("192.0.2.5"));
        assert!(is_gone(&mut first) && !is_gone(&mut second) && !is_gone(&mut third));
    }

    #[tokio::test]
    async fn what_is_done_in_a_place_ends_when_the_place_is_taken() {
        let room = Room::new(1);
        let mut first = room.enter(address("192.0.2.1"));
        assert_eq!(first.hold(async { 7 }).await, Some(7));
        let waiting = tokio::spawn(async move { first.hold(std::future::pending::<()>()).await });
        let _second = room.enter(address("192.0.2.2"));
        assert_eq!(waiting.await.unwrap(), None);
    }

    proptest! {
        /// However they come and go: there are never more than there is room for, nobody is sent away while there is room,
        /// and nobody who has less than somebody else.
        #[test]
        fn nobody_has_to_go_for_somebody_who_has_more(
            most in 1..6_usize,
            steps in prop::collection::vec((0..4_u8, any::<bool>()), 1..60),
        ) {
            let room = Room::new(most);
            let mut held: Vec<(u8, Unproven)> = Vec::new();
            for (host, leaves) in steps {
                if leaves {
                    held.pop();
                    continue;
                }
                let share = |held: &[(u8, Unproven)], host| {
                    held.iter().filter(|(other, _)| *other == host).count()
                };
                let before = held.len();
                held.push((host, room.enter(IpAddr::from([192, 0, 2, host]))));
                let largest = (0..4).map(|host| share(&held, host)).max().unwrap();
                let gone: Vec<usize> =
                    (0..held.len()).filter(|&index| is_gone(&mut held[index].1)).collect();
                prop_assert_eq!(gone.len(), usize::from(before == most));
                for index in gone {
                    prop_assert_eq!(share(&held, held[index].0), largest);
                    held.remove(index);
                }
                prop_assert_eq!(room.guests().count, held.len());
            }
        }
    }
}
