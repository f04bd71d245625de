use super::*;

fn pod(change: impl FnOnce(&mut KnownPod)) -> KnownPod {
    let mut pod = KnownPod {
        namespace: "shop".into(),
        service_account: "web".into(),
        node: "node-a".into(),
        is_mirror: false,
        is_over: false,
        ends: None,
    };
    change(&mut pod);
    pod
}

#[test]
fn only_pods_that_live_get_an_identity() {
    let (uid, now) = (PodUid::from_bytes([7; 16]), SystemTime::now());
    let judged = |change: fn(&mut KnownPod)| check(&pod(change), uid, now);
    assert!(judged(|_| {}).is_ok());
    assert!(
        judged(|pod| pod.ends = Some(SystemTime::now() + LENIENCE)).is_ok(),
        "within its grace"
    );
    assert!(matches!(judged(|pod| pod.node = "".into()), Err(SignError::Unknown(_))));
    assert!(matches!(judged(|pod| pod.is_mirror = true), Err(SignError::Mirror(_))));
    assert!(matches!(judged(|pod| pod.is_over = true), Err(SignError::Over(_))));
    let long_ago = |pod: &mut KnownPod| pod.ends = Some(SystemTime::now() - 2 * LENIENCE);
    assert!(matches!(judged(long_ago), Err(SignError::Deleted(_))));
}

#[test]
fn a_node_has_a_burst_and_then_a_rate() {
    let start = Instant::now();
    let mut bucket = Bucket { left: BURST, seen: start };
    let taken = (0..2000).filter(|_| bucket.take(start)).count();
    assert_eq!(taken, BURST as usize);
    let later = start + Duration::from_secs(1);
    let taken = (0..2000).filter(|_| bucket.take(later)).count();
    assert_eq!(taken, PER_SECOND as usize);
    let much_later = later + Duration::from_secs(3600);
    let taken = (0..2000).filter(|_| bucket.take(much_later)).count();
    assert_eq!(taken, BURST as usize);
}
