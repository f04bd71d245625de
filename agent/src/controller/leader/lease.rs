//! The Lease as the API has it (`coordination.k8s.io/v1`).

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

use super::election::{LEASE, Record, Step};

pub fn read(lease: &Lease) -> Record {
    let spec = lease.spec.as_ref();
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds);
    Record {
        holder: spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default(),
        lease: seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

/// The Lease with our name in it. `found` is as it was read.
pub fn written(name: &str, own: &str, found: Option<&Lease>, step: Step) -> Lease {
    let now = MicroTime(Timestamp::now());
    let mut lease = found.cloned().unwrap_or_else(|| Lease {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: None,
    });
    let before = lease.spec.take().unwrap_or_default();
    let is_renewed = step == Step::Renew;
    let transitions = before.lease_transitions.unwrap_or_default();
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(own.to_owned()),
        lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
        acquire_time: before.acquire_time.filter(|_| is_renewed).or(Some(now.clone())),
        renew_time: Some(now),
        lease_transitions: Some(match step {
            Step::Take => transitions.saturating_add(1),
            _ => transitions,
        }),
        ..before
    });
    lease
}

/// The same Lease, which nobody holds.
pub fn freed(mut lease: Lease) -> Lease {
    if let Some(spec) = &mut lease.spec {
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
    }
    lease
}

/// The address in a holder's name, `<pod>/<address>`.
pub fn address(holder: &str) -> Option<SocketAddr> {
    holder.split_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let lease = written("name", "pod-1/10.0.0.1:15443", None, Step::Make);
        let record = read(&lease);
        assert_eq!(record.holder, "pod-1/10.0.0.1:15443");
        assert_eq!(record.lease, Some(LEASE));
        assert_eq!(address(&record.holder), Some(([10, 0, 0, 1], 15443).into()));
        let acquired = |lease: &Lease| lease.spec.as_ref().unwrap().acquire_time.clone();
        let transitions = |lease: &Lease| lease.spec.as_ref().unwrap().lease_transitions;
        let renewed = written("name", "pod-1/10.0.0.1:15443", Some(&lease), Step::Renew);
        assert_eq!((acquired(&renewed), transitions(&renewed)), (acquired(&lease), Some(0)));
        let taken = written("name", "pod-2/[fd00::1]:15443", Some(&renewed), Step::Take);
        assert_ne!(acquired(&taken), acquired(&lease));
        assert_eq!(transitions(&taken), Some(1));
        assert_eq!(address(&read(&taken).holder).unwrap().to_string(), "[fd00::1]:15443");
        assert_eq!(read(&freed(taken)).holder, "");
    }

    #[test]
    fn a_lease_of_somebody_else_may_say_anything() {
        assert_eq!(read(&Lease::default()), Record::default());
        for (seconds, expected) in [(0, None), (-5, None), (7, Some(Duration::from_secs(7)))] {
            let spec = LeaseSpec { lease_duration_seconds: Some(seconds), ..LeaseSpec::default() };
            let lease = Lease { spec: Some(spec), ..Lease::default() };
            assert_eq!(read(&lease).lease, expected);
        }
        for holder in ["", "pod", "pod/", "pod/host:1", "/10.0.0.1"] {
            assert_eq!(address(holder), None, "{holder}");
        }
    }
}
