use std::collections::BTreeMap;

use super::*;
use crate::directory::Found;
use crate::directory::testing::{address, any_entry, pending, plain, protected};
use proptest::prelude::*;

fn at(sequence: u64) -> Position {
    Position { epoch: 7, sequence }
}

fn of(position: Position, entries: &BTreeMap<IpAddr, Entry>) -> (Directory, Touched) {
    complete(position, entries, &Directory::default())
}

fn complete(
    position: Position,
    entries: &BTreeMap<IpAddr, Entry>,
    before: &Directory,
) -> (Directory, Touched) {
    let mut all = Collected::begin(position);
    entries.iter().for_each(|(ip, entry)| all.add(*ip, entry.clone()));
    all.complete(before)
}

fn known(directory: &Directory) -> BTreeMap<IpAddr, Entry> {
    directory.entries().map(|(ip, entry)| (*ip, entry.clone())).collect()
}

fn changes() -> impl Strategy<Value = Vec<Vec<(u8, Option<Entry>)>>> {
    let change = (0..6_u8, prop::option::of(any_entry()));
    prop::collection::vec(prop::collection::vec(change, 0..5), 0..12)
}

proptest! {
    /// Whatever comes in however many pieces, it is what all of it at once would be; and each difference is told once.
    #[test]
    fn changes_in_any_cuts_lead_to_the_same_as_all_of_it(batches in changes(), resync in 0..12_usize) {
        let (mut directory, _) = of(at(0), &BTreeMap::new());
        let mut model: BTreeMap<IpAddr, Entry> = BTreeMap::new();
        for (number, batch) in batches.into_iter().enumerate() {
            let before = known(&directory);
            let mut batch: BTreeMap<_, _> = batch.into_iter().map(|(n, e)| (address(n), e)).collect();
            for (ip, entry) in &batch {
                match entry {
                    Some(entry) => drop(model.insert(*ip, entry.clone())),
                    None => drop(model.remove(ip)),
                }
            }
            let position = at(number as u64 + 1);
            let (next, touched) = if number == resync {
                complete(position, &model, &directory)
            } else {
                let changes = std::mem::take(&mut batch).into_iter().collect();
                directory.after(Delta { position, changes, ranges: None }).unwrap()
            };
            prop_assert_eq!(&known(&next), &model);
            prop_assert_eq!(next.len(), model.len());
            let mut replayed = before;
            for Difference { address, before, after } in touched.entries {
                prop_assert!(before != after);
                prop_assert_eq!(replayed.get(&address), before.as_ref());
                match after {
                    Some(after) => drop(replayed.insert(address, after)),
                    None => drop(replayed.remove(&address)),
                }
            }
            prop_assert_eq!(&replayed, &model);
            directory = next;
        }
    }

    /// A change that does not follow changes nothing.
    #[test]
    fn only_the_next_change_is_applied(epoch in 6..9_u64, sequence: u64) {
        let (directory, _) = of(at(4), &BTreeMap::new());
        let position = Position { epoch, sequence };
        let applied = directory.after(Delta { position, changes: Vec::new(), ranges: None });
        prop_assert_eq!(applied.is_ok(), (epoch, sequence) == (7, 5));
    }
}

#[test]
fn without_all_of_it_no_change_is_applied() {
    let delta = Delta { position: at(1), changes: Vec::new(), ranges: None };
    assert!(Directory::default().after(delta).is_err());
}

#[test]
fn what_is_there_is_found_by_address_and_port() {
    let entries = [plain(1), pending(2), protected(3, "web")];
    let entries = (1..).map(address).zip(entries).collect();
    let (directory, _) = of(at(0), &entries);
    let ranges = Some(vec!["10.1.0.0/16".parse().unwrap()]);
    let (directory, touched) =
        directory.after(Delta { position: at(1), changes: Vec::new(), ranges }).unwrap();
    assert!(touched.ranges && touched.entries.is_empty());
    let find = |text: &str| directory.find(text.parse().unwrap());
    assert_eq!(find("10.1.0.1:80"), Found::Plain);
    assert!(matches!(find("10.1.0.2:80"), Found::Pending { node } if &**node == "node-b"));
    for mapped in ["10.1.0.3:80", "[::ffff:10.1.0.3]:80"] {
        let Found::Protected { identity, uid } = find(mapped) else { panic!("{mapped}") };
        assert_eq!((identity.id.to_string().ends_with("/sa/web"), uid.0), (true, 3));
    }
    assert_eq!(find("10.1.9.9:80"), Found::Unknown);
    assert_eq!(find("10.2.0.1:80"), Found::Outside);
}

#[test]
fn another_pod_at_an_address_is_noticed() {
    let difference = |before, after| Difference { address: address(1), before, after };
    assert!(difference(Some(protected(1, "web")), Some(protected(2, "web"))).is_another());
    assert!(difference(Some(protected(1, "web")), Some(plain(2))).is_another());
    assert!(!difference(Some(protected(1, "web")), Some(pending(1))).is_another());
    assert!(!difference(Some(protected(1, "web")), None).is_another());
    assert!(!difference(None, Some(plain(2))).is_another());
}
