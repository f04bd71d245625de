//! Requests taken apart, and watches that go on.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::TcpListener as StdListener;
use std::sync::Arc;

use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::objects::{self, Place};
use super::store::{Kind, Selection};
use super::{Behaviour, Shared, answers};

type Body = BoxBody<Bytes, Infallible>;

pub async fn serve(socket: StdListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(socket).expect("a socket of the runtime's");
    while let Ok((connection, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(request, shared.clone()));
            // Whoever asks may go at any time.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(connection), answer)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Body>, Infallible> {
    let Behaviour { refuse, delay, is_mute, page, shut_out, absent, .. } = shared.behaviour();
    let shown = request.headers().get("authorization").and_then(|shown| shown.to_str().ok());
    let who = shown.and_then(|shown| shown.strip_prefix("Bearer ")).unwrap_or_default();
    if shut_out.iter().any(|out| out == who) {
        std::future::pending::<()>().await;
    }
    if is_mute {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(delay).await;
    if let Some((code, message)) = refuse {
        return Ok(whole(code, &answers::status(code, message)));
    }
    if let Some(place) = Place::of(request.uri().path()) {
        let (code, answer) = objects::answer(place, request, &shared).await;
        return Ok(whole(code, &answer));
    }
    let kind = Kind::at(request.uri().path()).filter(|kind| !absent.contains(kind));
    let Some(kind) = kind else {
        return Ok(whole(404, &answers::status(404, "the server could not find it")));
    };
    let asked = Asked::of(&request);
    if asked.is_watch {
        return Ok(watch(kind, asked, shared));
    }
    let mut store = shared.store();
    let count = asked.limit.unwrap_or(usize::MAX).min(page);
    let (objects, next) = store.page(kind, &asked.selection, asked.next.as_deref(), count);
    let list = answers::list(kind, asked.is_metadata, objects, store.version(), next);
    Ok(whole(200, &list))
}

/// What a request asks for.
struct Asked {
    is_watch: bool,
    is_metadata: bool,
    has_bookmarks: bool,
    limit: Option<usize>,
    next: Option<String>,
    version: u64,
    selection: Selection,
}

impl Asked {
    fn of(request: &Request<Incoming>) -> Self {
        let query = request.uri().query().unwrap_or_default();
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let query: BTreeMap<_, _> = pairs.map(|(key, value)| (key, unescaped(value))).collect();
        let accept = request.headers().get("accept").and_then(|accept| accept.to_str().ok());
        let node = query.get("fieldSelector").and_then(|text| text.strip_prefix("spec.nodeName="));
        Self {
            is_watch: query.get("watch").is_some_and(|watch| watch == "true" || watch == "1"),
            is_metadata: accept.is_some_and(|accept| accept.contains("PartialObjectMetadata")),
            has_bookmarks: query.get("allowWatchBookmarks").is_some_and(|wanted| wanted == "true"),
            limit: query.get("limit").and_then(|limit| limit.parse().ok()),
            next: query.get("continue").cloned(),
            version: query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0),
            selection: Selection { node: node.map(str::to_owned) },
        }
    }
}

/// Percent-encoding undone.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        let digits = (*first == b'%').then(|| more.get(..2)).flatten();
        let byte =
            digits.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &more[2..] } else { more };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn whole(code: u16, answer: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(answer.to_string())).boxed();
    response(code, body)
}

fn response(code: u16, body: Body) -> Response<Body> {
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(body)
        .expect("a response")
}

fn watch(kind: Kind, asked: Asked, shared: Arc<Shared>) -> Response<Body> {
    let (lines, sent) = mpsc::channel(16);
    tokio::spawn(async move {
        shared.store().begins_watch(kind);
        // An error is that nobody listens any more.
        let _ = keep_telling(kind, asked, &shared, lines).await;
        shared.store().ends_watch(kind);
    });
    response(200, StreamBody::new(ReceiverStream::new(sent)).boxed())
}

async fn keep_telling(
    kind: Kind,
    asked: Asked,
    shared: &Shared,
    lines: mpsc::Sender<Result<Frame<Bytes>, Infallible>>,
) -> Result<(), mpsc::error::SendError<Result<Frame<Bytes>, Infallible>>> {
    let line = |event: Value| Ok(Frame::data(Bytes::from(format!("{event}\n"))));
    let epoch = shared.store().epoch();
    let mut version = asked.version;
    if shared.store().has_forgotten(version) {
        return lines.send(line(answers::error(410, "too old resource version"))).await;
    }
    loop {
        // Before the look: what changes behind it wakes.
        let changed = shared.changed.notified();
        let (events, now, epoch_now) = {
            let store = shared.store();
            (store.since(kind, &asked.selection, version), store.version(), store.epoch())
        };
        if epoch_now != epoch || shared.behaviour().refuse.is_some() {
            return Ok(());
        }
        if version > now {
            let message = "Too large resource version";
            return lines.send(line(answers::error(504, message))).await;
        }
        let events = if shared.behaviour().is_frozen { Vec::new() } else { events };
        for event in events {
            version = event.version;
            lines.send(line(answers::event(kind, asked.is_metadata, event))).await?;
        }
        let pause = shared.behaviour().bookmarks;
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep(pause), if asked.has_bookmarks && !shared.behaviour().is_frozen => {
                version = version.max(now);
                lines.send(line(answers::bookmark(kind, version))).await?;
            }
            () = lines.closed() => {
                return Ok(());
            }
        }
    }
}
