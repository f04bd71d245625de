//! The machine of a run: figures mean nothing without it.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use sheath_tests::binaries;
use time::OffsetDateTime;

/// The machine, the programs on it, and the day.
pub struct Machine {
    pub processor: String,
    pub processors: usize,
    pub memory_gib: u64,
    pub kernel: String,
    /// Names and versions.
    pub programs: Vec<(&'static str, String)>,
    /// In UTC.
    pub date: String,
}

impl Machine {
    /// Reads what there is to say of this machine.
    ///
    /// # Errors
    /// If `/proc` cannot be read, or if a program does not tell its version.
    pub fn look() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| path.to_owned());
        let processor = value(&read("/proc/cpuinfo")?, "model name").context("no model name")?;
        let memory = value(&read("/proc/meminfo")?, "MemTotal").context("no MemTotal")?;
        let kib: u64 = memory.trim_end_matches(" kB").parse().context("MemTotal")?;
        Ok(Self {
            processor,
            processors: std::thread::available_parallelism()?.get(),
            memory_gib: (kib + (1 << 19)) >> 20,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            programs: programs()?,
            date: OffsetDateTime::now_utc().date().to_string(),
        })
    }
}

/// The value of the first line `key : value`.
fn value(text: &str, key: &str) -> Option<String> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = pairs.filter(|(name, _)| name.trim() == key).map(|(_, value)| value.trim());
    values.next().map(str::to_owned)
}

fn programs() -> Result<Vec<(&'static str, String)>> {
    let (sheath, envoy) = (binaries::sheath(), binaries::envoy());
    let path = |path: &std::path::Path| path.display().to_string();
    [
        ("Sheath", path(&sheath), "--version"),
        ("Envoy", path(&envoy), "--version"),
        ("stunnel", "stunnel4".to_owned(), "-version"),
        ("haproxy", "haproxy".to_owned(), "-v"),
        ("nginx", "nginx".to_owned(), "-v"),
        ("iperf3", "iperf3".to_owned(), "--version"),
        ("sockperf", "sockperf".to_owned(), "--version"),
        ("redis", "redis-server".to_owned(), "--version"),
        ("wrk", "wrk".to_owned(), "-v"),
    ]
    .into_iter()
    .map(|(name, program, argument)| Ok((name, version(&program, argument)?)))
    .collect()
}

/// Some programs tell their version on stderr, some call that a failure.
fn version(program: &str, argument: &str) -> Result<String> {
    let output = Command::new(program).arg(argument).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    parse_version(&text).with_context(|| format!("{program} {argument} names no version"))
}

/// The first dotted number.
fn parse_version(text: &str) -> Option<String> {
    let mut words = text.split(|c: char| !(c.is_ascii_alphanumeric() || ".-+".contains(c)));
    let word = words.find_map(|word| {
        let at = word.find(|c: char| c.is_ascii_digit())?;
        let number = &word[at..];
        let length = number.find(|c: char| !(c.is_ascii_digit() || c == '.'));
        let number = &number[..length.unwrap_or(number.len())];
        number.contains('.').then(|| number.trim_end_matches('.').to_owned())
    });
    word.filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_first_dotted_number() {
        for (text, version) in [
            ("nginx version: nginx/1.22.1\n", "1.22.1"),
            ("HAProxy version 2.6.12-1+deb12u4 2026/02/01", "2.6.12"),
            ("stunnel 5.68 on x86_64-pc-linux-gnu platform", "5.68"),
            ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0", "7.0.15"),
            ("wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012", "4.1.0"),
            ("envoy  version: 5c1d/1.40.0/Clean/RELEASE/BoringSSL", "1.40.0"),
        ] {
            assert_eq!(parse_version(text).as_deref(), Some(version), "{text}");
        }
        assert_eq!(parse_version("no number at all"), None);
    }

    #[test]
    fn values_stand_behind_their_key() {
        let text = "processor\t: 0\nmodel name\t: AMD EPYC\nmodel name\t: another\n";
        assert_eq!(value(text, "model name").as_deref(), Some("AMD EPYC"));
        assert_eq!(value(text, "flags"), None);
    }
}
