//! What agents are told, read by the agent's own reader.

use super::*;
use crate::controller_api::directory::Position;
use crate::directory as reader;
use crate::directory::Directory;
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(200);

/// An agent that reads what it is told.
struct Agent {
    reader: reader::Reader,
    known: Directory,
    messages: usize,
}

impl Agent {
    fn new() -> Self {
        let reader = reader::Reader::new("example.org".parse().unwrap());
        Self { reader, known: Directory::default(), messages: 0 }
    }

    fn position(&self) -> Option<Position> {
        let known = self.known.position()?;
        Some(Position { epoch: known.epoch, sequence: known.sequence })
    }

    /// Reads until nothing more comes.
    async fn read(&mut self, follower: &mut Follower) -> Result<(), Ended> {
        while let Ok(message) = tokio::time::timeout(SHORT, follower.next()).await {
            self.messages += 1;
            match self.reader.read(encoded::answer(message?)).unwrap() {
                reader::Read::More => {}
                // It is told on every stream.
                reader::Read::Own(_) => self.messages -= 1,
                reader::Read::All(all) => self.known = all.complete(&self.known).0,
                reader::Read::Delta(delta) => self.known = self.known.after(delta).unwrap().0,
            }
        }
        Ok(())
    }

    fn uids(&self) -> BTreeMap<IpAddr, u64> {
        self.known.entries().map(|(ip, entry)| (*ip, entry.uid.0)).collect()
    }
}

fn uids(feed: &Feed) -> BTreeMap<IpAddr, u64> {
    let mut all = BTreeMap::new();
    feed.change(|cluster| {
        all = entries(cluster).into_iter().map(|(ip, entry)| (ip, entry.uid_hash)).collect();
    });
    all
}

/// The agent of a node, which has one pod for ever.
fn begin(
    feed: &Arc<Feed>,
    node: &str,
    known: Option<Position>,
    protected: Option<HashSet<PodUid>>,
) -> Follower {
    feed.begin(node, uid(node.as_bytes()[0]), known, protected).unwrap()
}

fn put(feed: &Feed, pods: impl IntoIterator<Item = u8>) {
    for n in pods {
        feed.change(|cluster| cluster.set_pod(&pod(n, "a", &[n])));
    }
    feed.flush(Instant::now());
}

#[tokio::test(start_paused = true)]
async fn whoever_follows_knows_what_there_is_however_it_was_told() {
    let feed = feed(Limits::default());
    put(&feed, 0..9);
    let mut agent = Agent::new();
    let mut follower = begin(&feed, "a", None, Some(HashSet::new()));
    agent.read(&mut follower).await.unwrap();
    assert_eq!(agent.messages, 1, "one page");
    assert_eq!(agent.uids(), uids(&feed));
    assert_eq!(agent.known.ranges().len(), 1);
    put(&feed, 9..12);
    feed.change(|cluster| cluster.remove_pod(uid(3)));
    feed.flush(Instant::now());
    agent.read(&mut follower).await.unwrap();
    assert_eq!((agent.messages, agent.uids()), (3, uids(&feed)));
    drop(follower);
    // It goes on where it was.
    put(&feed, 12..14);
    let mut follower = begin(&feed, "a", agent.position(), Some(HashSet::new()));
    agent.read(&mut follower).await.unwrap();
    assert_eq!((agent.messages, agent.uids()), (4, uids(&feed)));
    // Another leader tells everything.
    let other = super::feed(Limits::default());
    put(&other, 0..3);
    let position = agent.position().map(|known| Position { epoch: 6, ..known });
    let mut follower = begin(&other, "a", position, Some(HashSet::new()));
    agent.read(&mut follower).await.unwrap();
    assert_eq!(agent.uids(), uids(&other));
}

