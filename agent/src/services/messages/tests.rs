use std::net::IpAddr;
use std::sync::Arc;

use prost::Message;

use super::*;
use crate::controller_api::services as api;
use crate::services::Change;
use crate::services::testing::{
    arbitrary_service, arbitrary_slice, endpoint, name, service, slice,
};
use proptest::prelude::*;

fn change() -> impl Strategy<Value = Change> {
    let slice_name = || (name("x").namespace, Arc::from("slice-1"));
    let address: IpAddr = [10, 1, 0, 1].into();
    prop_oneof![
        arbitrary_service().prop_map(|service| Change::Service(Arc::new(service))),
        arbitrary_slice().prop_map(|slice| Change::Slice(Arc::new(slice))),
        arbitrary_slice().prop_map(move |slice| Change::Endpoints {
            slice: slice_name(),
            now: slice.endpoints.into_iter().collect(),
            gone: vec![address],
        }),
        Just(Change::ServiceGone(name("web"))),
        Just(Change::SliceGone(slice_name())),
    ]
}

proptest! {
    #[test]
    fn what_is_told_is_understood(change in change()) {
        let messages = encode(std::slice::from_ref(&change));
        prop_assert_eq!(messages.len(), 1);
        for message in messages {
            let message = api::Services::decode(&message.encode_to_vec()[..]).unwrap();
            prop_assert_eq!(decode(message).unwrap(), vec![change.clone()]);
        }
    }

    #[test]
    fn no_message_makes_it_panic(changes in prop::collection::vec(change(), 0..5), at: prop::sample::Index, byte: u8) {
        for message in encode(&changes) {
            let mut bytes = message.encode_to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = api::Services::decode(&bytes[..]).map(decode);
        }
    }
}

#[test]
fn messages_are_short_however_much_there_is_to_tell() {
    let many = (0..2000_u32).map(|n| {
        let [_, _, high, low] = n.to_be_bytes();
        let endpoints = (1..=50).map(|n| endpoint(&format!("10.{high}.{low}.{n}"))).collect();
        Change::Slice(Arc::new(slice(&format!("slice-{n}"), &[("http", 80)], endpoints)))
    });
    let changes: Vec<_> = many.collect();
    let messages = encode(&changes);
    let longest = messages.iter().map(Message::encoded_len).max().unwrap();
    assert!(longest < 64 << 10, "{longest}");
    let told: usize = messages.into_iter().map(|message| decode(message).unwrap().len()).sum();
    assert_eq!(told, changes.len());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let good = || encode(&[Change::Service(Arc::new(service("web", "10.96.0.1")))]).remove(0);
    let slices = || {
        let slice = slice("a", &[("http", 80)], vec![endpoint("10.1.0.1")]);
        encode(&[Change::Slice(Arc::new(slice))]).remove(0)
    };
    type Refused = (api::Services, fn(&mut api::Services));
    let refused: [Refused; 11] = [
        (good(), |all| all.texts.clear()),
        (good(), |all| all.texts[0] = "../x".to_owned()),
        (good(), |all| all.services[0].name = None),
        (good(), |all| all.services[0].cluster[0] = vec![127, 0, 0, 1].into()),
        (good(), |all| all.services[0].cluster[0] = vec![10, 0, 0].into()),
        (good(), |all| all.services[0].ports[0].port = 65536),
        (good(), |all| all.services[0].balancer_clients = vec!["10.0.0.0".to_owned()]),
        (slices(), |all| all.slices[0].endpoints[0].pod_uid = vec![1; 15].into()),
        (slices(), |all| all.slices[0].endpoints[0].node = 9),
        (slices(), |all| all.slices[0].endpoints[0].zone_hints = vec![0]),
        (slices(), |all| {
            if let Some(whole) = &mut all.slices[0].whole {
                whole.service = String::new();
            }
        }),
    ];
    for (number, (mut message, change)) in refused.into_iter().enumerate() {
        assert!(decode(message.clone()).is_ok());
        change(&mut message);
        assert!(decode(message).is_err(), "{number}");
    }
}
