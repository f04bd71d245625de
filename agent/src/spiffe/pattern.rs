//! Which SPIFFE IDs are meant.

use std::fmt;

use super::{SpiffeId, TrustDomain};

/// One SPIFFE ID, or many.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum IdPattern {
    /// This one, byte for byte.
    Exactly(SpiffeId),
    /// Every one of a trust domain.
    AnyOf(TrustDomain),
}

impl IdPattern {
    #[must_use]
    pub fn matches(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Exactly(one) => one == id,
            Self::AnyOf(domain) => id.trust_domain() == domain,
        }
    }
}

impl From<SpiffeId> for IdPattern {
    fn from(id: SpiffeId) -> Self {
        Self::Exactly(id)
    }
}

impl fmt::Display for IdPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(id) => id.fmt(f),
            Self::AnyOf(domain) => write!(f, "any identity of {domain}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_all_of_it_and_none_of_another() {
        let [web, db, foreign] =
            ["spiffe://a.org/web", "spiffe://a.org/db", "spiffe://a.org.evil/web"]
                .map(|id| id.parse::<SpiffeId>().unwrap());
        let any = IdPattern::AnyOf("a.org".parse().unwrap());
        assert!(any.matches(&web) && any.matches(&db) && !any.matches(&foreign));
        let one = IdPattern::from(web.clone());
        assert!(one.matches(&web) && !one.matches(&db) && !one.matches(&foreign));
    }
}