/// An agent puts all of it in force before it reads what follows. It may have known better: a successor does not go back.
#[tokio::test(start_paused = true)]
async fn whoever_begins_anew_is_not_told_of_an_older_state() {
    let feed = feed(Limits::default());
    put(&feed, 0..3);
    let mut before = Agent::new();
    before.read(&mut begin(&feed, "a", None, Some(HashSet::new()))).await.unwrap();
    put(&feed, 3..6);
    let mut follower = begin(&feed, "a", None, Some(HashSet::new()));
    let mut agent = Agent::new();
    loop {
        let message = follower.next().await.unwrap();
        if let reader::Read::All(all) = agent.reader.read(encoded::answer(message)).unwrap() {
            agent.known = all.complete(&agent.known).0;
            break;
        }
    }
    assert_eq!(agent.uids(), uids(&feed));
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_says_nothing_until_it_has_heard_every_node() {
    let feed = Feed::new(7, rules(), Limits::default());
    feed.change(|cluster| {
        let selected = namespace("shop", Wish::Said(Protection::Require));
        cluster.set_namespace(&"shop".into(), Some(selected));
        cluster.set_pod(&pod(1, "a", &[1]));
        cluster.set_pod(&pod(2, "b", &[2]));
    });
    Objects::ALL.iter().for_each(|what| feed.listed(*what));
    let now = Instant::now();
    let mut agent = Agent::new();
    let mut first = begin(&feed, "a", None, Some([uid(1)].into()));
    feed.flush(now);
    agent.read(&mut first).await.unwrap();
    assert_eq!(agent.messages, 0);
    // It follows, and cannot say yet.
    let _mute = begin(&feed, "b", None, None);
    feed.flush(now);
    agent.read(&mut first).await.unwrap();
    assert_eq!(agent.messages, 0);
    let _second = begin(&feed, "b", None, Some([uid(2)].into()));
    feed.flush(now);
    agent.read(&mut first).await.unwrap();
    assert_eq!(agent.known.len(), 2);
    let is_protected = |e: &crate::directory::Entry| {
        matches!(e.standing, crate::directory::Standing::Protected { .. })
    };
    assert!(agent.known.entries().all(|(_, entry)| is_protected(entry)));
}

#[tokio::test(start_paused = true)]
async fn whoever_is_too_slow_is_told_to_begin_again_and_holds_up_nobody() {
    let feed = feed(Limits { changes: 4, ..Limits::default() });
    put(&feed, 0..2);
    let (mut slow, mut quick) = (Agent::new(), Agent::new());
    let mut slowly = begin(&feed, "a", None, Some(HashSet::new()));
    let mut quickly = begin(&feed, "b", None, Some(HashSet::new()));
    slow.read(&mut slowly).await.unwrap();
    for n in 2..20 {
        put(&feed, [n]);
        quick.read(&mut quickly).await.unwrap();
    }
    assert_eq!(quick.uids(), uids(&feed));
    assert_eq!(slow.read(&mut slowly).await, Err(Ended::TooSlow));
    let mut again = begin(&feed, "a", slow.position(), Some(HashSet::new()));
    slow.read(&mut again).await.unwrap();
    assert_eq!(slow.uids(), uids(&feed));
}

#[tokio::test]
async fn many_pages_are_told_once_encoded() {
    let feed = feed(Limits::default());
    for n in 0..=250_u8 {
        feed.change(|cluster| {
            for more in 0..8_u8 {
                let mut many = pod(n, "a", &[]);
                many.uid = PodUid::from_bytes([n, more, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
                many.addresses = [IpAddr::from([10, 1, more, n])].into();
                cluster.set_pod(&many);
            }
        });
    }
    feed.flush(Instant::now());
    let mut streams: Vec<_> =
        (0..3).map(|n| begin(&feed, &format!("n{n}"), None, Some(HashSet::new()))).collect();
    let mut first: Vec<*const u8> = Vec::new();
    for stream in &mut streams {
        assert!(matches!(stream.next().await, Ok(encoded::Shared::Own(_))));
        let encoded::Shared::Page(bytes) = stream.next().await.unwrap() else { panic!() };
        assert!(bytes.len() < 64 << 10);
        first.push(bytes.as_ptr());
    }
    assert!(first.windows(2).all(|two| two[0] == two[1]), "shared, not copied");
    let mut agent = Agent::new();
    let mut follower = begin(&feed, "b", None, Some(HashSet::new()));
    agent.read(&mut follower).await.unwrap();
    assert_eq!((agent.known.len(), agent.messages), (2008, 5));
}

#[tokio::test(start_paused = true)]
async fn only_the_last_stream_of_a_node_is_believed() {
    let feed = feed(Limits::default());
    feed.change(|cluster| {
        let selected = namespace("shop", Wish::Said(Protection::Require));
        cluster.set_namespace(&"shop".into(), Some(selected));
    });
    put(&feed, [1]);
    let old = begin(&feed, "a", None, Some(HashSet::new())).place();
    let new = begin(&feed, "a", None, Some(HashSet::new())).place();
    old.observe(&[uid(1)], &[]);
    let mut said = None;
    let mut look = || {
        feed.change(|cluster| said = state(cluster, 1));
        said.clone()
    };
    assert_eq!(look().as_deref(), Some("pending by a"));
    new.observe(&[uid(1)], &[]);
    assert_eq!(look().as_deref(), Some("account-1"));
    drop(old);
    assert_eq!(look().as_deref(), Some("account-1"));
    // Its node is not known: with the agent ends what it has said.
    drop(new);
    assert_eq!(look().as_deref(), Some("pending by a"));
}

#[tokio::test(start_paused = true)]
async fn an_older_stream_of_a_node_ends_when_another_begins() {
    let feed = feed(Limits::default());
    put(&feed, 0..3);
    let (mut one, mut other) = (Agent::new(), Agent::new());
    let mut old = feed.begin("a", uid(1), None, Some(HashSet::new())).unwrap();
    one.read(&mut old).await.unwrap();
    let mut new = feed.begin("a", uid(2), None, Some(HashSet::new())).unwrap();
    assert_eq!(one.read(&mut old).await, Err(Ended::Replaced));
    other.read(&mut new).await.unwrap();
    assert_eq!(other.uids(), uids(&feed));
    // They do not take turns.
    assert!(feed.begin("a", uid(1), None, Some(HashSet::new())).is_err());
    put(&feed, 3..4);
    other.read(&mut new).await.unwrap();
    assert_eq!((other.uids(), feed.status().agents), (uids(&feed), 1));
    drop(new);
    drop(feed.begin("a", uid(1), None, Some(HashSet::new())).unwrap());
}

#[tokio::test(start_paused = true)]
async fn only_what_is_news_counts() {
    let feed = feed(Limits::default());
    put(&feed, 0..5);
    let follower = begin(&feed, "a", None, Some([uid(1), uid(2)].into()));
    assert_eq!(follower.news(), 2);
    let place = follower.place();
    assert_eq!(place.observe(&[uid(1), uid(3)], &[uid(4)]), 1);
    assert_eq!(place.observe(&[], &[uid(1), uid(1)]), 1);
    assert_eq!(place.observe_all([uid(2), uid(3)].into()), 0);
    assert_eq!(place.observe_all([uid(4)].into()), 3);
}
