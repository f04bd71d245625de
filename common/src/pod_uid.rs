//! The uid of a Kubernetes pod, as the API and the names of cgroups spell it.
//!
//! The API server gives a pod a random UUID (RFC 9562, 4) in lower case. The kubelet gives a static pod a digest of its manifest (MD5
//! once, FNV-1a in Kubernetes 1.37), which it writes as 32 hexadecimal digits (k/k pkg/kubelet/config/common.go, `applyDefaults`); the API
//! shows that in the annotation `kubernetes.io/config.hash` of the mirror pod. Both are 128 bits. A manifest may also name a uid of its own, which
//! need not be one of the two: such a pod has no uid here.

use core::fmt;
use core::str::FromStr;

/// A pod's uid. Key of the `PODS` map.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid {
    bytes: [u8; 16],
}

/// Length of a UUID, in characters.
pub const UUID_LEN: u32 = 36;
/// Length of a static pod's uid, in characters.
pub const HASH_LEN: u32 = 32;

/// A text that is no pod's uid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPodUid;

impl fmt::Display for NoPodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a pod's uid is a UUID in lower case, or 32 hexadecimal digits for a static pod",
        )
    }
}

impl core::error::Error for NoPodUid {}

impl PodUid {
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self { bytes }
    }

    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.bytes
    }
}

/// As the API writes it: a UUID, or 32 digits. Nothing else is taken, not even upper case: the kubelet copies the text into
/// the name of the cgroup, and one pod must not have two names.
impl FromStr for PodUid {
    type Err = NoPodUid;

    fn from_str(text: &str) -> Result<Self, NoPodUid> {
        let len = u32::try_from(text.len()).map_err(|_| NoPodUid)?;
        let mut reader = UidReader::default();
        let is_uid =
            reader.begin(len) && text.bytes().all(|character| reader.take(character, b'-'));
        if is_uid { Ok(reader.uid) } else { Err(NoPodUid) }
    }
}

/// As a UUID, a static pod's too. It reads back as the same uid.
impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.bytes.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads a uid one character at a time, so that `bpf_loop` can drive it in the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UidReader {
    uid: PodUid,
    /// Length of the whole text.
    len: u32,
    /// Characters taken.
    at: u32,
    /// Digits among them.
    digits: u32,
}

impl UidReader {
    /// Begins with a text of so many characters. False if no uid is that long.
    #[inline(always)]
    pub fn begin(&mut self, len: u32) -> bool {
        *self = Self { len, ..Self::default() };
        len == UUID_LEN || len == HASH_LEN
    }

    /// Takes the next character, of as many as [`Self::begin`] was told. False if no uid has it in that place. The
    /// `separator` stands between the groups of a UUID.
    #[inline(always)]
    pub fn take(&mut self, character: u8, separator: u8) -> bool {
        let at = self.at;
        self.at += 1;
        if self.len == UUID_LEN && (at == 8 || at == 13 || at == 18 || at == 23) {
            return character == separator;
        }
        let digit = if character.is_ascii_digit() {
            character - b'0'
        } else if matches!(character, b'a'..=b'f') {
            character - b'a' + 10
        } else {
            return false;
        };
        let byte = &mut self.uid.bytes[(self.digits / 2) as usize & 15];
        *byte = *byte << 4 | digit;
        self.digits += 1;
        true
    }

    /// What has been read: a uid once all characters were taken.
    #[inline(always)]
    #[must_use]
    pub const fn uid(&self) -> &PodUid {
        &self.uid
    }

    /// True if this is the uid of a static pod, or of one whose manifest gives it 32 digits.
    #[inline(always)]
    #[must_use]
    pub const fn is_hash(&self) -> bool {
        self.len == HASH_LEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_spellings_are_read() {
        let uuid: PodUid = "0a1b2c3d-4e5f-4789-8abc-def012345678".parse().unwrap();
        let hash: PodUid = "0a1b2c3d4e5f47898abcdef012345678".parse().unwrap();
        assert_eq!(uuid, hash);
        assert_eq!(uuid.to_bytes()[..4], [0x0a, 0x1b, 0x2c, 0x3d]);
        assert_eq!(uuid.to_string(), "0a1b2c3d-4e5f-4789-8abc-def012345678");
    }

    #[test]
    fn nothing_else_is() {
        for text in [
            "",
            "-",
            "0a1b2c3d-4e5f-4789-8abc-def01234567",
            "0a1b2c3d-4e5f-4789-8abc-def0123456789",
            "0A1B2C3D-4E5F-4789-8ABC-DEF012345678",
            "0a1b2c3d_4e5f_4789_8abc_def012345678",
            "0a1b2c3d-4e5f-4789_8abc-def012345678",
            "0a1b2c3d4e5f-4789-8abc-def0-12345678",
            "0a1b2c3d4e5f47898abcdef01234567g",
            "0a1b2c3d4e5f47898abcdef01234567",
            "0a1b2c3d4e5f47898abcdef0123456789",
            "{0a1b2c3d-4e5f-4789-8abc-def01234567}",
            "urn:uuid:0a1b2c3d-4e5f-4789-8abc-def0",
            " 0a1b2c3d4e5f47898abcdef0123456 ",
            "0a1b2c3d-4e5f-4789-8abc-def01234567é",
        ] {
            assert_eq!(text.parse::<PodUid>(), Err(NoPodUid), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(bytes: [u8; 16]) {
            let uid = PodUid::from_bytes(bytes);
            prop_assert_eq!(uid.to_string().parse(), Ok(uid));
            prop_assert_eq!(uid.to_string().replace('-', "").parse(), Ok(uid));
        }

        #[test]
        fn what_reads_has_one_of_two_spellings(text in "[0-9a-g_-]{31,37}") {
            if let Ok(uid) = text.parse::<PodUid>() {
                let uuid = uid.to_string();
                prop_assert!(text == uuid || text == uuid.replace('-', ""));
            }
        }
    }
}

#[cfg(feature = "user")]
mod as_text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::PodUid;

    impl Serialize for PodUid {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(self)
        }
    }

    impl<'de> Deserialize<'de> for PodUid {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            <&str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        }
    }
}
