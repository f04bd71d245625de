use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::*;
use crate::services::frontend::Stickiness;
use crate::services::testing::{at, served};
use proptest::prelude::*;

const ALL: [&str; 3] = ["10.1.0.1:80", "10.1.0.2:80", "10.1.0.3:80"];
const TIMEOUT: Duration = Duration::from_secs(60);

fn client(mode: OutboundMode) -> Client {
    Client { address: None, mode }
}

fn from(address: [u8; 4]) -> Client {
    Client { address: Some(address.into()), mode: OutboundMode::Require }
}

/// Numbers one after another.
fn counting(mut next: u64) -> impl FnMut() -> u64 {
    move || {
        next = next.wrapping_add(1);
        next
    }
}

fn standing_of(all: &[(&str, Standing)]) -> impl Fn(&Backend) -> Standing {
    let all: HashMap<SocketAddr, Standing> =
        all.iter().map(|(text, standing)| (at(text), *standing)).collect();
    move |backend| all.get(&backend.at).copied().unwrap_or(Standing::Protected)
}

fn chosen(
    mode: OutboundMode,
    all: &[(&str, Standing)],
) -> Result<BTreeMap<SocketAddr, bool>, NoEndpoint> {
    let served = served(&ALL);
    let affinity = Affinity::default();
    let standing = standing_of(all);
    (0..64)
        .map(|seed| {
            let choice = choose(
                &served,
                &client(mode),
                None,
                &standing,
                &affinity,
                counting(seed),
                Instant::now(),
            )?;
            Ok((choice.backend.at, choice.is_plain))
        })
        .collect()
}

#[test]
fn only_what_is_protected_may_be_called_where_protection_is_required() {
    let all = [(ALL[0], Standing::Plain), (ALL[1], Standing::Pending)];
    let chosen = chosen(OutboundMode::Require, &all).unwrap();
    assert_eq!(chosen, [(at(ALL[2]), false)].into());
}

#[test]
fn what_is_plain_is_called_as_it_is_where_protection_is_preferred() {
    let all = [(ALL[0], Standing::Plain), (ALL[1], Standing::Pending)];
    let chosen = chosen(OutboundMode::Prefer, &all).unwrap();
    assert_eq!(chosen, [(at(ALL[0]), true), (at(ALL[2]), false)].into());
}

#[test]
fn with_nobody_left_it_is_refused_and_said_why() {
    let all = [(ALL[0], Standing::Plain), (ALL[1], Standing::Pending), (ALL[2], Standing::Unknown)];
    let error = chosen(OutboundMode::Require, &all).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the Service shop/web has no endpoint for port 80 that may be called: 1 without protection, 1 that will be protected, 1 unknown"
    );
    for standing in [Standing::Pending, Standing::Unknown] {
        let all = ALL.map(|text| (text, standing));
        assert!(chosen(OutboundMode::Prefer, &all).is_err(), "{standing:?}");
    }
}

#[test]
fn without_endpoints_it_is_said_which_are_missing() {
    let none = |reach| {
        let served = Served { reach, ..served(&[]) };
        let random = || 0;
        let standing = |_: &Backend| Standing::Protected;
        let client = client(OutboundMode::Require);
        let affinity = Affinity::default();
        let choice = choose(&served, &client, None, &standing, &affinity, random, Instant::now());
        choice.unwrap_err().to_string()
    };
    assert_eq!(
        none(Reach::Cluster),
        "the Service shop/web has no endpoint that is ready for port 80"
    );
    assert!(none(Reach::Node).ends_with("and its internalTrafficPolicy is Local"));
}

#[test]
fn another_is_never_the_one_that_was_tried() {
    let (served, affinity) = (served(&ALL), Affinity::default());
    let standing = |_: &Backend| Standing::Protected;
    let again = |served: &Served, seed| {
        let client = client(OutboundMode::Require);
        let tried = Some(at(ALL[1]));
        choose(served, &client, tried, &standing, &affinity, counting(seed), Instant::now())
    };
    let others: BTreeSet<_> =
        (0..64).map(|seed| again(&served, seed).unwrap().backend.at).collect();
    assert_eq!(others, [at(ALL[0]), at(ALL[2])].into());
    assert!(again(&super::super::testing::served(&[ALL[1]]), 0).is_err(), "there is no other");
}

fn sticky() -> Served {
    Served { stickiness: Some(Stickiness { timeout: TIMEOUT, number: 1 }), ..served(&ALL) }
}

