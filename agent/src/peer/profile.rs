//! TLS parameters for peers that are no agents: versions, cipher suites, key agreements and protocols.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

use super::suites::{GROUPS, SUITES, provider};

/// TLS parameters, ready for use.
#[derive(Clone, Debug)]
pub struct Profile {
    pub provider: Arc<CryptoProvider>,
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// In order of preference.
    pub alpn: Vec<Vec<u8>>,
}

/// A TLS version that can be asked for. Anything older has been withdrawn (RFC 8996).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V12,
    V13,
}

/// What there is to choose from; empty lists stand for the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    pub minimum: Option<Version>,
    pub maximum: Option<Version>,
    pub cipher_suites: Vec<String>,
    pub curves: Vec<String>,
    pub alpn: Vec<String>,
}

/// Why TLS parameters cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    #[error("maxVersion is lower than minVersion")]
    NoVersion,
    #[error("no cipher suite of TLS {} is named", .0.name())]
    NoSuite(Version),
    #[error("cipher suite `{name}` is unknown or unsafe; there are {}", known(SUITES.iter().map(|suite| suite.iana)))]
    UnknownSuite { name: String },
    #[error("curve `{name}` is unknown or unsafe; there are {}", known(GROUPS.iter().map(|group| group.names[0])))]
    UnknownCurve { name: String },
    #[error("alpn `{0}` must have 1 to 255 bytes")]
    ProtocolLength(String),
    #[error("alpn must not name protocols of agents (`sheath/...`)")]
    ProtocolOfAgents,
}

impl Profile {
    /// # Errors
    /// If a name is unknown, or if nothing is left of what may be negotiated.
    pub fn new(choice: &Choice) -> Result<Self, ProfileError> {
        let minimum = choice.minimum.unwrap_or(Version::V13);
        let maximum = choice.maximum.unwrap_or(Version::V13);
        if maximum < minimum {
            return Err(ProfileError::NoVersion);
        }
        let mut versions: Vec<&'static SupportedProtocolVersion> = Vec::new();
        if maximum == Version::V13 {
            versions.push(&rustls::version::TLS13);
        }
        if minimum == Version::V12 {
            versions.push(&rustls::version::TLS12);
        }
        let suites = suites(&choice.cipher_suites, minimum, maximum)?;
        let groups = groups(&choice.curves)?;
        Ok(Self {
            provider: Arc::new(provider(suites, groups)),
            versions,
            alpn: protocols(&choice.alpn)?,
        })
    }

    /// True if something older than TLS 1.3 may be agreed on.
    #[must_use]
    pub fn may_be_older(&self) -> bool {
        self.versions.iter().any(|version| version.version != rustls::ProtocolVersion::TLSv1_3)
    }
}

