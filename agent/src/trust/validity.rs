//! The times at which something holds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::{CertificateDer, UnixTime};

use crate::x509::CertificateFacts;

/// A span of time in whole seconds, both ends included, as certificates have it (RFC 5280, 4.1.2.5). Contains
/// nothing if it ends before it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    from: UnixTime,
    until: UnixTime,
}

impl Validity {
    pub const ALWAYS: Self = Self { from: seconds(0), until: seconds(u64::MAX) };
    pub const NEVER: Self = Self { from: seconds(1), until: seconds(0) };

    /// `None` if the certificate cannot be parsed.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        Self::stated(&CertificateFacts::of(certificate).ok()?)
    }

    /// As a certificate states it.
    #[must_use]
    pub fn stated(facts: &CertificateFacts) -> Option<Self> {
        Some(Self { from: unix_time(facts.not_before)?, until: unix_time(facts.not_after)? })
    }

    /// Up to and with a second.
    #[must_use]
    pub fn until(end: UnixTime) -> Self {
        Self { until: end, ..Self::ALWAYS }
    }

    /// Up to, but not at, a time.
    #[must_use]
    pub fn before(end: SystemTime) -> Self {
        match unix_time(end).and_then(|end| end.as_secs().checked_sub(1)) {
            Some(last) => Self { until: seconds(last), ..Self::ALWAYS },
            None => Self::NEVER,
        }
    }

    /// Where both hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), until: self.until.min(other.until) }
    }

    /// Its first second.
    #[must_use]
    pub fn start(self) -> UnixTime {
        self.from
    }

    /// Its last second.
    #[must_use]
    pub fn end(self) -> UnixTime {
        self.until
    }

    #[must_use]
    pub fn contains(self, time: UnixTime) -> bool {
        self.from <= time && time <= self.until
    }
}

const fn seconds(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn unix_time(time: SystemTime) -> Option<UnixTime> {
    time.duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
}
