//! The directory in the form of its messages. Each is encoded once, however many agents it is for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use prost::Message;
use prost::bytes::Bytes;

use super::cluster::Changes;
use super::entry::{ClusterEntry, ClusterState, EntryChange};
use crate::controller_api::directory::{
    Delta, Entries, Entry, FollowResponse, Page, Position, Ranges, State, follow_response,
};
use crate::services::{self, Change};

/// Entries of a page: less than 64 KiB of them, also if every one has another identity.
const PAGE: usize = 500;
/// Changes of one message, for the same reason.
const DELTA: usize = 500;

/// A message for all agents.
pub type Shared = follow_response::Message;

/// The message as the answer that a stream carries.
#[must_use]
pub fn answer(message: Shared) -> FollowResponse {
    FollowResponse { message: Some(message) }
}

/// Bytes of the message.
#[must_use]
pub fn length(message: &Shared) -> usize {
    match message {
        Shared::Page(bytes) | Shared::Delta(bytes) => bytes.len(),
        Shared::Own(own) => own.node.len() + own.zone.len(),
    }
}

/// Entries, and names that they share.
#[derive(Default)]
struct Gathered<'e> {
    entries: Entries,
    identities: HashMap<&'e str, u32>,
    nodes: HashMap<&'e str, u32>,
}

fn index<'e>(known: &mut HashMap<&'e str, u32>, all: &mut Vec<String>, text: &'e str) -> u32 {
    *known.entry(text).or_insert_with(|| {
        all.push(text.to_owned());
        all.len() as u32
    })
}

impl<'e> Gathered<'e> {
    fn add(&mut self, address: IpAddr, entry: &'e ClusterEntry) {
        let (mut identity, mut node) = (0, 0);
        let state = match &entry.state {
            ClusterState::Plain => State::Plain,
            ClusterState::Pending(name) => {
                node = index(&mut self.nodes, &mut self.entries.nodes, name);
                State::Pending
            }
            ClusterState::Protected(id) => {
                identity = index(&mut self.identities, &mut self.entries.identities, id);
                State::Protected
            }
        };
        let entry = Entry {
            address: octets(address),
            state: state.into(),
            uid_hash: entry.uid_hash,
            identity,
            profile: 0,
            node,
        };
        self.entries.entries.push(entry);
    }
}

fn octets(address: IpAddr) -> Bytes {
    match address {
        IpAddr::V4(v4) => Bytes::copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => Bytes::copy_from_slice(&v6.octets()),
    }
}

fn ranges(all: &[IpNet]) -> Ranges {
    Ranges { prefixes: all.iter().map(ToString::to_string).collect() }
}

/// All of the directory, in pages.
#[must_use]
pub fn pages<'e>(
    position: Position,
    entries: impl Iterator<Item = (&'e IpAddr, &'e ClusterEntry)>,
    all_ranges: &Arc<[IpNet]>,
    services: &[Change],
) -> Vec<Shared> {
    // Those with the same names beside each other: each page has few.
    let mut sorted: Vec<_> = entries.collect();
    sorted.sort_unstable_by_key(|(address, entry)| (name(entry), **address));
    let mut chunks: Vec<_> = sorted.chunks(PAGE).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    let services = services::encode(services);
    let (of_entries, last) = (chunks.len(), chunks.len() + services.len() - 1);
    let page = |(number, chunk): (usize, &[(&IpAddr, &'e ClusterEntry)])| {
        let mut gathered = Gathered::default();
        chunk.iter().for_each(|(address, entry)| gathered.add(**address, entry));
        let page = Page {
            position: Some(position),
            number: number as u32,
            last: number == last,
            entries: Some(gathered.entries),
            ranges: (number == 0).then(|| ranges(all_ranges)),
            services: None,
        };
        Shared::Page(page.encode_to_vec().into())
    };
    let entries = chunks.into_iter().enumerate().map(page);
    let services = services.into_iter().enumerate().map(|(number, services)| {
        let number = of_entries + number;
        let page = Page {
            position: Some(position),
            number: number as u32,
            last: number == last,
            services: Some(services),
            ..Page::default()
        };
        Shared::Page(page.encode_to_vec().into())
    });
    entries.chain(services).collect()
}

/// Changes, as the messages that follow on `position`.
#[must_use]
pub fn deltas(position: Position, changes: &Changes) -> Vec<(u64, Shared)> {
    let mut chunks: Vec<&[EntryChange]> = changes.entries.chunks(DELTA).collect();
    if chunks.is_empty() && changes.ranges.is_some() {
        chunks.push(&[]);
    }
    let delta = |(number, chunk): (usize, &[EntryChange])| {
        let (mut gathered, mut gone) = (Gathered::default(), Vec::new());
        for (address, entry) in chunk {
            match entry {
                Some(entry) => gathered.add(*address, entry),
                None => gone.push(octets(*address)),
            }
        }
        let sequence = position.sequence + 1 + number as u64;
        let delta = Delta {
            position: Some(Position { sequence, ..position }),
            entries: Some(gathered.entries),
            gone,
            ranges: changes.ranges.as_deref().filter(|_| number == 0).map(ranges),
            services: None,
        };
        (sequence, Shared::Delta(delta.encode_to_vec().into()))
    };
    let of_entries = chunks.len() as u64;
    let entries = chunks.into_iter().enumerate().map(delta);
    let services = services::encode(&changes.services).into_iter().enumerate();
    let services = services.map(|(number, services)| {
        let sequence = position.sequence + of_entries + 1 + number as u64;
        let position = Some(Position { sequence, ..position });
        let delta = Delta { position, services: Some(services), ..Delta::default() };
        (sequence, Shared::Delta(delta.encode_to_vec().into()))
    });
    entries.chain(services).collect()
}

fn name(entry: &ClusterEntry) -> Option<&str> {
    match &entry.state {
        ClusterState::Plain => None,
        ClusterState::Pending(text) | ClusterState::Protected(text) => Some(text),
    }
}
