//! nginx at the other end, as a proxy of TCP streams.

use sheath_tests::interop::nginx::{self, terminating};
use sheath_tests::interop::scene::Scene;
use sheath_tests::interop::{Program, Route, Tls};
use sheath_tests::world::{FAMILIES, Family};

/// nginx has no word for a SPIFFE ID; every SVID of the embedded CA has this common name.
fn originating(route: &Route, tls: &Tls) -> Program {
    nginx::originating(route, tls, "Sheath workload")
}

#[test]
fn a_client_workload_reaches_a_service_behind_nginx() {
    let scene = Scene::new();
    for family in FAMILIES {
        scene.client_workload_is_served(family, &terminating);
    }
}

#[test]
fn an_nginx_client_reaches_a_server_workload() {
    let scene = Scene::new();
    for family in FAMILIES {
        scene.server_workload_is_reached(family, &originating);
    }
}

#[test]
fn an_nginx_server_with_a_wrong_certificate_is_refused() {
    Scene::new().wrong_servers_are_refused(Family::V4, &terminating);
}

#[test]
fn an_nginx_client_with_a_wrong_certificate_is_refused() {
    Scene::new().wrong_clients_are_refused(Family::V6, &originating);
}
