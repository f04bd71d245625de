//! The configuration file.
//!
//! What is accepted fits together, and what is refused is refused in one line that names the file.

#![no_main]

use std::collections::HashSet;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sheath::config::{Config, ConfigError};
use sheath::desired::CgroupSelector;
use sheath_common::workload::MAX_NAME;

fuzz_target!(|text: &str| {
    match Config::parse(text, Path::new("sheath.yaml")) {
        Ok(config) => check(&config),
        Err(error) => check_error(&error, text),
    }
});

fn check(config: &Config) {
    let socket = config.instance.admin_socket();
    assert_eq!(socket.parent(), Some(config.instance.directory().as_path()));
    assert!(config.instance.directory().ends_with(&config.instance.name));

    let mut names = HashSet::new();
    for workload in &config.desired.workloads {
        assert!(names.insert(&workload.name) && workload.name.len() <= MAX_NAME);
        match &workload.cgroup {
            // The kernel gets the whole pattern, and one that is no path would match nothing.
            CgroupSelector::Pattern(pattern) => {
                assert!(workload.glob().is_some());
                let components: Vec<_> = pattern.split('/').collect();
                assert!(matches!(components[..], ["", _, ..]));
                assert!(components[1..].iter().all(|part| !["", ".", ".."].contains(part)));
            }
            CgroupSelector::Id(id) => assert_ne!(*id, 0),
            CgroupSelector::Pod(uid) => {
                assert!(config.pods.is_some());
                let pods = config.desired.pods.as_ref();
                assert!(!pods.is_some_and(|pods| pods.plain.contains(uid)));
            }
        }
        let inbound = &workload.inbound;
        assert!(!inbound.ports.contains(&0));
        assert!(inbound.addresses.is_empty() || !inbound.ports.is_empty());
        assert!(
            inbound
                .addresses
                .iter()
                .all(|address| { !address.is_unspecified() && address.to_canonical() == *address })
        );
        if let Some(activator) = &inbound.activator {
            let components: Vec<_> = activator.split('/').collect();
            assert!(matches!(components[..], ["", _, ..]));
            assert!(components[1..].iter().all(|part| !["", ".", ".."].contains(part)));
        }
    }
}

fn check_error(error: &ConfigError, text: &str) {
    let message = error.to_string();
    assert!(message.starts_with("sheath.yaml:"), "{message:?}");
    assert!(!message.contains(char::is_control), "{message:?}");
    match error {
        ConfigError::Malformed { line, reason, .. } => {
            // YAML ends lines at carriage returns too (YAML 1.2, 5.4).
            assert!(
                (1..=1 + text.matches(['\n', '\r']).count() as u64).contains(line),
                "{message}"
            );
            assert!(!reason.is_empty());
        }
        ConfigError::Invalid { reason, .. } => assert!(!reason.is_empty()),
        ConfigError::Unreadable { .. } => panic!("there was no file to read"),
    }
}
