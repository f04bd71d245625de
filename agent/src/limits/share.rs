//! How many flows a workload may have open.

use super::QuotaExceeded;

/// Which part of all flows is kept for workloads that have few, and for how many of them: a kubelet has 110 pods, if nobody says more.
const RESERVE: usize = 4;
const WORKLOADS: usize = 256;
/// As many as that each of them may have in any case.
const MOST_ALWAYS: usize = 64;
/// How much more than what is left a workload may have: so much that one alone has half of all.
const FACTOR: usize = 2;

/// How many flows a workload may have open.
#[derive(Clone, Copy, Debug)]
pub enum Share {
    /// So many.
    Fixed(usize),
    /// Some `always`, and more only where these are no more than twice what is then left of `common`, for all others. The first workload
    /// that takes what it can get has half of all flows, the second a third of the rest, and so on; what is kept is for those that
    /// come after them. No state but two counters is needed for it (dynamic thresholds: Choudhury and Hahne, IEEE/ACM Transactions
    /// on Networking 6, 1998).
    OfFree { common: usize, always: usize },
}

impl Share {
    pub fn new(fixed: Option<usize>, capacity: usize) -> Self {
        let kept = capacity / RESERVE;
        let always = (kept / WORKLOADS).clamp(1, MOST_ALWAYS);
        fixed.map_or(Self::OfFree { common: capacity - kept, always }, Self::Fixed)
    }

    /// Whether a workload may have `own` flows where all together have `open`, these included.
    ///
    /// # Errors
    /// If it may not.
    pub fn check(self, own: usize, open: usize) -> Result<(), QuotaExceeded> {
        match self {
            Self::Fixed(most) if own > most => Err(QuotaExceeded::Flows(most)),
            Self::OfFree { common, always } if own > always => {
                let left = common.saturating_sub(open);
                let may_have_more = own <= left.saturating_mul(FACTOR);
                if may_have_more { Ok(()) } else { Err(QuotaExceeded::Share(own - 1)) }
            }
            _ => Ok(()),
        }
    }

    /// The same where one of them was open in another process: what it was admitted by there counts, but for a limit that is written.
    ///
    /// # Errors
    /// If it may not.
    pub fn check_taken(self, own: usize) -> Result<(), QuotaExceeded> {
        match self {
            Self::Fixed(_) => self.check(own, 0),
            Self::OfFree { .. } => Ok(()),
        }
    }
}