#[test]
fn a_client_stays_with_its_endpoint_until_it_is_gone_or_the_time_is_over() {
    let (served, affinity, begun) = (sticky(), Affinity::default(), Instant::now());
    let one = from([10, 1, 9, 1]);
    let call = |standing: &dyn Fn(&Backend) -> Standing, seconds| {
        let now = begun + Duration::from_secs(seconds);
        choose(&served, &one, None, standing, &affinity, || 0, now).unwrap().backend.at
    };
    let good = |_: &Backend| Standing::Protected;
    let first = call(&good, 0);
    let without_first = |backend: &Backend| {
        if backend.at == first { Standing::Pending } else { Standing::Protected }
    };
    let second = call(&without_first, 1);
    assert_ne!(first, second);
    // It stays with the second although the first is back, and though the time since the first call is over.
    assert_eq!(call(&good, 59), second);
    assert_eq!(call(&good, 118), second);
    assert_eq!(call(&good, 118 + 60), first, "chosen anew, by the same hash");
}

#[test]
fn who_must_be_known_and_is_not_is_refused() {
    let affinity = Affinity::default();
    let standing = |_: &Backend| Standing::Protected;
    let call = |served: &Served, client: &Client| {
        choose(served, client, None, &standing, &affinity, || 0, Instant::now())
    };
    let error = call(&sticky(), &client(OutboundMode::Require)).unwrap_err();
    assert!(matches!(error, NoEndpoint::NoAddress(_)));
    let guarded = Served {
        reach: Reach::Balancer,
        clients: ["10.1.0.0/16".parse().unwrap()].into(),
        ..served(&ALL)
    };
    assert!(call(&guarded, &from([10, 1, 9, 1])).is_ok());
    let error = call(&guarded, &from([10, 2, 9, 1])).unwrap_err().to_string();
    assert!(
        error.starts_with("the Service shop/web takes no connections from 10.2.9.1"),
        "{error}"
    );
}

fn standing() -> impl Strategy<Value = Standing> {
    prop_oneof![
        Just(Standing::Protected),
        Just(Standing::Plain),
        Just(Standing::Pending),
        Just(Standing::Unknown)
    ]
}

proptest! {
    /// By chance or by client, in a small tier or a large one: only those that may be called, and all of those.
    #[test]
    fn exactly_those_that_may_be_called_are_chosen(
        standings in prop::collection::vec(standing(), 1..24),
        is_preferred: bool,
        is_sticky: bool,
        seed: u64,
    ) {
        let mode = if is_preferred { OutboundMode::Prefer } else { OutboundMode::Require };
        let texts: Vec<_> = (1..=standings.len()).map(|n| format!("10.1.0.{n}:80")).collect();
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        let named: Vec<_> = texts.iter().copied().zip(standings.iter().copied()).collect();
        let stickiness = Stickiness { timeout: TIMEOUT, number: 1 };
        let served = Served {
            stickiness: Some(stickiness).filter(|_| is_sticky),
            ..served(&texts)
        };
        let may_be_called = |standing: Standing| {
            standing == Standing::Protected || (is_preferred && standing == Standing::Plain)
        };
        let expected: BTreeSet<_> =
            named.iter().filter(|(_, s)| may_be_called(*s)).map(|(text, _)| at(text)).collect();
        let standing = standing_of(&named);
        let affinity = Affinity::default();
        let mut random = splitmix(seed);
        let mut seen = BTreeSet::new();
        for number in 0..2000_u16 {
            let [high, low] = number.to_be_bytes();
            let client = Client { mode, ..from([10, 9, high, low]) };
            match choose(&served, &client, None, &standing, &affinity, &mut random, Instant::now()) {
                Ok(choice) => {
                    prop_assert!(expected.contains(&choice.backend.at));
                    prop_assert_eq!(choice.is_plain, standing(&choice.backend) == Standing::Plain);
                    seen.insert(choice.backend.at);
                }
                Err(_) => prop_assert!(expected.is_empty()),
            }
        }
        prop_assert_eq!(seen, expected);
    }

    /// Whatever becomes of the others, a client keeps its endpoint as long as that may be called and it calls in time.
    #[test]
    fn affinity_holds(steps in prop::collection::vec((prop::collection::vec(standing(), 3), 0..90_u64), 1..40)) {
        let (served, affinity, mut now) = (sticky(), Affinity::default(), Instant::now());
        let client = from([10, 1, 9, 1]);
        let mut last: Option<(SocketAddr, Instant)> = None;
        for (standings, pause) in steps {
            now += Duration::from_secs(pause);
            let named: Vec<_> = ALL.into_iter().zip(standings).collect();
            let standing = standing_of(&named);
            let choice = choose(&served, &client, None, &standing, &affinity, || 0, now);
            if let Some((endpoint, since)) = last
                && now < since + TIMEOUT
                && standing(&Backend { at: endpoint, pod: None }) == Standing::Protected
            {
                prop_assert_eq!(choice.as_ref().map(|choice| choice.backend.at), Ok(endpoint));
            }
            if let Ok(choice) = choice {
                last = Some((choice.backend.at, now));
            }
        }
    }
}

/// Numbers without a pattern (Steele, Lea and Flood, 2014).
fn splitmix(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
