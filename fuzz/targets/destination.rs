//! Destinations, as the configuration writes them.
//!
//! One that is accepted means exactly what it says, and prints as what reads back the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sheath::desired::Destination;

fuzz_target!(|text: &str| {
    match Destination::try_from(text.to_owned()) {
        Ok(destination) => {
            assert_eq!(destination.prefix.addr(), destination.prefix.network());
            assert_ne!(destination.port, Some(0));
            let printed = destination.to_string();
            assert_eq!(Destination::try_from(printed), Ok(destination));
        }
        Err(error) => assert!(error.contains(text)),
    }
});
