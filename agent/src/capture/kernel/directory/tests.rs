use std::collections::BTreeMap;
use std::net::IpAddr;

use super::*;
use crate::directory::testing::{address, any_entry, plain, protected};
use crate::directory::{Collected, Delta, Entry, Position};
use proptest::prelude::*;

fn maps(room: u32) -> DirectoryMaps {
    DirectoryMaps {
        entries: Table::testing("DIRECTORY", room),
        prefixes: Table::testing_trie("PREFIXES", 64),
    }
}

fn at(sequence: u64) -> Position {
    Position { epoch: 1, sequence }
}

fn of(entries: &[(IpAddr, Entry)]) -> Directory {
    let mut all = Collected::begin(at(0));
    entries.iter().for_each(|(ip, entry)| all.add(*ip, entry.clone()));
    all.complete(&Directory::default()).0
}

fn write(maps: &DirectoryMaps, change: &KernelChange) -> io::Result<()> {
    for step in [Step::Protect, Step::Release] {
        DirectoryMaps::pieces(change, step).into_iter().try_for_each(|piece| maps.write(piece))?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Change by change the kernel's map is what it would be if all of it were written anew; whoever begins with whatever an
    /// earlier agent has left gets there as well.
    #[test]
    fn the_map_follows_the_directory(
        batches in prop::collection::vec(prop::collection::vec((0..8_u8, prop::option::of(any_entry())), 0..6), 1..8),
        left in prop::collection::vec((0..8_u8, any_entry()), 0..6),
    ) {
        let maps = maps(64);
        let left: Vec<_> = left.into_iter().map(|(n, entry)| (address(n), entry)).collect();
        write(&maps, &maps.difference(&of(&left)).unwrap()).unwrap();
        let mut directory = of(&[]);
        write(&maps, &maps.difference(&directory).unwrap()).unwrap();
        prop_assert_eq!(maps.count().unwrap(), 0);
        for (number, batch) in batches.into_iter().enumerate() {
            let changes: BTreeMap<_, _> = batch.into_iter().map(|(n, entry)| (address(n), entry)).collect();
            let delta = Delta {
                position: at(number as u64 + 1), changes: changes.into_iter().collect(), ranges: None,
            };
            let (next, touched) = directory.after(delta).unwrap();
            write(&maps, &KernelChange::of(&touched)).unwrap();
            prop_assert!(maps.difference(&next).unwrap().is_empty());
            directory = next;
        }
    }
}

#[test]
fn ranges_are_told_and_forgotten_and_rules_of_others_stay() {
    let maps = maps(1);
    let own: Vec<IpNet> = ["10.1.0.0/16", "fd00::/64"].map(|range| range.parse().unwrap()).into();
    let foreign =
        Prefix { bits: 160, data: DestinationKey { scope: 7, ..{ range(&own[0]).0.data } } };
    maps.prefixes.insert(&foreign, &Destination::new(Action::Protect, 96)).unwrap();
    maps.add_ranges(&own).unwrap();
    assert_eq!(maps.prefixes.entries().unwrap().len(), 3);
    maps.keep_ranges(&own[..1]).unwrap();
    assert_eq!(maps.prefixes.entries().unwrap().len(), 2);
    maps.keep_ranges(&[]).unwrap();
    assert_eq!(maps.prefixes.entries().unwrap().len(), 1);
}

#[test]
fn a_full_map_is_named_and_leaves_nothing_alone_that_is_not_known() {
    let maps = maps(2);
    let entries: Vec<_> = (0..3).map(|n| (address(n), protected(1, "web"))).collect();
    let error = write(&maps, &maps.difference(&of(&entries)).unwrap()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(error.to_string().contains("DIRECTORY is full"), "{error}");
    let known = maps.entries.entries().unwrap();
    assert!(known.iter().all(|(_, known)| *known == Known::PROTECT));
    // What is there now fits again.
    let fits = of(&[(address(1), plain(1))]);
    write(&maps, &maps.difference(&fits).unwrap()).unwrap();
    assert!(maps.difference(&fits).unwrap().is_empty());
}

/// An agent that was killed has told the kernel of more than it has left in its file.
#[test]
fn what_an_earlier_agent_has_told_the_kernel_is_newer_than_its_file() {
    let maps = maps(8);
    let with_ranges = |entries: &[(IpAddr, Entry)]| {
        let ranges = Some(vec!["10.1.0.0/16".parse().unwrap()]);
        of(entries).after(Delta { position: at(1), changes: Vec::new(), ranges }).unwrap().0
    };
    let file = with_ranges(&[(address(1), plain(1)), (address(2), plain(2))]);
    // After a boot there is nothing else.
    maps.begin_with(&file).unwrap();
    assert!(maps.difference(&file).unwrap().is_empty());
    let newer = with_ranges(&[(address(1), protected(7, "web"))]);
    write(&maps, &maps.difference(&newer).unwrap()).unwrap();
    maps.begin_with(&file).unwrap();
    assert!(maps.difference(&newer).unwrap().is_empty());
    maps.begin_with(&Directory::unknown()).unwrap();
    assert!(maps.difference(&newer).unwrap().is_empty());
    assert_eq!(maps.prefixes.entries().unwrap().len(), 3);
    // What an earlier agent has bypassed by name is bypassed no more, unless this one says so.
    let vip: IpAddr = "10.96.0.10".parse().unwrap();
    let with_vip = |known| {
        let ports: std::sync::Arc<[_]> = [(53, known)].into();
        let delta = Delta { position: at(2), changes: Vec::new(), ranges: None };
        newer.with_services(delta, [(vip, ports)]).unwrap().0
    };
    let bypassed = with_vip(Known::BYPASS);
    write(&maps, &maps.difference(&bypassed).unwrap()).unwrap();
    maps.begin_with(&bypassed).unwrap();
    assert!(maps.difference(&bypassed).unwrap().is_empty());
    maps.begin_with(&with_vip(Known::PROTECT)).unwrap();
    assert!(maps.difference(&newer).unwrap().is_empty());
    // Without a controller nothing of it stays.
    maps.begin_with(&Directory::default()).unwrap();
    assert_eq!((maps.count().unwrap(), maps.prefixes.entries().unwrap().len()), (0, 0));
}
