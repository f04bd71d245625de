//! Processor time, memory and descriptors of processes, from `/proc` (proc(5)).

use std::fs;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

/// A process and all that descend from it: nginx's workers are children of the process that was started.
///
/// # Errors
/// If `/proc` cannot be listed.
pub fn family(pid: u32) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot list /proc")? {
        let name = entry.context("cannot list /proc")?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // One that has ended meanwhile has no parent any more.
        if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) {
            parents.extend(Stat::parse(&text).map(|stat| (pid, stat.parent)));
        }
    }
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    Ok(family)
}

/// Seconds of processor time, user and system, of all threads, also of those that have ended.
///
/// # Errors
/// If one of the processes has ended.
pub fn cpu_seconds(pids: &[u32]) -> Result<f64> {
    let hertz = sysconf(SysconfVar::CLK_TCK).ok().flatten().context("no clock tick")?;
    let ticks = |pid: &u32| -> Result<u64> {
        let text = read(*pid, "stat")?;
        let stat = Stat::parse(&text).with_context(|| format!("not a stat file: {text}"))?;
        Ok(stat.ticks)
    };
    let ticks: u64 = pids.iter().map(ticks).sum::<Result<_>>()?;
    Ok(ticks as f64 / hertz as f64)
}

/// Resident memory in KiB. What processes share counts for each.
///
/// # Errors
/// If one of the processes has ended.
pub fn resident_kib(pids: &[u32]) -> Result<u64> {
    let resident = |pid: &u32| -> Result<u64> {
        resident(&read(*pid, "status")?).context("no resident memory in a status file")
    };
    pids.iter().map(resident).sum()
}

/// Open descriptors.
///
/// # Errors
/// If one of the processes has ended.
pub fn open_files(pids: &[u32]) -> Result<u64> {
    let files = |pid: &u32| -> Result<u64> {
        let dir = format!("/proc/{pid}/fd");
        Ok(fs::read_dir(&dir).with_context(|| format!("cannot list {dir}"))?.count() as u64)
    };
    pids.iter().map(files).sum()
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

struct Stat {
    parent: u32,
    ticks: u64,
}

impl Stat {
    /// The second field is a name in parentheses and can contain anything.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let field = |number: usize| rest.split_whitespace().nth(number - 3);
        let ticks = |number| field(number)?.parse::<u64>().ok();
        Some(Self { parent: field(4)?.parse().ok()?, ticks: ticks(14)? + ticks(15)? })
    }
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_file_is_read_behind_the_last_parenthesis() {
        let text = "7 (a ) b (c)) S 42 7 7 0 -1 4194560 100 0 0 0 150 25 3 4 20 0 1 0 99 1 2";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.parent, stat.ticks), (42, 175));
        assert!(Stat::parse("7 (name").is_none());
    }

    #[test]
    fn this_process_has_memory_files_and_a_parent() {
        let own = std::process::id();
        assert!(resident_kib(&[own]).unwrap() > 100);
        assert!(open_files(&[own]).unwrap() >= 3);
        assert!(family(std::os::unix::process::parent_id()).unwrap().contains(&own));
    }

    #[test]
    fn processor_time_grows_with_work() {
        let own = [std::process::id()];
        let before = cpu_seconds(&own).unwrap();
        let mut number = 1u64;
        while cpu_seconds(&own).unwrap() - before < 0.02 {
            number = std::hint::black_box(number.wrapping_mul(3));
        }
        assert!(cpu_seconds(&[u32::MAX]).is_err());
    }
}
