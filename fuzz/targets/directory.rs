//! What the controller tells of the cluster: all of it or a change, with Services.
//!
//! What is believed is of the trust domain, and the kernel turns to the agent whatever is to be protected.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use sheath::controller_api::directory::FollowResponse;
use sheath::directory::{Directory, Ports, Read, Reader, Standing};
use sheath::spiffe::TrustDomain;
use sheath_common::verdict::Known;

fuzz_target!(|input: &[u8]| {
    let Ok(message) = FollowResponse::decode(input) else { return };
    let domain: TrustDomain = "example.org".parse().expect("a trust domain");
    let mut reader = Reader::new(domain.clone());
    let Ok(read) = reader.read(message) else { return };
    let _ = reader.take_services();
    let directory = match read {
        Read::All(collected) => collected.complete(&Directory::unknown()).0,
        Read::Delta(delta) => match Directory::unknown().after(delta) {
            Ok((directory, _)) => directory,
            Err(_) => return,
        },
        Read::More | Read::Own(_) => return,
    };
    for (address, entry) in directory.entries() {
        let known = directory.kernel_entries(*address);
        assert!(!known.is_empty());
        match &entry.standing {
            Standing::Plain => assert!(known.iter().all(|(_, known)| *known == Known::PLAIN)),
            Standing::Pending { .. } => {
                assert!(known.iter().all(|(_, known)| *known == Known::REFUSE));
            }
            Standing::Protected { identity, ports } => {
                assert_eq!(identity.id.trust_domain(), &domain);
                let protected = known.iter().filter(|(_, known)| *known == Known::PROTECT).count();
                let expected = match ports {
                    Ports::Every => 1,
                    Ports::These(ports) => ports.len(),
                };
                assert_eq!(protected, expected);
            }
        }
    }
});
