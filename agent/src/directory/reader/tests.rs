use super::*;
use crate::directory::testing;
use proptest::prelude::*;

fn reader() -> Reader {
    Reader::new("example.org".parse().unwrap())
}

fn delta(entries: api::Entries) -> api::FollowResponse {
    let position = Some(api::Position { epoch: 1, sequence: 2 });
    let delta = api::Delta { position, entries: Some(entries), ..api::Delta::default() };
    let bytes = delta.encode_to_vec().into();
    api::FollowResponse { message: Some(api::follow_response::Message::Delta(bytes)) }
}

fn page(number: u32, sequence: u64, last: bool) -> api::FollowResponse {
    let position = Some(api::Position { epoch: 1, sequence });
    let page = api::Page { position, number, last, ..api::Page::default() };
    let bytes = page.encode_to_vec().into();
    api::FollowResponse { message: Some(api::follow_response::Message::Page(bytes)) }
}

fn protected() -> api::Entries {
    let entry = api::Entry {
        address: vec![10, 1, 0, 1].into(),
        state: api::State::Protected.into(),
        uid_hash: 7,
        identity: 1,
        profile: 1,
        node: 0,
    };
    api::Entries {
        identities: vec!["spiffe://example.org/ns/shop/sa/web".to_owned()],
        nodes: vec!["node-b".to_owned()],
        profiles: vec![api::Profile { ports: vec![443, 80, 443] }],
        entries: vec![entry],
    }
}

#[test]
fn an_entry_is_read() {
    let Read::Delta(read) = reader().read(delta(protected())).unwrap() else { panic!() };
    let ports = Ports::These([80, 443].into());
    let expected = testing::on_ports(7, "web", ports);
    assert_eq!(read.changes, [(testing::address(1), Some(expected))]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    type Spoil = fn(&mut api::Entries);
    let changes: [(&str, Spoil); 8] = [
        ("is not of the trust domain", |all| {
            all.identities = vec!["spiffe://example.com/ns/shop/sa/web".to_owned()];
        }),
        ("the identity `x`", |all| all.identities = vec!["x".to_owned()]),
        ("an index of nothing", |all| all.entries[0].identity = 2),
        ("a protected pod without an identity", |all| all.entries[0].identity = 0),
        ("an index of nothing", |all| all.entries[0].profile = 2),
        ("a state numbered 9", |all| all.entries[0].state = 9),
        ("neither 4 nor 16 bytes", |all| all.entries[0].address = vec![1; 5].into()),
        ("a port that is none", |all| all.profiles[0].ports = vec![65_536]),
    ];
    for (reason, change) in changes {
        let mut entries = protected();
        change(&mut entries);
        let error = reader().read(delta(entries)).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    let nothing = api::FollowResponse { message: None };
    assert!(reader().read(nothing).is_err());
}

#[test]
fn pages_come_in_order_and_of_one_state() {
    let mut reader = reader();
    assert!(matches!(reader.read(page(0, 1, false)), Ok(Read::More)));
    assert!(matches!(reader.read(page(1, 1, true)), Ok(Read::All(_))));
    for (first, second) in [
        (page(0, 1, false), page(0, 1, true)),
        (page(0, 1, false), page(2, 1, true)),
        (page(0, 1, false), page(1, 2, true)),
        (page(0, 1, false), delta(protected())),
    ] {
        reader.begin();
        assert!(matches!(reader.read(first), Ok(Read::More)));
        assert!(reader.read(second).is_err());
    }
    reader.begin();
    assert!(reader.read(page(1, 1, true)).is_err());
    // Another stream begins from the beginning.
    reader.begin();
    assert!(matches!(reader.read(page(0, 1, true)), Ok(Read::All(_))));
}

proptest! {
    #[test]
    fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), is_page: bool) {
        use api::follow_response::Message::{Delta, Page};
        let message = if is_page { Page(bytes.into()) } else { Delta(bytes.into()) };
        let _ = reader().read(api::FollowResponse { message: Some(message) });
    }
}
