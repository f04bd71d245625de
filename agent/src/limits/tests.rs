use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::metrics::Registry;
use crate::wire::buffers::Size;

fn quotas(limits: Limits) -> Arc<Quotas> {
    Arc::new(Quotas::with_capacity(limits, 4, 10))
}

fn limits(flows: Option<usize>) -> Limits {
    Limits { flows, handshakes_per_second: 100, buffers: 1 << 20 }
}

fn registry(quotas: &Arc<Quotas>) -> Registry {
    let mut registry = Registry::new(|workload| Some(format!("w{workload}")));
    quotas.register(&mut registry).unwrap();
    registry
}

#[test]
fn a_workload_has_no_more_flows_than_it_may() {
    let quotas = quotas(limits(Some(2)));
    let first = quotas.admit(1).unwrap();
    let _second = quotas.admit(1).unwrap();
    assert_eq!(quotas.admit(1).unwrap_err(), QuotaExceeded::Flows(2));
    assert!(quotas.admit(2).is_ok(), "another workload pays for it");
    drop(first);
    assert!(quotas.admit(1).is_ok());
}

#[test]
fn all_workloads_together_have_no_more_than_there_is() {
    let quotas = quotas(limits(None));
    let held: Vec<_> = (0..10).map(|workload| quotas.admit(workload).unwrap()).collect();
    assert_eq!(quotas.admit(99).unwrap_err(), QuotaExceeded::Capacity(10));
    drop(held);
    // By default nobody can have all of it.
    let held: Vec<_> = std::iter::from_fn(|| quotas.admit(1).ok()).collect();
    assert_eq!(held.len(), 5);
    assert_eq!(quotas.admit(1).unwrap_err(), QuotaExceeded::Share(5));
    let counted = registry(&quotas).snapshot();
    let refused = |workload| counted.labelled("flows_refused", "workload", workload);
    assert_eq!((refused("w99"), refused("w1"), refused("w2")), (1, 2, 0));
    assert_eq!(counted.total("flows_refused"), 3);
}

/// Whoever takes all that can be got, and in whatever order.
#[test]
fn two_greedy_workloads_leave_a_third_what_it_needs() {
    let quotas = Quotas::with_capacity(limits(None), 4, 6400);
    let all_of = |workload| std::iter::from_fn(|| quotas.admit(workload).ok()).collect::<Vec<_>>();
    // One after the other.
    let (first, second) = (all_of(1), all_of(2));
    assert_eq!((first.len(), second.len()), (3200, 1066));
    let third: Vec<_> = (0..300).map(|_| quotas.admit(3).unwrap()).collect();
    drop((first, second, third));
    // In turns.
    let mut greedy = [Vec::new(), Vec::new()];
    let count = |greedy: &[Vec<Permit>]| greedy.iter().map(Vec::len).sum::<usize>();
    loop {
        let before = count(&greedy);
        for (workload, flows) in (1..).zip(&mut greedy) {
            flows.extend(quotas.admit(workload).ok());
        }
        if count(&greedy) == before {
            break;
        }
    }
    assert!(greedy.iter().all(|flows| flows.len().abs_diff(1920) <= 1), "{}", greedy[0].len());
    let _third: Vec<_> = (0..600).map(|_| quotas.admit(3).unwrap()).collect();
    // A whole node of them leaves something, too.
    let crowd: Vec<_> = (10..210).map(all_of).collect();
    assert!(crowd.iter().all(|flows| flows.len() >= 6), "{:?}", crowd.last().map(Vec::len));
    assert_eq!(all_of(9).len(), 6);
}

/// Flows that come from the process before are not judged by what is free meanwhile.
#[test]
fn flows_of_another_process_are_taken_in_any_order() {
    let quotas = quotas(limits(None));
    let _others: Vec<_> = (0..4).map(|_| quotas.take(2).unwrap()).collect();
    let _own: Vec<_> = (0..6).map(|_| quotas.take(1).unwrap()).collect();
    assert!(quotas.take(1).is_err(), "there are no more");
    let written = Arc::new(Quotas::with_capacity(limits(Some(1)), 4, 10));
    let _one = written.take(1).unwrap();
    assert_eq!(written.take(1).unwrap_err(), QuotaExceeded::Flows(1));
}

#[tokio::test(start_paused = true)]
async fn handshakes_beyond_the_rate_wait_or_are_refused() {
    let quotas = quotas(limits(None));
    let quota = quotas.of(1);
    let start = tokio::time::Instant::now();
    for _ in 0..150 {
        quota.begin_handshake(Duration::from_secs(1)).await.unwrap();
    }
    assert!(start.elapsed() >= Duration::from_millis(450), "{:?}", start.elapsed());
    for _ in 0..20 {
        quota.begin_handshake(Duration::from_secs(1)).await.unwrap();
    }
    let hurried = quota.begin_handshake(Duration::ZERO).await;
    assert_eq!(hurried, Err(QuotaExceeded::Handshakes(100)));
    quotas.of(2).begin_handshake(Duration::ZERO).await.unwrap();
    let counted = registry(&quotas).snapshot();
    assert_eq!(counted.total("handshakes_refused"), 1);
    assert_eq!(counted.total("handshakes_delayed"), 70);
}

/// Or a host whose connections are cut as fast as it makes them could use up everybody's handshakes.
#[tokio::test(start_paused = true)]
async fn who_goes_away_while_waiting_for_a_handshake_keeps_nobody_waiting() {
    let quotas = quotas(limits(None));
    let quota = quotas.of(1);
    let limit = Duration::from_secs(10);
    for _ in 0..100 {
        quota.begin_handshake(limit).await.unwrap();
    }
    for _ in 0..5_000 {
        let begun = quota.begin_handshake(limit);
        tokio::time::timeout(Duration::ZERO, begun).await.unwrap_err();
    }
    let start = tokio::time::Instant::now();
    quota.begin_handshake(limit).await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
}

#[test]
fn strangers_take_none_of_the_flows_that_a_workload_may_have() {
    let quotas = quotas(limits(Some(2)));
    let mut strangers: Vec<_> = (0..5).map(|_| quotas.admit_unproven(1).unwrap()).collect();
    let _first = quotas.admit(1).unwrap();
    strangers[0].count_flow().unwrap();
    assert_eq!(strangers[1].count_flow(), Err(QuotaExceeded::Flows(2)));
    drop(strangers);
    assert!(quotas.admit(1).is_ok());
}

#[test]
fn the_quota_of_a_workload_that_is_gone_goes_when_nothing_of_it_is_left() {
    let quotas = quotas(limits(Some(1)));
    let registry = registry(&quotas);
    let workloads = || {
        let counted = registry.snapshot();
        let refused = counted.family("flows_refused").unwrap();
        (refused.series.len(), refused.total())
    };
    for workload in [1, 2, 3] {
        let _only = quotas.admit(workload).unwrap();
        assert!(quotas.admit(workload).is_err());
    }
    assert_eq!(workloads(), (3, 3));

    let flow = quotas.admit(1).unwrap();
    let lease = quotas.of(2).buffers.lease(Size::One);
    quotas.retain(|workload| workload == 3);
    assert_eq!(workloads(), (3, 3), "flows and sessions still have their quotas");
    drop((flow, lease));
    quotas.retain(|workload| workload == 3);
    assert_eq!(workloads(), (1, 3), "what was refused stays in the total");

    // A workload of that name may come again.
    let _flow = quotas.admit(1).unwrap();
    assert!(quotas.admit(1).is_err());
    assert_eq!(workloads(), (2, 4));
}
