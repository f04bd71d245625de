//! A gRPC server that says that it is well, whoever asks: what a kubelet's gRPC probe calls.

use std::net::SocketAddr;

use sheath_tests::script::Event;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use self::api::grpc::health::v1::health_check_response::ServingStatus;
use self::api::grpc::health::v1::health_server::{Health, HealthServer};
use self::api::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};
use crate::emit;

#[allow(clippy::pedantic, missing_docs, reason = "generated")]
mod api {
    include!(concat!(env!("OUT_DIR"), "/health.rs"));
}

struct Well;

#[tonic::async_trait]
impl Health for Well {
    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }
}

/// Serves until it is killed.
pub fn serve(listen: SocketAddr) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    emit(&Event::Listening);
    let server = Server::builder().add_service(HealthServer::new(Well)).serve(listen);
    runtime.block_on(server).expect("a gRPC server");
}
