//! Pins, and where external peers are, as the configuration writes them.
//!
//! A place prints as what reads back the same, and a digest has one meaning.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sheath::desired::Place;
use sheath::x509::Fingerprint;

fuzz_target!(|text: &str| {
    if let Ok(place) = Place::try_from(text.to_owned()) {
        assert_eq!(Place::try_from(place.to_string()), Ok(place.clone()));
        if let Place::Named { name, port } = place {
            assert_ne!(port, Some(0));
            assert!(name.as_ref().parse::<std::net::IpAddr>().is_err());
            assert!(!name.as_ref().contains(char::is_uppercase) && !name.as_ref().ends_with('.'));
        }
    }
    if let Some(fingerprint) = Fingerprint::parse(text) {
        assert_eq!(Fingerprint::parse(&fingerprint.to_string()), Some(fingerprint));
    }
});
