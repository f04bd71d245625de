//! stunnel at the other end. It can demand a chain, but not a SPIFFE ID.

use sheath_tests::interop::scene::Scene;
use sheath_tests::interop::stunnel::{originating, terminating};
use sheath_tests::world::{FAMILIES, Family};

#[test]
fn a_client_workload_reaches_a_service_behind_stunnel() {
    let scene = Scene::new();
    for family in FAMILIES {
        scene.client_workload_is_served(family, &terminating);
    }
}

#[test]
fn a_stunnel_client_reaches_a_server_workload() {
    let scene = Scene::new();
    for family in FAMILIES {
        scene.server_workload_is_reached(family, &originating);
    }
}

#[test]
fn a_stunnel_server_with_a_wrong_certificate_is_refused() {
    Scene::new().wrong_servers_are_refused(Family::V6, &terminating);
}

#[test]
fn a_stunnel_client_with_a_wrong_certificate_is_refused() {
    Scene::new().wrong_clients_are_refused(Family::V4, &originating);
}

/// The other way round: stunnel does not know the workload's authority.
#[test]
fn a_stunnel_server_that_refuses_the_client_workload_is_logged() {
    let scene = Scene::new();
    let misled = scene.misled("web");
    scene.alert_of_server_is_logged(Family::V4, &misled, &terminating, "unknown_ca");
}

#[test]
fn a_stunnel_client_that_refuses_the_server_workload_is_logged() {
    let scene = Scene::new();
    let misled = scene.misled("client");
    scene.alert_of_client_is_logged(Family::V6, &misled, &originating, "unknown_ca");
}
