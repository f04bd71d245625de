//! Who is expected at the other end of a flow, and by which rule.

use std::fmt;
use std::sync::Arc;

use crate::origin::Origin;
use crate::spiffe::IdPattern;
use crate::trust::{Authorities, Method, Pin};

/// Who may be at the other end: alternatives, of which one suffices. Without any, nobody may. Cheap to clone: each flow has
/// one of its own.
#[derive(Clone, Debug, Default)]
pub struct Expectation(Arc<Expected>);

/// What clones of an expectation share.
#[derive(Debug, Default)]
struct Expected {
    rule: Option<Origin>,
    alternatives: Vec<Alternative>,
    nobody: Nobody,
}

/// One way to meet an expectation.
#[derive(Clone, Debug)]
pub struct Alternative {
    /// The rule that it comes from; of several that were combined, the first.
    pub rule: Origin,
    pub requirement: Requirement,
}

/// What a peer must prove, and who it must be.
#[derive(Clone, Debug)]
pub enum Requirement {
    /// To be an X.509-SVID of one of these. If there are pins, the certificate must match one of them in addition.
    Svid { ids: Vec<Listed<IdPattern>>, pins: Vec<Pin> },
    /// A chain to one of these authorities, and one of these names. Pins as above.
    Names { authorities: Authorities, names: Names, pins: Vec<Pin> },
    /// To match one of these pins, and nothing else.
    Pinned(Vec<Listed<Pin>>),
}

/// Something that a rule lists.
#[derive(Clone, Debug)]
pub struct Listed<T> {
    pub value: T,
    pub rule: Origin,
}

/// Names of a certificate, one of which it must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Compared byte for byte.
    pub uris: Vec<Arc<str>>,
    /// A certificate's wildcard counts for them (RFC 9525, 6.3).
    pub dns: Vec<Arc<str>>,
}

/// Why nobody is expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nobody {
    /// No rule names anybody.
    #[default]
    Unnamed,
    /// The files that say who it is were never readable.
    Unreadable,
    /// DNS names of two external peers resolve to the address.
    Ambiguous,
}

impl fmt::Display for Nobody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unnamed => {
                "no peer identity is configured here: `peers` or `inbound.allow` has to name one"
            }
            Self::Unreadable => {
                "no peer identity is known here: none of the files that pin one could be read; `sheath status` says why"
            }
            Self::Ambiguous => {
                "no peer identity is believed here: the DNS names of two external peers resolve to this address"
            }
        })
    }
}

impl<T> Listed<T> {
    /// All of a list, by one rule.
    pub fn all(values: impl IntoIterator<Item = T>, rule: &Origin) -> Vec<Self> {
        values.into_iter().map(|value| Self { value, rule: rule.clone() }).collect()
    }
}

impl Alternative {
    /// How a peer is to prove who it is.
    #[must_use]
    pub fn method(&self) -> Method<'_> {
        match &self.requirement {
            Requirement::Svid { .. } => Method::Svid,
            Requirement::Names { authorities, .. } => Method::Chain(authorities),
            Requirement::Pinned(_) => Method::Key,
        }
    }
}

impl Expectation {
    fn new(rule: Option<Origin>, alternatives: Vec<Alternative>, nobody: Nobody) -> Self {
        Self(Arc::new(Expected { rule, alternatives, nobody }))
    }

    /// One alternative, by one rule.
    #[must_use]
    pub fn one(rule: Origin, requirement: Requirement) -> Self {
        let alternatives = vec![Alternative { rule: rule.clone(), requirement }];
        Self::new(Some(rule), alternatives, Nobody::default())
    }

    /// One of these SPIFFE IDs, or one of these pins. `rule` is the rule that applies. If there are none, `nobody` says
    /// why.
    #[must_use]
    pub fn any_of(
        rule: Origin,
        ids: Vec<Listed<IdPattern>>,
        pins: Vec<Listed<Pin>>,
        nobody: Nobody,
    ) -> Self {
        let mut alternatives = Vec::new();
        if let Some(first) = ids.first() {
            let rule = first.rule.clone();
            let requirement = Requirement::Svid { ids, pins: Vec::new() };
            alternatives.push(Alternative { rule, requirement });
        }
        if let Some(first) = pins.first() {
            let rule = first.rule.clone();
            alternatives.push(Alternative { rule, requirement: Requirement::Pinned(pins) });
        }
        Self::new(Some(rule), alternatives, nobody)
    }

    /// Nobody.
    #[must_use]
    pub fn nobody(rule: Origin, why: Nobody) -> Self {
        Self::new(Some(rule), Vec::new(), why)
    }

    /// This, or what another rule expects. The other rule is then the one that applies.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let alternatives = self.alternatives().iter().chain(other.alternatives()).cloned();
        Self::new(other.rule().cloned(), alternatives.collect(), other.why_nobody())
    }

    #[must_use]
    pub fn alternatives(&self) -> &[Alternative] {
        &self.0.alternatives
    }

    /// The rule that applies: the one to change for somebody else to be expected. `None` if there is none.
    #[must_use]
    pub fn rule(&self) -> Option<&Origin> {
        self.0.rule.as_ref()
    }

    /// Why nobody is expected, if that is so.
    #[must_use]
    pub fn why_nobody(&self) -> Nobody {
        self.0.nobody
    }
}
