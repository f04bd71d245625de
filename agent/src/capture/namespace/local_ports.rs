//! Where the search for a free port for a local leg begins.

use super::local_leg::{FIRST_PORT, PORTS};

/// An offset from the first port: where the longest row of free ports begins, of which those of a predecessor's connections are
/// none. Each search goes on from where the one before has ended, so from there on ports are mostly free.
pub fn beginning(used: impl IntoIterator<Item = u32>) -> u32 {
    let offsets = used.into_iter().filter_map(|port| port.checked_sub(FIRST_PORT));
    let mut used: Vec<_> = offsets.filter(|offset| *offset < PORTS).collect();
    used.sort_unstable();
    let Some(first) = used.first() else {
        return 0;
    };
    // The row behind the last goes on with the first ports.
    let following = used[1..].iter().copied().chain([first + PORTS]);
    let rows = used.iter().zip(following);
    let longest = rows.max_by_key(|(before, next)| next - **before);
    longest.map_or(0, |(before, _)| (before + 1) % PORTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_begins_where_the_longest_row_of_free_ports_does() {
        assert_eq!(beginning([]), 0);
        assert_eq!(beginning([80, 443]), 0, "others are not tried");
        assert_eq!(beginning((0..900).map(|offset| FIRST_PORT + offset)), 900);
        assert_eq!(beginning([FIRST_PORT + 9, FIRST_PORT + 9]), 10);
        assert_eq!(beginning([FIRST_PORT + PORTS - 1]), 0);
        let (low, high) = (FIRST_PORT + 10, FIRST_PORT + PORTS - 10);
        assert_eq!(beginning([high, low]), 11);
        assert_eq!(beginning([FIRST_PORT + PORTS / 2, FIRST_PORT + PORTS / 2 + 9]), PORTS / 2 + 10);
    }
}
