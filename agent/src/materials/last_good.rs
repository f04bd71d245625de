//! The last good content of something that others may change, and break, at any time.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::MaterialError;
use crate::x509::Fingerprint;

/// The last good content of something, and why its current content is not used, if it is not. It does not know where the
/// content comes from.
#[derive(Clone, Debug)]
pub struct LastGood<T> {
    pub value: Option<T>,
    /// When `value` was first read.
    pub since: SystemTime,
    /// Why the current content is not used.
    pub problem: Option<Arc<MaterialError>>,
    fingerprint: Option<Fingerprint>,
}

impl<T> Default for LastGood<T> {
    fn default() -> Self {
        Self { value: None, since: SystemTime::UNIX_EPOCH, problem: None, fingerprint: None }
    }
}

impl<T> LastGood<T> {
    /// True before the first read.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.value.is_none() && self.problem.is_none()
    }

    /// Takes the result of a read, with a digest of the content. Returns true if the value has changed.
    pub fn take(
        &mut self,
        what: &impl fmt::Display,
        read: Result<(T, Fingerprint), MaterialError>,
    ) -> bool {
        match read {
            Ok((_, fingerprint)) if self.fingerprint == Some(fingerprint) => {
                self.problem = None;
                false
            }
            Ok((value, fingerprint)) => {
                if self.value.is_some() {
                    tracing::info!(file = %what, "read again");
                }
                *self = Self {
                    value: Some(value),
                    since: SystemTime::now(),
                    problem: None,
                    fingerprint: Some(fingerprint),
                };
                true
            }
            Err(problem) => {
                let told = self.problem.as_ref().map(ToString::to_string);
                if told != Some(problem.to_string()) {
                    let kept = self.value.is_some();
                    tracing::error!(file = %what, kept, %problem, "cannot be used");
                }
                self.problem = Some(problem.into());
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_good_stays_until_something_else_is() {
        let mut kept = LastGood::default();
        let read = |value: &'static str| Ok((value, Fingerprint::of(value.as_bytes())));
        let bad = || Err(MaterialError::NotValidNow("/a.pem".into()));
        assert!(!kept.take(&"a", bad()));
        assert!(kept.value.is_none() && kept.problem.is_some());
        assert!(kept.take(&"a", read("one")));
        assert!(kept.problem.is_none());
        let since = kept.since;
        assert!(!kept.take(&"a", bad()));
        assert!(kept.problem.is_some());
        // The same again: that it was bad meanwhile changes nothing.
        assert!(!kept.take(&"a", read("one")));
        assert_eq!((kept.value, kept.since), (Some("one"), since));
        assert!(kept.problem.is_none());
        assert!(kept.take(&"a", read("two")));
        assert_eq!(kept.value, Some("two"));
    }
}
