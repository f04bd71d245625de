//! What is asked of a replica by HTTP: whether it lives, whether it is ready, and what it counts. Nothing of it is secret, and nobody can
//! change anything by it. Each connection is for one request, short, and one of few.

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::connection::Sources;
use super::readiness::Readiness;
use crate::metrics::{CONTENT_TYPE, Registry, exposition};

/// Connections at a time, and of one address.
const MOST_CONNECTIONS: usize = 256;
const MOST_OF_AN_ADDRESS: usize = 8;
/// How long a client may take for its request, and for all of it.
const HEADERS: Duration = Duration::from_secs(5);
const WHOLE: Duration = Duration::from_secs(10);
/// Bytes and number of the headers of a request.
const LONGEST_HEADERS: usize = 8 << 10;
const MOST_HEADERS: usize = 64;
/// How long to wait when no connection can be accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// The names of all metrics begin with this.
const PREFIX: &str = "sheath_controller_";

/// What is answered.
#[derive(Clone)]
pub struct Answers {
    /// At `/livez` and `/readyz`.
    pub health: Option<Arc<Readiness>>,
    /// At `/metrics`.
    pub metrics: Option<Arc<Registry>>,
}

impl Answers {
    fn to<B>(&self, request: &Request<B>) -> Response<String> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n".to_owned());
        }
        match (request.uri().path(), &self.health, &self.metrics) {
            // That it is answered says it.
            ("/livez", Some(_), _) => text(StatusCode::OK, "ok\n".to_owned()),
            ("/readyz", Some(readiness), _) => match readiness.check() {
                Ok(said) => text(StatusCode::OK, format!("{said}\n")),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            },
            ("/metrics", _, Some(registry)) => {
                let mut response = text(StatusCode::OK, exposition(&registry.snapshot(), PREFIX));
                let format = HeaderValue::from_static(CONTENT_TYPE);
                response.headers_mut().insert(header::CONTENT_TYPE, format);
                response
            }
            _ => text(StatusCode::NOT_FOUND, "there is no such page\n".to_owned()),
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// What listens at each address: one that is for both answers both.
pub fn listeners(
    health: Option<(SocketAddr, Arc<Readiness>)>,
    metrics: Option<(SocketAddr, Arc<Registry>)>,
) -> Vec<(SocketAddr, Answers)> {
    match (health, metrics) {
        (Some((one, readiness)), Some((other, registry))) if one == other => {
            vec![(one, Answers { health: Some(readiness), metrics: Some(registry) })]
        }
        (health, metrics) => {
            let health = health
                .map(|(at, readiness)| (at, Answers { health: Some(readiness), metrics: None }));
            let metrics = metrics
                .map(|(at, registry)| (at, Answers { health: None, metrics: Some(registry) }));
            health.into_iter().chain(metrics).collect()
        }
    }
}

/// Answers. Never ends.
pub async fn serve(listener: TcpListener, answers: Answers) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let sources = Arc::new(Sources::new(MOST_OF_AN_ADDRESS));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(new) => new,
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted for health and metrics");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Whoever comes when all places are taken is turned away at once: nobody waits in line.
        let source = sources.take(peer.ip().to_canonical());
        let (Some(source), Ok(place)) = (source, places.clone().try_acquire_owned()) else {
            continue;
        };
        let answers = answers.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(WHOLE, answer(stream, answers)).await;
            drop((source, place));
        });
    }
}

async fn answer(stream: TcpStream, answers: Answers) -> Result<(), hyper::Error> {
    let service = service_fn(move |request| ready(Ok::<_, Infallible>(answers.to(&request))));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(LONGEST_HEADERS)
        .max_headers(MOST_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}
