//! Looking for private keys where they must not be, in every form in which a program may let one slip.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use memchr::memmem;

use crate::ca::Leaf;
use crate::wait::{self, GENEROUS};

/// In PKCS#8 (RFC 5208) of an elliptic curve key (RFC 5915), what stands before the 32 bytes of a P-256 key.
const BEFORE_SCALAR: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];

/// Bytes of a key that are enough to know it by.
const PART: usize = 10;

/// Private keys, and what they look like.
#[derive(Default)]
pub struct Secrets {
    forms: Vec<(String, Vec<u8>)>,
}

impl Secrets {
    #[must_use]
    pub fn and(mut self, name: &str, leaf: &Leaf) -> Self {
        self.add(name, leaf.key.secret_der());
        self
    }

    /// A P-256 key in PKCS#8.
    pub fn add(&mut self, name: &str, pkcs8: &[u8]) {
        let at = memmem::find(pkcs8, &BEFORE_SCALAR).expect("a P-256 key");
        let scalar = &pkcs8[at + BEFORE_SCALAR.len()..][..32];
        for (form, bytes) in forms(scalar) {
            self.forms.push((format!("{name} as {form}"), bytes));
        }
    }

    /// Which key is in there, and how.
    pub fn find(&self, haystack: &[u8]) -> Vec<&str> {
        let is_in = |bytes: &Vec<u8>| memmem::find(haystack, bytes).is_some();
        self.forms.iter().filter(|(_, bytes)| is_in(bytes)).map(|(name, _)| name.as_str()).collect()
    }

    #[track_caller]
    pub fn assert_none(&self, what: &str, haystack: &[u8]) {
        assert!(!haystack.is_empty(), "{what} is empty");
        assert_eq!(self.find(haystack), Vec::<&str>::new(), "in {what}");
    }

    /// What of them is in the memory of a process: everything that it can write to and does not share.
    pub fn in_memory(&self, pid: u32) -> Vec<&str> {
        // Mappings come and go: only a look at all of them says what is not there.
        wait::try_for(GENEROUS, || self.look(pid)).expect("memory that can be read as a whole")
    }

    /// `None` if a mapping has gone in between.
    fn look(&self, pid: u32) -> Option<Vec<&str>> {
        let memory = File::open(format!("/proc/{pid}/mem")).expect("the memory of the process");
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("its mappings");
        let mut found: Vec<&str> = Vec::new();
        for line in maps.lines().filter(|line| line.contains(" rw-p ")) {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
            let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
            memory.read_exact_at(&mut bytes, from).ok()?;
            found.extend(self.find(&bytes));
        }
        Some(found)
    }
}

fn forms(scalar: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let hex = |separator: &str, part: &[u8]| {
        let digits: Vec<_> = part.iter().map(|byte| format!("{byte:02x}")).collect();
        digits.join(separator)
    };
    let numbers = |bytes: &[u8]| -> Vec<_> { bytes.iter().map(u8::to_string).collect() };
    let decimal = numbers(&scalar[..PART]);
    let escaped = scalar[..PART].escape_ascii().to_string();
    let in_json = serde_json::to_string(&escaped).expect("a string");
    let reversed: Vec<u8> = scalar.iter().rev().copied().collect();
    let mut forms = vec![
        ("bytes", scalar.to_vec()),
        // As aws-lc has it in memory.
        ("bytes in reverse", reversed),
        ("hexadecimal digits", hex("", &scalar[..PART]).into_bytes()),
        ("hexadecimal digits of its end", hex("", &scalar[32 - PART..]).into_bytes()),
        ("capital digits", hex("", &scalar[..PART]).to_uppercase().into_bytes()),
        ("digits with colons", hex(":", &scalar[..PART]).into_bytes()),
        ("a list of numbers", decimal.join(", ").into_bytes()),
        ("numbers in JSON", decimal.join(",").into_bytes()),
        ("an escaped string in JSON", in_json.trim_matches('"').as_bytes().to_vec()),
        ("an escaped string", escaped.into_bytes()),
    ];
    // Wherever in a text it begins. A line may end within it, but not twice.
    for shift in 0..3 {
        let base64 = base64_within(scalar, shift);
        let (start, end) = (&base64[..16], &base64[base64.len() - 16..]);
        forms.extend([("base64", start.to_vec()), ("the end of base64", end.to_vec())]);
        for text in [start, end] {
            let numbers = numbers(text);
            forms.push(("base64 as a list of numbers", numbers.join(", ").into_bytes()));
            forms.push(("base64 as numbers in JSON", numbers.join(",").into_bytes()));
        }
    }
    forms
}

/// What base64 makes of bytes that come after some others: the part that depends on nothing else.
pub(crate) fn base64_within(bytes: &[u8], shift: usize) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let skipped = (3 - shift) % 3;
    bytes[skipped..]
        .chunks_exact(3)
        .flat_map(|chunk| {
            let bits = u32::from_be_bytes([0, chunk[0], chunk[1], chunk[2]]);
            [18, 12, 6, 0].map(|shift| ALPHABET[(bits >> shift & 63) as usize])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::Ca;

    /// A scan that finds nothing is worth as much as it can find.
    #[test]
    fn keys_are_found_in_every_form() {
        let leaf = Ca::private().issue("spiffe://example.org/web");
        let other = Ca::private().issue("spiffe://example.org/web");
        let (der, secrets) = (leaf.key.secret_der(), Secrets::default().and("web", &leaf));
        let hex: String = der.iter().map(|byte| format!("{byte:02x}")).collect();
        // Base64 in lines of 64 characters, with the rest of the file; and without line breaks.
        let pem = leaf.key_pem().as_bytes().to_vec();
        let joined = leaf.key_pem().replace('\n', "");
        let logged = serde_json::to_string(&der.escape_ascii().to_string());
        for (form, text) in [
            ("bytes", der.to_vec()),
            ("PEM", pem),
            ("base64", joined.into_bytes()),
            ("upper", hex.to_uppercase().into_bytes()),
            ("Debug", format!("{der:?}").into_bytes()),
            ("JSON", serde_json::to_vec(der).unwrap()),
            ("hex", hex.into_bytes()),
            ("logged", logged.unwrap().into_bytes()),
            ("text as bytes", format!("{:?}", leaf.key_pem().as_bytes()).into_bytes()),
        ] {
            assert!(!secrets.find(&text).is_empty(), "{form}");
        }
        assert!(secrets.find(other.key.secret_der()).is_empty());
        assert!(secrets.find(leaf.certificate_pem().as_bytes()).is_empty());
        assert!(!secrets.in_memory(std::process::id()).is_empty());
    }
}
