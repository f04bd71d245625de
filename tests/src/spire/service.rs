//! The service itself: one task for each subscription, which tells it what changes.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::api;
use super::api::delegated_identity_server::{DelegatedIdentity, DelegatedIdentityServer};
use super::registry::{Registry, Shared};

pub struct Service(Arc<Shared>);

/// The service for a server of tonic's.
pub fn service(shared: Arc<Shared>) -> DelegatedIdentityServer<Service> {
    DelegatedIdentityServer::new(Service(shared))
}

/// Answers to one subscription.
type Answers<T> = ReceiverStream<Result<T, Status>>;

/// A subscription in the record, for as long as it lasts.
struct Recorded {
    shared: Arc<Shared>,
    number: usize,
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.shared.closed(self.number);
    }
}

#[tonic::async_trait]
impl DelegatedIdentity for Service {
    type SubscribeToX509SVIDsStream = Answers<api::SubscribeToX509sviDsResponse>;
    type SubscribeToX509BundlesStream = Answers<api::SubscribeToX509BundlesResponse>;
    type SubscribeToJWTBundlesStream = Answers<api::SubscribeToJwtBundlesResponse>;

    async fn subscribe_to_x509svi_ds(
        &self,
        request: Request<api::SubscribeToX509sviDsRequest>,
    ) -> Result<Response<Self::SubscribeToX509SVIDsStream>, Status> {
        let api::SubscribeToX509sviDsRequest { selectors, pid } = request.into_inner();
        let selectors: Vec<_> = selectors
            .into_iter()
            .map(|selector| format!("{}:{}", selector.r#type, selector.value))
            .collect();
        let number = self.0.opened(selectors.clone(), pid);
        let recorded = Recorded { shared: self.0.clone(), number };
        if selectors.is_empty() == (pid == 0) {
            let reason = "must provide either selectors or a PID";
            return Err(Status::invalid_argument(reason));
        }
        let mut registry = self.0.follow();
        let ends = |_| Status::unavailable("the SPIRE agent ends");
        drop(registry.wait_for(|registry| !registry.holds).await.map_err(ends)?);
        subscribe(registry, move |now| now.svids(&selectors, pid), Some(recorded))
    }

    async fn subscribe_to_x509_bundles(
        &self,
        _request: Request<api::SubscribeToX509BundlesRequest>,
    ) -> Result<Response<Self::SubscribeToX509BundlesStream>, Status> {
        subscribe(self.0.follow(), Registry::bundles, None)
    }

    async fn fetch_jwtsvi_ds(
        &self,
        _request: Request<api::FetchJwtsviDsRequest>,
    ) -> Result<Response<api::FetchJwtsviDsResponse>, Status> {
        Err(Status::unimplemented("no JWT here"))
    }

    async fn subscribe_to_jwt_bundles(
        &self,
        _request: Request<api::SubscribeToJwtBundlesRequest>,
    ) -> Result<Response<Self::SubscribeToJWTBundlesStream>, Status> {
        Err(Status::unimplemented("no JWT here"))
    }
}

/// Answers at once and with every change.
fn subscribe<T: PartialEq + Clone + Send + Sync + 'static>(
    mut registry: watch::Receiver<Registry>,
    answer: impl Fn(&Registry) -> T + Send + 'static,
    recorded: Option<Recorded>,
) -> Result<Response<Answers<T>>, Status> {
    let (epoch, first) = look(&registry.borrow_and_update(), &answer);
    let mut sent = first?;
    let (sender, receiver) = mpsc::channel(1);
    sender.try_send(Ok(sent.clone())).expect("room for the first answer");
    tokio::spawn(async move {
        let _recorded = recorded;
        loop {
            tokio::select! {
                () = sender.closed() => return,
                changed = registry.changed() => if changed.is_err() {
                    return;
                },
            }
            let (now, answer) = look(&registry.borrow_and_update(), &answer);
            if now != epoch {
                return;
            }
            match answer {
                Ok(same) if same == sent => {}
                Ok(new) => {
                    sent = new.clone();
                    if sender.send(Ok(new)).await.is_err() {
                        return;
                    }
                }
                Err(refusal) => {
                    let _ = sender.send(Err(refusal)).await;
                    return;
                }
            }
        }
    });
    Ok(Response::new(ReceiverStream::new(receiver)))
}

/// What there is to say now, and in which epoch.
fn look<T>(registry: &Registry, answer: impl Fn(&Registry) -> T) -> (u64, Result<T, Status>) {
    let refusal = || Status::permission_denied("caller not configured as an authorized delegate");
    (registry.epoch, if registry.refuses { Err(refusal()) } else { Ok(answer(registry)) })
}
