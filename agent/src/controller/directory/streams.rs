//! Which stream is a node's: there is one, the last that has begun. The one before ends.

use std::collections::HashMap;
use std::sync::Arc;

use sheath_common::pod_uid::PodUid;
use tokio_util::sync::CancellationToken;

/// Pods of a node that are remembered as replaced.
const MOST_REPLACED: usize = 8;

/// Another agent of the node follows in the place of this one. Two that replace one another for ever would keep everybody busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "another agent of this node follows in place of this one, in the pod {by}; are there two agents on the node?"
)]
pub struct NotBegun {
    by: PodUid,
}

/// The stream of each node.
#[derive(Debug, Default)]
pub struct Streams {
    of: HashMap<Arc<str>, Stream>,
    begun: u64,
}

#[derive(Debug)]
struct Stream {
    number: u64,
    pod: PodUid,
    /// Pods whose streams this one has ended, itself or by those before it.
    replaced: Vec<PodUid>,
    end: CancellationToken,
}

/// A stream that has begun.
#[derive(Clone, Debug)]
pub struct Begun {
    pub number: u64,
    /// Cancelled when another takes its place.
    pub end: CancellationToken,
}

impl Streams {
    /// A node's stream begins, from an agent in this pod.
    ///
    /// # Errors
    /// If that was replaced by the one that has a stream now.
    pub fn begin(&mut self, node: &Arc<str>, pod: PodUid) -> Result<Begun, NotBegun> {
        let mut replaced = Vec::new();
        if let Some(known) = self.of.get_mut(node) {
            if known.replaced.contains(&pod) {
                return Err(NotBegun { by: known.pod });
            }
            known.end.cancel();
            replaced = std::mem::take(&mut known.replaced);
            if known.pod != pod {
                replaced.push(known.pod);
            }
            if replaced.len() > MOST_REPLACED {
                replaced.remove(0);
            }
        }
        self.begun += 1;
        let (number, end) = (self.begun, CancellationToken::new());
        self.of.insert(node.clone(), Stream { number, pod, replaced, end: end.clone() });
        Ok(Begun { number, end })
    }

    /// True if this is the node's stream still.
    #[must_use]
    pub fn is_last(&self, node: &str, number: u64) -> bool {
        self.of.get(node).is_some_and(|stream| stream.number == number)
    }

    /// A stream has ended. Returns true if the node has none now.
    pub fn end(&mut self, node: &str, number: u64) -> bool {
        let is_last = self.is_last(node, number);
        if is_last {
            self.of.remove(node);
        }
        is_last
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.of.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(n: u8) -> PodUid {
        PodUid::from_bytes([n; 16])
    }

    #[test]
    fn a_newer_stream_takes_the_place_of_the_older_and_the_older_pod_does_not_come_back() {
        let mut streams = Streams::default();
        let [a, b]: [Arc<str>; 2] = ["a", "b"].map(Into::into);
        let old = streams.begin(&a, pod(1)).unwrap();
        let new = streams.begin(&a, pod(2)).unwrap();
        assert!(old.end.is_cancelled() && !new.end.is_cancelled());
        assert!(!streams.is_last("a", old.number) && streams.is_last("a", new.number));
        assert_eq!(streams.begin(&a, pod(1)).unwrap_err(), NotBegun { by: pod(2) });
        assert!(!new.end.is_cancelled(), "it is not disturbed");
        // The same agent may begin again, and others are nobody's business.
        let again = streams.begin(&a, pod(2)).unwrap();
        assert!(new.end.is_cancelled());
        streams.begin(&b, pod(1)).unwrap();
        assert!(streams.begin(&a, pod(1)).is_err());
        assert_eq!(streams.len(), 2);
        // What has been replaced is nobody's end.
        assert!(!streams.end("a", new.number));
        assert!(streams.end("a", again.number));
        streams.begin(&a, pod(1)).unwrap();
    }

    #[test]
    fn so_many_pods_are_remembered_and_no_more() {
        let mut streams = Streams::default();
        let node = "a".into();
        (0..100).for_each(|n| drop(streams.begin(&node, pod(n)).unwrap()));
        assert_eq!(streams.of["a"].replaced.len(), MOST_REPLACED);
        assert!(streams.begin(&node, pod(98)).is_err());
    }
}
