use super::*;
use crate::kubernetes::Wish;

fn pod(change: impl FnOnce(&mut KnownPod)) -> KnownPod {
    let mut pod = KnownPod {
        namespace: "shop".into(),
        service_account: "web".into(),
        node: "node-a".into(),
        is_mirror: false,
        lifetime: Lifetime::Living,
        ends: None,
        host_network: false,
        addresses: Box::default(),
        wish: Wish::Unsaid,
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
    assert!(matches!(judged(|pod| pod.lifetime = Lifetime::Over), Err(SignError::Over(_))));
    let long_ago = |pod: &mut KnownPod| pod.ends = Some(SystemTime::now() - 2 * LENIENCE);
    assert!(matches!(judged(long_ago), Err(SignError::Deleted(_))));
}
