//! Single objects: read, made and replaced; and reviews of tokens.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Request};
use serde_json::{Value, json};

use super::store::Kind;
use super::{Shared, answers};

/// What a path is about.
pub enum Place {
    Reviews,
    /// An object of a namespace, or all of them.
    Objects {
        kind: Kind,
        namespace: String,
        name: Option<String>,
    },
}

impl Place {
    pub fn of(path: &str) -> Option<Self> {
        if path == "/apis/authentication.k8s.io/v1/tokenreviews" {
            return Some(Self::Reviews);
        }
        let groups = ["/api/v1", "/apis/coordination.k8s.io/v1", "/apis/events.k8s.io/v1"];
        let rest = groups.iter().find_map(|group| path.strip_prefix(group))?;
        let mut parts = rest.strip_prefix("/namespaces/")?.split('/');
        let (namespace, kind) = (parts.next()?.to_owned(), Kind::within(parts.next()?)?);
        Some(Self::Objects { kind, namespace, name: parts.next().map(str::to_owned) })
    }
}

/// The status of the answer, and the answer.
pub async fn answer(place: Place, request: Request<Incoming>, shared: &Shared) -> (u16, Value) {
    let method = request.method().clone();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
    match place {
        Place::Reviews => (201, review(sent, shared)),
        Place::Objects { kind, namespace, name } => {
            let answer = object(&method, kind, &namespace, name.as_deref(), sent, shared);
            if method != Method::GET {
                shared.changed.notify_waiters();
            }
            match answer {
                Ok(object) => {
                    let code = if method == Method::POST { 201 } else { 200 };
                    (code, answers::shown(kind, false, object))
                }
                Err((code, message)) => (code, answers::status(code, message)),
            }
        }
    }
}

fn object(
    method: &Method,
    kind: Kind,
    namespace: &str,
    name: Option<&str>,
    mut sent: Value,
    shared: &Shared,
) -> Result<Value, (u16, &'static str)> {
    let mut store = shared.store();
    if let Some(prefix) = sent["metadata"]["generateName"].as_str().map(str::to_owned) {
        sent["metadata"]["name"] = json!(format!("{prefix}{}", store.version()));
    }
    let named = name.or_else(|| sent["metadata"]["name"].as_str()).map(str::to_owned);
    let key = format!("{namespace}/{}", named.ok_or((422, "an object without a name"))?);
    let known = store.get(kind, &key).cloned();
    match (method, known) {
        (&Method::GET, Some(known)) => return Ok(known),
        (&Method::GET | &Method::PUT, None) => return Err((404, "there is no such object")),
        (&Method::POST, Some(_)) => return Err((409, "there is such an object already")),
        (&Method::PUT, Some(known)) => {
            let version = &sent["metadata"]["resourceVersion"];
            if !version.is_null() && *version != known["metadata"]["resourceVersion"] {
                return Err((409, "the object has been modified"));
            }
        }
        (&Method::POST, None) => {}
        _ => return Err((405, "the server does not allow this method")),
    }
    sent["metadata"]["namespace"] = json!(namespace);
    store.put(kind, sent);
    store.get(kind, &key).cloned().ok_or((500, "the object is not there"))
}

/// Whoever it does not know is nobody.
fn review(mut sent: Value, shared: &Shared) -> Value {
    let mut reviews = shared.reviews();
    reviews.asked += 1;
    let token = sent["spec"]["token"].as_str().unwrap_or_default();
    let nobody = json!({"authenticated": false, "error": "invalid bearer token"});
    let mut status = reviews.known.get(token).cloned().unwrap_or(nobody);
    // As the real one: of the audiences that are asked about, those that the token is for; for none of them it is nobody's.
    if let (Some(own), Some(asked)) =
        (status["audiences"].as_array(), sent["spec"]["audiences"].as_array())
    {
        let common: Vec<_> = own.iter().filter(|one| asked.contains(one)).cloned().collect();
        status = match common.is_empty() {
            true => json!({"authenticated": false, "error": "token audiences do not fit"}),
            false => {
                status["audiences"] = json!(common);
                status
            }
        };
    }
    sent["status"] = status;
    sent
}