/// Naming suites of TLS 1.2 alone says nothing about those of TLS 1.3, as with OpenSSL and Envoy.
fn suites(
    names: &[String],
    minimum: Version,
    maximum: Version,
) -> Result<Vec<SupportedCipherSuite>, ProfileError> {
    let named = names
        .iter()
        .map(|name| {
            SUITES
                .iter()
                .find(|suite| name == suite.iana || suite.openssl == Some(name))
                .map(|suite| suite.suite)
                .ok_or_else(|| ProfileError::UnknownSuite { name: name.clone() })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let unnamed = |suite: &SupportedCipherSuite| match version_of(suite) {
        Version::V13 => !named.iter().any(|named| version_of(named) == Version::V13),
        Version::V12 => named.is_empty(),
    };
    let all = SUITES.iter().map(|suite| suite.suite);
    let mut chosen: Vec<_> = all.filter(unnamed).chain(named.iter().copied()).collect();
    chosen.retain(|suite| (minimum..=maximum).contains(&version_of(suite)));
    match [minimum, maximum]
        .into_iter()
        .find(|wanted| !chosen.iter().any(|suite| version_of(suite) == *wanted))
    {
        Some(version) => Err(ProfileError::NoSuite(version)),
        None => Ok(chosen),
    }
}

fn version_of(suite: &SupportedCipherSuite) -> Version {
    if suite.tls13().is_some() { Version::V13 } else { Version::V12 }
}

fn groups(names: &[String]) -> Result<Vec<&'static dyn SupportedKxGroup>, ProfileError> {
    if names.is_empty() {
        return Ok(GROUPS.iter().map(|group| group.group).collect());
    }
    names
        .iter()
        .map(|name| {
            GROUPS
                .iter()
                .find(|group| group.names.iter().any(|known| known.eq_ignore_ascii_case(name)))
                .map(|group| group.group)
                .ok_or_else(|| ProfileError::UnknownCurve { name: name.clone() })
        })
        .collect()
}

/// Protocol names of 1 to 255 bytes (RFC 7301, 3.1).
fn protocols(names: &[String]) -> Result<Vec<Vec<u8>>, ProfileError> {
    if let Some(bad) = names.iter().find(|name| name.is_empty() || name.len() > 255) {
        return Err(ProfileError::ProtocolLength(bad.clone()));
    }
    if names.iter().any(|name| name.starts_with("sheath/")) {
        return Err(ProfileError::ProtocolOfAgents);
    }
    Ok(names.iter().map(|name| name.as_bytes().to_vec()).collect())
}

fn known<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

impl Version {
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "1.2" => Some(Self::V12),
            "1.3" => Some(Self::V13),
            _ => None,
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V12 => "1.2",
            Self::V13 => "1.3",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(minimum: &str, maximum: &str, suites: &[&str], curves: &[&str]) -> Choice {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Choice {
            minimum: Version::parse(minimum),
            maximum: Version::parse(maximum),
            cipher_suites: owned(suites),
            curves: owned(curves),
            alpn: Vec::new(),
        }
    }

    fn chosen(choice: &Choice) -> Vec<String> {
        let profile = Profile::new(choice).unwrap();
        profile.provider.cipher_suites.iter().map(|s| format!("{:?}", s.suite())).collect()
    }

    #[test]
    fn tls13_alone_is_the_default() {
        let profile = Profile::new(&Choice::default()).unwrap();
        assert_eq!(profile.versions, [&rustls::version::TLS13]);
        assert_eq!(profile.provider.cipher_suites.len(), 3);
        assert_eq!(profile.provider.kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
    }

    #[test]
    fn suites_go_by_either_name_and_keep_their_order() {
        let suites = ["ECDHE-RSA-AES256-GCM-SHA384", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"];
        assert_eq!(
            chosen(&choice("1.2", "1.2", &suites, &[])),
            ["TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]
        );
        // Suites of TLS 1.3 are only restricted by naming one of them.
        assert_eq!(chosen(&choice("1.2", "1.3", &suites, &[])).len(), 5);
        assert_eq!(
            chosen(&choice("", "", &["TLS_AES_256_GCM_SHA384"], &[])),
            ["TLS13_AES_256_GCM_SHA384"]
        );
    }

    #[test]
    fn curves_go_by_their_usual_names() {
        let profile =
            Profile::new(&choice("", "", &[], &["P-384", "prime256v1", "x25519"])).unwrap();
        let names: Vec<_> =
            profile.provider.kx_groups.iter().map(|group| format!("{:?}", group.name())).collect();
        assert_eq!(names, ["secp384r1", "secp256r1", "X25519"]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (wrong, reason) in [
            (choice("1.3", "1.2", &[], &[]), "maxVersion is lower than minVersion"),
            (choice("", "", &["AES128-SHA"], &[]), "`AES128-SHA` is unknown or unsafe"),
            (choice("", "", &[], &["P-521"]), "`P-521` is unknown or unsafe"),
            (choice("1.2", "1.2", &["TLS_AES_128_GCM_SHA256"], &[]), "no cipher suite of TLS 1.2"),
            (
                Choice { alpn: vec!["sheath/0".to_owned()], ..Choice::default() },
                "must not name protocols of agents",
            ),
            (Choice { alpn: vec![String::new()], ..Choice::default() }, "1 to 255 bytes"),
        ] {
            let error = Profile::new(&wrong).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
