use super::*;
use crate::desired::ExternalPeer;
use crate::discovery::Message;
use tokio::sync::watch;

/// A discovery that is followed, with nobody to ask for names.
struct Followed {
    wanted: watch::Sender<Arc<Desired>>,
    messages: mpsc::Receiver<Message>,
    _task: AbortOnDropHandle<()>,
}

fn wanting(names: &[&str]) -> Arc<Desired> {
    let external_peers = vec![Arc::new(ExternalPeer::testing("external", names))];
    Arc::new(Desired { external_peers, ..Desired::default() })
}

fn endpoints(name: &'static str, address: &str) -> Endpoints {
    Endpoints {
        origin: Origin::Dns(name.into()),
        name: DnsName::try_from(name).unwrap(),
        addresses: [address.parse().unwrap()].into(),
    }
}

fn updates(
    names: &[&str],
    before: Desired,
) -> (watch::Sender<Arc<Desired>>, Updates, mpsc::Receiver<Message>) {
    let wanted = watch::Sender::new(wanting(names));
    let (sender, messages) = mpsc::channel(4);
    let random = crate::peer::crypto_provider().secure_random;
    let updates = Updates::new(sender, "dns", 1, wanted.subscribe(), before, random);
    (wanted, updates, messages)
}

fn follow(memory: PathBuf, names: &[&str], before: Desired) -> Followed {
    // Nobody answers there.
    follow_asking("127.0.0.1:9".parse().unwrap(), memory, names, before)
}

fn follow_asking(server: SocketAddr, memory: PathBuf, names: &[&str], before: Desired) -> Followed {
    let (wanted, updates, messages) = updates(names, before);
    let dns = Arc::new(Dns { servers: vec![server], memory });
    let following = dns.follow(updates);
    let task = tokio::spawn(async move { following.await.unwrap_or_default() });
    Followed { wanted, messages, _task: AbortOnDropHandle::new(task) }
}

impl Followed {
    /// The next snapshot's names and addresses.
    async fn found(&mut self) -> Vec<(String, Vec<String>)> {
        loop {
            let (kind, generation, update) = self.messages.recv().await.unwrap();
            assert_eq!((kind, generation), ("dns", 1));
            let Update::Snapshot(snapshot) = update else {
                continue;
            };
            let mut found: Vec<_> = snapshot
                .desired
                .endpoints
                .iter()
                .map(|known| {
                    let addresses = known.addresses.iter().map(ToString::to_string).collect();
                    (known.name.as_ref().to_owned(), addresses)
                })
                .collect();
            found.sort();
            return found;
        }
    }
}

fn known(name: &str, addresses: &[&str]) -> (String, Vec<String>) {
    (name.to_owned(), addresses.iter().map(|address| (*address).to_owned()).collect())
}

#[tokio::test]
async fn what_was_learnt_before_is_told_before_anybody_has_answered() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("names.json");
    let mut seen = SeenAddresses::default();
    seen.take(["10.0.0.1".parse().unwrap()].into(), SystemTime::now());
    let names = ["a.example", "old.example"].map(|name| (name.to_owned(), seen.clone()));
    Memory::new(path.clone()).keep(&names.into());
    // By this resolver's predecessor, that is.
    let before = vec![Arc::new(endpoints("b.example", "10.0.0.2"))];
    let before = Desired { endpoints: before, ..Desired::default() };
    let mut followed = follow(path, &["a.example:443", "b.example", "c.example"], before);
    let expected = [
        known("a.example", &["10.0.0.1"]),
        known("b.example", &["10.0.0.2"]),
        known("c.example", &[]),
    ];
    assert_eq!(followed.found().await, expected);
}

#[tokio::test]
async fn names_come_and_go_with_what_is_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("names.json");
    let before = vec![Arc::new(endpoints("a.example", "10.0.0.1"))];
    let before = Desired { endpoints: before, ..Desired::default() };
    let mut followed = follow(path.clone(), &["a.example"], before);
    assert_eq!(followed.found().await, [known("a.example", &["10.0.0.1"])]);
    followed.wanted.send_replace(wanting(&["b.example"]));
    assert_eq!(followed.found().await, [known("b.example", &[])]);
    // What another resolver had said once is not said again: that is long ago by now.
    followed.wanted.send_replace(wanting(&["a.example"]));
    assert_eq!(followed.found().await, [known("a.example", &[])]);
    followed.wanted.send_replace(wanting(&[]));
    assert!(followed.found().await.is_empty());
}

/// A name server that does not want to be asked, by every question.
async fn refuse(socket: tokio::net::UdpSocket) {
    let mut message = [0; 512];
    while let Ok((length, client)) = socket.recv_from(&mut message).await {
        // It is an answer, with REFUSED for a code (RFC 1035, 4.1.1).
        message[2] |= 0x80;
        message[3] = message[3] & 0xf0 | 5;
        socket.send_to(&message[..length], client).await.unwrap();
    }
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_told_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("names.json");
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = socket.local_addr().unwrap();
    let _server = AbortOnDropHandle::new(tokio::spawn(refuse(socket)));
    let mut followed = follow_asking(server, path, &["a.example"], Desired::default());
    loop {
        if let (_, _, Update::Problems(problems)) = followed.messages.recv().await.unwrap() {
            assert!(problems["a.example"].to_string().contains("name server"), "{problems:?}");
            return;
        }
    }
}

/// An agent that starts anew goes by the times in the file.
#[tokio::test]
async fn a_name_that_resolves_to_the_same_is_remembered_as_of_the_latest_answer() {
    let directory = tempfile::tempdir().unwrap();
    let memory = directory.path().join("names.json");
    let servers = vec!["127.0.0.1:9".parse().unwrap()];
    let (wanted, updates, _messages) = updates(&["a.example"], Desired::default());
    let mut names = DnsNames::new(&Dns { servers, memory }, updates);
    names.follow(names_in(&wanted.borrow()), &Desired::default());
    let name = DnsName::try_from("a.example").unwrap();
    let answer =
        |names: &mut DnsNames| names.take((name.clone(), Ok(["10.0.0.1".parse().unwrap()].into())));
    assert_eq!(answer(&mut names), News::Addresses);
    let first = names.memory.recall();
    assert_eq!(answer(&mut names), News::Nothing);
    assert_eq!(names.memory.recall(), first);
    names.memory.outdate();
    assert_eq!(answer(&mut names), News::Nothing);
    assert_ne!(names.memory.recall(), first);
}
