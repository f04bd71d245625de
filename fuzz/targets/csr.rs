//! A certification request of an agent, at the controller.
//!
//! The key that is certified stands in it byte for byte, and nothing stands around the request.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rcgen::PublicKeyData;
use sheath::controller::csr::{self, CsrError};

fuzz_target!(|der: &[u8]| {
    let Ok(key) = csr::key(der) else { return };
    assert!(der.len() <= csr::LONGEST);
    let key = key.subject_public_key_info();
    assert!(der.windows(key.len()).any(|window| window == key));

    // That whoever has made it has the key is proved by its last bytes.
    let mut other = der.to_vec();
    if let Some(last) = other.last_mut() {
        *last ^= 1;
    }
    assert!(csr::key(&other).is_err());
    let longer = [der, b"\0"].concat();
    assert_eq!(csr::key(&longer).err(), Some(CsrError::Malformed));
    assert!(csr::key(&der[..der.len() - 1]).is_err());
});
