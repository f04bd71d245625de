//! What `sheath check` reports about what is followed.

/// Whether a source or a discovery would work now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    Good {
        found: String,
    },
    /// Not usable now, but it may be by the time the agent starts.
    Doubtful {
        found: String,
        advice: String,
    },
    Bad {
        found: String,
        advice: String,
    },
}
