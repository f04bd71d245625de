//! What comes out is what went in, however it is written, read and ended.

use proptest::prelude::*;
use tokio::sync::oneshot;

use super::*;

/// How an application behaves.
#[derive(Clone, Debug)]
pub struct Application {
    /// Lengths, each followed by a pause in milliseconds.
    writes: Vec<(usize, u64)>,
    /// How much it reads at once, and the pause after it in microseconds.
    reads: (usize, u64),
    /// Ends its own direction only when the other has ended.
    answers: bool,
}

impl Application {
    pub fn says(&self, seed: u8) -> Vec<u8> {
        pattern(self.writes.iter().map(|(length, _)| length).sum(), seed)
    }

    /// Says what it has to say, and returns what it hears.
    pub async fn talk(&self, app: TcpStream, seed: u8) -> Vec<u8> {
        let (mut from, mut to) = app.into_split();
        let (heard_all, end) = oneshot::channel();
        let writing = async move {
            let says = self.says(seed);
            let mut rest = says.as_slice();
            for (length, pause) in &self.writes {
                let (now, later) = rest.split_at(*length);
                to.write_all(now).await.unwrap();
                rest = later;
                pause_for(Duration::from_millis(*pause)).await;
            }
            if self.answers {
                end.await.unwrap();
            }
            to.shutdown().await.unwrap();
            to
        };
        let reading = async move {
            let (mut heard, (room, pause)) = (Vec::new(), self.reads);
            let mut room = vec![0; room];
            loop {
                match from.read(&mut room).await.unwrap() {
                    0 => break,
                    read => heard.extend_from_slice(&room[..read]),
                }
                pause_for(Duration::from_micros(pause)).await;
            }
            let _ = heard_all.send(());
            heard
        };
        tokio::join!(writing, reading).1
    }
}

async fn pause_for(pause: Duration) {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
}

fn application() -> impl Strategy<Value = Application> {
    let length = prop_oneof![
        4 => 1_usize..200,
        2 => 1_usize..40_000,
        // About a record, and about a buffer.
        2 => 16_370_usize..16_400,
        1 => 262_000_usize..700_000,
    ];
    let pause = prop_oneof![3 => Just(0_u64), 1 => 1_u64..8];
    let reads = prop_oneof![
        3 => Just((64 * 1024, 0)),
        1 => (2_000_usize..40_000, 0_u64..2_000),
    ];
    (prop::collection::vec((length, pause), 0..8), reads).prop_map(|(writes, reads)| Application {
        writes,
        reads,
        answers: false,
    })
}

/// Which of the two waits for the other's end.
pub fn pairs() -> impl Strategy<Value = (Application, Application)> {
    (application(), application(), 0..3).prop_map(|(one, other, last)| {
        (Application { answers: last == 1, ..one }, Application { answers: last == 2, ..other })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn two_agents_carry_any_conversation_to_its_end(
        flows in prop::collection::vec(pairs(), 1..4),
        narrow: bool,
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let test = async {
                carry(Kind::Bytes, &flows[..1], narrow).await;
                carry(Kind::Flows, &flows, narrow).await;
            };
            tokio::time::timeout(GENEROUS, test).await.expect("it stands still");
        });
    }
}

/// Carries one flow after the other through one session.
async fn carry(kind: Kind, flows: &[(Application, Application)], narrow: bool) {
    let accounts = [account(), account()];
    let [mine, theirs] = &accounts;
    let wire = if narrow { narrow_tcp_pair().await } else { tcp_pair().await };
    let (client, server) = sessions(wire, [mine, theirs]);
    let (mut client, mut server) = begin(kind, client, server);
    for (number, (one, other)) in flows.iter().enumerate() {
        if number > 0 {
            client.begin(endpoints()).unwrap();
            server.accept().unwrap();
        }
        let [here, there] =
            [Carried::start(client, mine).await, Carried::start(server, theirs).await];
        let (asked, answered) = (one.talk(here.app, 1), other.talk(there.app, 2));
        let (heard_here, heard_there) = tokio::join!(asked, answered);
        assert!(heard_here == other.says(2), "{} bytes came back", heard_here.len());
        assert!(heard_there == one.says(1), "{} bytes arrived", heard_there.len());

        let (here, there) = (ended(here.task).await, ended(there.task).await);
        here.result.unwrap();
        there.result.unwrap();
        let (said, heard) = (heard_there.len() as u64, heard_here.len() as u64);
        assert_eq!(here.moved, Transferred { sent: said, received: heard });
        assert_eq!(there.moved, Transferred { sent: heard, received: said });
        for account in &accounts {
            assert_eq!(account.leased(), 0, "held after the flow");
        }
        if kind == Kind::Bytes {
            assert!(here.wire.is_none() && there.wire.is_none(), "it can have one flow alone");
            return;
        }
        (client, server) = (here.wire.unwrap(), there.wire.unwrap());
        assert!(client.is_quiet() && server.is_quiet());
    }
}
