//! What flows take of the machine: buffers while bytes move, and the processor in turns.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Wake};
use std::thread;

use super::*;

#[tokio::test]
async fn an_idle_flow_holds_no_buffer() {
    for kind in KINDS {
        let (mut client, mut server) = back_to_back(kind).await;
        for length in [1, 1_000_000] {
            let (asks, mut heard) = (pattern(length, 1), vec![0; length]);
            let asking = client.app.write_all(&asks);
            let (asked, read) = tokio::join!(asking, server.app.read_exact(&mut heard));
            asked.unwrap();
            read.unwrap();
            server.app.write_all(b"heard").await.unwrap();
            client.app.read_exact(&mut [0; 5]).await.unwrap();
            none_held(&client.account).await;
            none_held(&server.account).await;
        }
        assert!(!client.task.is_finished() && !server.task.is_finished());
    }
}

/// One direction has ended, and whoever is left thinks.
#[tokio::test]
async fn a_half_closed_flow_that_is_idle_holds_no_buffer() {
    for kind in KINDS {
        let (mut client, mut server) = back_to_back(kind).await;
        client.app.write_all(b"question").await.unwrap();
        client.app.shutdown().await.unwrap();
        let mut heard = Vec::new();
        server.app.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"question");
        none_held(&client.account).await;
        none_held(&server.account).await;
    }
}

/// A record that has begun and does not go on costs the smallest buffer, not the largest.
#[tokio::test]
async fn half_a_record_is_kept_in_the_smallest_buffer() {
    use crate::wire::buffers::Size;

    let account = account();
    let (wire, mut raw) = with_raw(tcp_pair().await, &account);
    let mut relay = Carried::start(bytes_of(wire), &account).await;
    let much: Vec<u8> =
        (0..64).flat_map(|_| raw.seal(ContentType::ApplicationData, &pattern(16_384, 1))).collect();
    let mut heard = vec![0; 64 * 16_384];
    let (_, read) = tokio::join!(raw.write(&much), relay.app.read_exact(&mut heard));
    read.unwrap();
    let last = raw.seal(ContentType::ApplicationData, b"in the end");
    raw.write(&last[..20]).await;
    let until = tokio::time::Instant::now() + SOON;
    while account.leased() != Size::One.bytes() {
        assert!(tokio::time::Instant::now() < until, "{} bytes are held", account.leased());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    raw.write(&last[20..]).await;
    let mut heard = [0; 10];
    relay.app.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"in the end");
    none_held(&account).await;
}

/// Nobody reads: the writer is stopped after what sockets and a buffer on either side hold, and nothing is lost.
#[tokio::test]
async fn a_reader_that_does_not_read_stops_the_writer() {
    const MOST: usize = 2 << 20;
    for kind in KINDS {
        let (mine, theirs) = (account(), account());
        let (client, server) = sessions(narrow_tcp_pair().await, [&mine, &theirs]);
        let (client, server) = begin(kind, client, server);
        let patience = IdleTimeouts::default();
        let client = Carried::between(narrow_tcp_pair().await, client, &mine, patience);
        let mut server = Carried::between(narrow_tcp_pair().await, server, &theirs, patience);
        let says = pattern(MOST, 5);
        let mut swallowed = 0;
        let mut app = client.app;
        while let Ok(written) =
            tokio::time::timeout(Duration::from_millis(300), app.write(&says[swallowed..])).await
        {
            swallowed += written.unwrap();
            assert!(swallowed < MOST, "{kind:?}: swallowed while nobody read");
        }
        assert!(mine.leased() + theirs.leased() <= 2 * crate::wire::buffers::Size::Sixteen.bytes());
        app.shutdown().await.unwrap();
        let mut heard = Vec::new();
        server.app.read_to_end(&mut heard).await.unwrap();
        assert!(heard == says[..swallowed], "{} of {swallowed} bytes arrived", heard.len());
    }
}

struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// However much there is to do, a flow does a bounded part of it at once, and asks for its next turn.
#[tokio::test]
async fn a_busy_flow_takes_turns() {
    const TOTAL: usize = 64 << 20;
    // One buffer beyond the turn.
    const MOST: u64 = 2 * 256 * 1024;
    let account = account();
    let (wire, raw) = with_raw(tcp_pair().await, &account);
    let mut wire = bytes_of(wire);
    let (app, leg) = tcp_pair().await;
    let app = app.into_std().unwrap();
    let peer = raw.tcp.into_std().unwrap();
    for blocking in [&app, &peer] {
        blocking.set_nonblocking(false).unwrap();
    }
    let writer = thread::spawn(move || {
        let chunk = vec![7; 1 << 20];
        let mut app = &app;
        for _ in 0..TOTAL >> 20 {
            app.write_all(&chunk).unwrap();
        }
        app.shutdown(Shutdown::Write).unwrap();
        let _ = app.read(&mut [0]);
    });
    let reader = thread::spawn(move || {
        let mut room = vec![0; 1 << 20];
        while let Ok(1..) = (&peer).read(&mut room) {}
    });

    let mut relay = Relay::new(IdleTimeouts::default());
    let (mut full_turns, mut before) = (0, 0);
    while before < TOTAL as u64 {
        let counter = Arc::new(Woken(AtomicUsize::new(0)));
        let waker = counter.clone().into();
        let mut running = Running::new(&mut relay, &leg, &mut *wire);
        let polled = std::pin::Pin::new(&mut running).poll(&mut Context::from_waker(&waker));
        assert!(matches!(polled, Poll::Pending), "{polled:?}");
        drop(running);
        let now = relay.transferred().sent - before;
        assert!(now <= MOST, "{now} bytes in one turn");
        if now >= 256 * 1024 {
            full_turns += 1;
            assert!(counter.0.load(Relaxed) > 0, "it did not ask for its next turn");
        }
        before = relay.transferred().sent;
        // For the runtime to look at its sockets.
        tokio::time::sleep(Duration::from_micros(50)).await;
    }
    assert!(full_turns > 0, "never so much at once that it mattered");
    drop((leg, wire));
    writer.join().unwrap();
    reader.join().unwrap();
}

/// On one thread, a conversation goes on beside a flow that never has enough.
#[tokio::test]
async fn a_busy_flow_leaves_others_their_turn() {
    let (busy, busy_server) = back_to_back(Kind::Flows).await;
    let (mut quiet, mut quiet_server) = back_to_back(Kind::Flows).await;
    let pump = tokio::spawn(async move {
        let mut app = busy.app;
        let chunk = vec![7; 1 << 20];
        while app.write_all(&chunk).await.is_ok() {}
    });
    let drain = tokio::spawn(async move {
        let mut app = busy_server.app;
        let (mut room, mut drained) = (vec![0; 1 << 20], 0_u64);
        while let Ok(read @ 1..) = app.read(&mut room).await {
            drained += read as u64;
        }
        drained
    });
    let conversation = async {
        for _ in 0..50 {
            quiet.app.write_all(b"ping").await.unwrap();
            quiet_server.app.read_exact(&mut [0; 4]).await.unwrap();
            quiet_server.app.write_all(b"pong").await.unwrap();
            quiet.app.read_exact(&mut [0; 4]).await.unwrap();
        }
    };
    tokio::time::timeout(GENEROUS, conversation).await.expect("the other flow starves");
    pump.abort();
    let drained = tokio::time::timeout(GENEROUS, drain).await.unwrap().unwrap();
    assert!(drained > 1 << 20, "the busy flow was not busy: {drained} bytes");
}
