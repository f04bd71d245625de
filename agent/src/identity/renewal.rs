//! Renewal of SVIDs well before they expire.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::SecureRandom;

use super::{CaError, EmbeddedCa, Snapshot, Svid};

/// Pause after a failed attempt, at most.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Keeps one workload's SVID fresh: issues a new one somewhere in the sixth tenth of the old one's life (the
/// jitter spreads the work of many workloads that started together) and hands it to `publish`. A failure
/// leaves the old one in place and is tried again.
pub async fn keep_renewed(
    ca: Arc<EmbeddedCa>,
    mut current: Arc<Svid>,
    random: &'static dyn SecureRandom,
    publish: impl Fn(Snapshot),
) {
    loop {
        tokio::time::sleep(until_renewal(&current, SystemTime::now(), jitter(random))).await;
        let mut pause = Duration::from_secs(1);
        loop {
            match ca.issue(&current.id) {
                Ok(snapshot) => {
                    tracing::info!(id = %snapshot.svid.id, serial = %snapshot.svid.serial, "SVID renewed");
                    current = snapshot.svid.clone();
                    publish(snapshot);
                    break;
                }
                Err(error) => report_failure(&current, &error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_RETRY);
        }
    }
}

fn report_failure(svid: &Svid, error: &CaError) {
    tracing::error!(id = %svid.id, %error, "SVID not renewed; the old one stays until it expires");
}

/// Between 0 and 1.
fn jitter(random: &dyn SecureRandom) -> f64 {
    let mut byte = [0x80];
    // Without randomness everybody renews in the middle of the window.
    let _ = random.fill(&mut byte);
    f64::from(byte[0]) / 255.0
}

/// Time from `now` to the renewal of `svid`, for a jitter between 0 and 1.
fn until_renewal(svid: &Svid, now: SystemTime, jitter: f64) -> Duration {
    let life = svid.not_after.duration_since(svid.issued).unwrap_or_default();
    let renewal = svid.issued + life.mul_f64(0.5 + jitter / 10.0);
    renewal.duration_since(now).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tempfile::TempDir;

    fn ca(ttl: Duration) -> (TempDir, Arc<EmbeddedCa>) {
        let directory = tempfile::tempdir().unwrap();
        let domain = "example.org".parse().unwrap();
        EmbeddedCa::init(directory.path(), &domain).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let ca = EmbeddedCa::load(directory.path(), &domain, ttl, provider).unwrap();
        (directory, Arc::new(ca))
    }

    #[test]
    fn renewal_falls_into_the_sixth_tenth_of_the_lifetime() {
        let (_directory, ca) = ca(Duration::from_secs(1000));
        let svid = ca.issue(&"spiffe://example.org/web".parse().unwrap()).unwrap().svid;
        for jitter in [0.0, 0.3, 1.0] {
            let wait = until_renewal(&svid, svid.issued, jitter).as_secs();
            assert!((500..=600).contains(&wait), "{wait}");
        }
        assert_eq!(until_renewal(&svid, svid.not_after, 0.5), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_renewed_svid_is_published_with_the_same_id_and_another_key() {
        let (_directory, ca) = ca(Duration::from_secs(2));
        let first = ca.issue(&"spiffe://example.org/web".parse().unwrap()).unwrap().svid;
        let published = Arc::new(Mutex::new(Vec::new()));
        let sink = published.clone();
        let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
        let renewal = tokio::spawn(keep_renewed(ca, first.clone(), random, move |snapshot| {
            sink.lock().unwrap().push(snapshot.svid);
        }));
        while published.lock().unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        renewal.abort();
        for svid in published.lock().unwrap().iter() {
            assert_eq!(svid.id, first.id);
            assert_ne!(svid.serial, first.serial);
        }
    }
}
