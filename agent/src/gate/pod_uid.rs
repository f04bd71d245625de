//! The uid of a pod, as the runtime and the kubelet write it.

use std::fmt;
use std::str::FromStr;

/// What a pod is known by: a UUID, or the 32 hex digits that a kubelet makes of a static pod's manifest (Kubernetes,
/// `pkg/kubelet/config/common.go`). The name of a pod can come back, its uid does not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(Box<str>);

/// Why something is not the uid of a pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has no uid of a pod: a UUID, or 32 hex digits")]
pub struct NotAPodUid;

/// Where a UUID has its hyphens (RFC 9562, section 4).
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

impl FromStr for PodUid {
    type Err = NotAPodUid;

    fn from_str(text: &str) -> Result<Self, NotAPodUid> {
        let is_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        let fits = match text.len() {
            32 => text.bytes().all(is_hex),
            36 => text
                .bytes()
                .enumerate()
                .all(|(at, c)| if HYPHENS.contains(&at) { c == b'-' } else { is_hex(c) }),
            _ => false,
        };
        if fits { Ok(Self(text.into())) } else { Err(NotAPodUid) }
    }
}

impl PodUid {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for a pod from a file of the node, which the API server has not made.
    #[must_use]
    pub fn is_static(&self) -> bool {
        self.0.len() == 32
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_a_uuid_or_the_digest_of_a_manifest() {
        let uuid: PodUid = "0f5b0d5e-7a54-4a0e-8f0e-2f9d3c1b7a66".parse().unwrap();
        assert!(!uuid.is_static());
        assert_eq!(uuid.to_string(), "0f5b0d5e-7a54-4a0e-8f0e-2f9d3c1b7a66");
        let digest: PodUid = "b1946ac92492d2347c6235b4d2611184".parse().unwrap();
        assert!(digest.is_static());
        for text in [
            "",
            "pod",
            "0f5b0d5e_7a54_4a0e_8f0e_2f9d3c1b7a66",
            "0F5B0D5E-7a54-4a0e-8f0e-2f9d3c1b7a66",
            "0f5b0d5e-7a54-4a0e-8f0e-2f9d3c1b7a6",
            "0f5b0d5e-7a54-4a0e-8f0e-2f9d3c1b7a6g",
            "0f5b0d5e7-a54-4a0e-8f0e-2f9d3c1b7a66",
            "b1946ac92492d2347c6235b4d261118/",
        ] {
            assert_eq!(text.parse::<PodUid>(), Err(NotAPodUid), "{text}");
        }
    }
}
