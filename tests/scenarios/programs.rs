//! The BPF programs as the kernel sees them.

use std::collections::BTreeMap;
use std::fs;

use sheath_tests::pair::Pair;

/// The kernel's verifier follows a million instructions and refuses what has more (`BPF_COMPLEXITY_LIMIT_INSNS`). How many
/// a program takes differs between kernels by as much as a factor of five (Linux 6.1 and 6.18).
const LIMIT: u64 = 1_000_000;

/// One that is near the limit is refused by the next kernel. A thousand take a millisecond to load.
#[test]
fn no_program_is_near_the_limit_of_the_verifier() {
    let pair = Pair::host();
    let verified = verified_instructions(pair.agent_a.pid());
    assert!(verified.len() >= 13, "{verified:?}");
    for (program, instructions) in &verified {
        println!("program {program} takes {instructions} verified instructions");
        assert!(*instructions < LIMIT / 16, "program {program} takes {instructions}");
    }
}

/// By program id, of all programs that a process holds: the `verified_insns` of their descriptors (Linux 5.16).
fn verified_instructions(pid: u32) -> BTreeMap<u64, u64> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("the agent's descriptors");
    descriptors
        .filter_map(|descriptor| fs::read_to_string(descriptor.ok()?.path()).ok())
        .filter_map(|text| Some((field(&text, "prog_id:")?, field(&text, "verified_insns:")?)))
        .collect()
}

fn field(fdinfo: &str, name: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}
