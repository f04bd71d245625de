//! Probes: connections that the kubelet itself opens to a pod of its node, and that no agent is at the other end of.
//!
//! They are recognised by their socket. When a process of the kubelet's cgroup connects, its socket is marked; when the socket is about
//! to send its SYN, both ends and the initial sequence number are recorded. At the pod, a segment belongs to the probe if it bears all
//! of that. The number is what nobody else can know: it is a secret of 32 bits (RFC 9293, 3.4.1; RFC 6528) that never leaves the node,
//! so an address that is forged, or used again a moment later, is not enough.

use crate::net::Endpoint;

/// Key of the `PROBES` map: the two ends of a connection, as either network namespace sees them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProbeKey {
    /// The kubelet's end.
    pub prober: Endpoint,
    /// The pod's end.
    pub probed: Endpoint,
}

/// Value of the `PROBES` map: written before the SYN leaves, removed when the socket closes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// Cookie of the kubelet's socket: an entry is only ever removed for the socket that made it.
    pub cookie: u64,
    /// `bpf_ktime_get_ns` (CLOCK_MONOTONIC) when the entry was made.
    pub created_ns: u64,
    /// The initial sequence number.
    pub initial: u32,
    pub _reserved: u32,
}

/// What a TCP header says of a segment's place in its connection (RFC 9293, 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    pub sequence: u32,
    pub acknowledged: u32,
    pub is_syn: bool,
    pub is_ack: bool,
}

impl Probe {
    /// True if the kubelet's socket has sent a segment that comes to a listening socket: the SYN, or what comes next, for the listener
    /// may not have seen yet that the handshake is over, or may have left no socket for it (SYN cookies). A reset need not acknowledge.
    #[inline(always)]
    #[must_use]
    pub const fn has_sent(&self, numbers: &Numbers) -> bool {
        let expected = if numbers.is_syn { self.initial } else { self.initial.wrapping_add(1) };
        numbers.sequence == expected && !(numbers.is_syn && numbers.is_ack)
    }

    /// True if a segment of a listening socket answers the SYN.
    #[inline(always)]
    #[must_use]
    pub const fn is_answered_by(&self, numbers: &Numbers) -> bool {
        numbers.is_ack && numbers.acknowledged == self.initial.wrapping_add(1)
    }
}

/// Longest path of a prober's cgroup that is recognised when it is made anew, in bytes.
pub const MAX_PROBER_PATH: usize = crate::selector::PATTERN_LEN;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn probe(initial: u32) -> Probe {
        Probe { initial, ..Probe::default() }
    }

    fn numbers() -> impl Strategy<Value = Numbers> {
        (any::<u32>(), any::<u32>(), any::<bool>(), any::<bool>()).prop_map(
            |(sequence, acknowledged, is_syn, is_ack)| Numbers {
                sequence,
                acknowledged,
                is_syn,
                is_ack,
            },
        )
    }

    fn syn(sequence: u32) -> Numbers {
        Numbers { sequence, is_syn: true, ..Numbers::default() }
    }

    fn ack(sequence: u32) -> Numbers {
        Numbers { sequence, is_ack: true, ..Numbers::default() }
    }

    #[test]
    fn a_handshake_is_a_probes_wherever_its_numbers_begin() {
        for initial in [0, 7, u32::MAX - 1, u32::MAX] {
            let probe = probe(initial);
            let next = initial.wrapping_add(1);
            assert!(probe.has_sent(&syn(initial)) && probe.has_sent(&ack(next)));
            assert!(!probe.has_sent(&syn(next)) && !probe.has_sent(&ack(initial)));
            // The answer to it, and one to somebody else.
            let answer = Numbers { acknowledged: next, is_ack: true, is_syn: true, sequence: 99 };
            assert!(probe.is_answered_by(&answer) && !probe.has_sent(&answer));
            assert!(!probe.is_answered_by(&Numbers { acknowledged: initial, ..answer }));
            assert!(!probe.is_answered_by(&Numbers { is_ack: false, ..answer }));
        }
    }

    proptest! {
        /// Of all numbers that a header can bear, one with SYN and one without are the probe's.
        #[test]
        fn nothing_but_the_first_two_numbers_is_a_probes(initial: u32, numbers in numbers()) {
            let is_one = match (numbers.is_syn, numbers.is_ack) {
                (true, false) => numbers.sequence == initial,
                (false, _) => numbers.sequence.wrapping_sub(initial) == 1,
                (true, true) => false,
            };
            prop_assert_eq!(probe(initial).has_sent(&numbers), is_one);
        }

        /// An answer is one by what it acknowledges, whatever number it has itself.
        #[test]
        fn nothing_but_an_acknowledgement_of_the_first_number_is_an_answer(initial: u32, numbers in numbers()) {
            let is_one = numbers.is_ack && numbers.acknowledged.wrapping_sub(initial) == 1;
            prop_assert_eq!(probe(initial).is_answered_by(&numbers), is_one);
        }
    }
}
