use proptest::prelude::*;

use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn is_evicted(slot: &mut UnprovenSlot) -> bool {
    slot.evicted.try_recv().is_ok()
}

/// A host loses slots for what it has done itself.
#[test]
fn one_host_takes_no_slot_from_another() {
    for (host, other, same) in [
        ("192.0.2.1", "192.0.2.2", "::ffff:192.0.2.1"),
        // An IPv6 host has as many addresses as it likes, and all of them are its own.
        ("2001:db8::1", "2001:db8:0:1::1", "2001:db8::ffff:1:2"),
    ] {
        let clients = UnprovenClients::new(8);
        let mut honest = clients.enter(address(other));
        let mut flood: Vec<_> = (0..100)
            .map(|number| clients.enter(address(if number % 2 == 0 { host } else { same })))
            .collect();
        assert!(!is_evicted(&mut honest));
        let gone = flood.iter_mut().map(is_evicted).collect::<Vec<_>>();
        assert!(gone[..93].iter().all(|gone| *gone), "the oldest go first: {gone:?}");
        assert!(!gone[93..].contains(&true), "{gone:?}");
        // A client that comes later finds a slot, too.
        let mut late = clients.enter(address(other));
        assert!(is_evicted(&mut flood[93]) && !is_evicted(&mut late) && !is_evicted(&mut honest));
        drop((honest, late, flood));
        let clients = clients.clients();
        assert!(clients.count == 0 && clients.by_source.is_empty() && clients.order.is_empty());
    }
}

#[test]
fn among_hosts_with_as_many_the_oldest_goes() {
    let clients = UnprovenClients::new(2);
    let mut first = clients.enter(address("192.0.2.9"));
    let mut second = clients.enter(address("192.0.2.1"));
    let mut third = clients.enter(address("192.0.2.5"));
    assert!(is_evicted(&mut first) && !is_evicted(&mut second) && !is_evicted(&mut third));
}

#[tokio::test]
async fn what_is_done_in_a_slot_ends_when_another_client_gets_the_slot() {
    let clients = UnprovenClients::new(1);
    let mut first = clients.enter(address("192.0.2.1"));
    assert_eq!(first.hold(async { 7 }).await, Some(7));
    let waiting = tokio::spawn(async move { first.hold(std::future::pending::<()>()).await });
    let _second = clients.enter(address("192.0.2.2"));
    assert_eq!(waiting.await.unwrap(), None);
}

proptest! {
    /// However clients come and go: there are never more than there are slots, none is evicted while a slot is free, and none
    /// whose host has fewer than another.
    #[test]
    fn no_client_is_evicted_for_a_host_that_has_more(
        slots in 1..6_usize,
        steps in prop::collection::vec((0..4_u8, any::<bool>()), 1..60),
    ) {
        let clients = UnprovenClients::new(slots);
        let mut held: Vec<(u8, UnprovenSlot)> = Vec::new();
        for (host, leaves) in steps {
            if leaves {
                held.pop();
                continue;
            }
            let count = |held: &[(u8, UnprovenSlot)], host| {
                held.iter().filter(|(other, _)| *other == host).count()
            };
            let before = held.len();
            held.push((host, clients.enter(IpAddr::from([192, 0, 2, host]))));
            let largest = (0..4).map(|host| count(&held, host)).max().unwrap();
            let gone: Vec<usize> =
                (0..held.len()).filter(|&index| is_evicted(&mut held[index].1)).collect();
            prop_assert_eq!(gone.len(), usize::from(before == slots));
            for index in gone {
                prop_assert_eq!(count(&held, held[index].0), largest);
                held.remove(index);
            }
            prop_assert_eq!(clients.clients().count, held.len());
        }
    }
}
