//! The scenarios, in one program: linked once, and as many at a time as there are CPUs. A file is a subject, and the
//! first part of its tests' names.

mod abuse;
mod addresses;
mod admission;
mod agent_update;
mod capabilities;
mod capture_root;
mod chart;
mod cluster;
mod cluster_directory;
mod controller;
mod controller_ca;
mod controller_leader;
mod controller_limits;
mod controller_pages;
mod controller_source;
mod dead_servers;
mod directory;
mod diverted;
mod enrolment;
mod enrolment_limits;
mod errors;
mod existing;
mod external_names;
mod external_peers;
mod fail_closed;
mod federation;
mod foreign_filters;
mod framing_abuse;
mod guards;
mod handover;
mod harness;
mod helm;
mod helm_reboot;
mod helm_services;
mod identity;
mod inbound_tls;
mod interop_envoy;
mod interop_nginx;
mod interop_openssl;
mod interop_pins;
mod interop_programs;
mod interop_stunnel;
mod keys;
mod kubernetes;
mod kubernetes_kinds;
mod lifecycle;
mod limits;
mod live_sessions;
mod load;
mod lost_pins;
mod many;
mod modes;
mod newborn_pods;
mod no_plaintext;
mod node_mistakes;
mod ownership;
mod peers;
mod pinned_peers;
mod pod_discovery;
mod pods;
mod pods_at_birth;
mod pods_at_once;
mod probes;
mod programs;
mod real_programs;
mod reload;
mod rolling_update;
mod rules;
mod selection;
mod services;
mod session_loss;
mod session_reuse;
mod socket_matrix;
mod socket_tricks;
mod source_ca;
mod source_files;
mod source_spire;
mod status;
mod surroundings;
mod tcp;
mod timers;
mod translation;
mod udp_untouched;
mod wire_leg;
mod workload_ids;

#[test]
fn every_file_is_a_part_of_this_program() {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios")).unwrap();
    for file in files {
        let name = file.unwrap().file_name().into_string().unwrap();
        let module = name.trim_end_matches(".rs");
        let declared = include_str!("main.rs").contains(&format!("\nmod {module};\n"));
        assert!(module == "main" || declared, "main.rs lacks mod {module}");
    }
}
