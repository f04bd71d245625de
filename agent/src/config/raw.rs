//! The file as it is written: one struct per mapping, unknown keys refused.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use sheath_common::workload::{InboundMode, OutboundMode};

use super::{DEFAULT_INSTANCE, DEFAULT_RUN_DIR, Destination};
use crate::spiffe::{SpiffeId, TrustDomain};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    #[serde(deserialize_with = "parsed")]
    pub trust_domain: TrustDomain,
    pub node: String,
    #[serde(default = "default_instance")]
    pub instance: String,
    #[serde(default = "default_run_dir")]
    pub run_dir: PathBuf,
    pub identity: Identity,
    #[serde(default)]
    pub capture: Capture,
    #[serde(default)]
    pub log: Log,
    #[serde(default)]
    pub timeouts: Timeouts,
    pub workloads: Vec<Workload>,
    #[serde(default)]
    pub peers: Vec<Peer>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub ca: EmbeddedCa,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EmbeddedCa {
    pub dir: PathBuf,
    #[serde(default = "default_svid_ttl")]
    pub svid_ttl: Period,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capture {
    pub cgroup: String,
}

impl Default for Capture {
    fn default() -> Self {
        Self { cgroup: "auto".to_owned() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    pub connect: Period,
    pub handshake: Period,
    pub drain: Period,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Period(Duration::from_secs(10)),
            handshake: Period(Duration::from_secs(10)),
            drain: Period(Duration::from_secs(30)),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Workload {
    pub name: String,
    pub select: Select,
    #[serde(deserialize_with = "parsed")]
    pub spiffe_id: SpiffeId,
    pub inbound: Option<Inbound>,
    pub outbound: Option<Outbound>,
    #[serde(default)]
    pub existing: Existing,
}

/// What becomes of connections that exist when a workload is enrolled.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Existing {
    /// They live on, and status lists them until they close.
    #[default]
    Keep,
    /// They are reset.
    Reset,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Select {
    pub cgroup: Option<String>,
    pub systemd_unit: Option<String>,
}

impl Select {
    /// The cgroup pattern that is meant.
    pub fn pattern(self) -> Result<String, String> {
        match (self.cgroup, self.systemd_unit) {
            (Some(cgroup), None) => Ok(cgroup),
            (None, Some(unit)) => unit_cgroup(&unit),
            _ => Err("select needs exactly one of `cgroup` and `systemdUnit`".to_owned()),
        }
    }
}

/// The cgroup in which systemd keeps a service of the system manager, unless its `Slice=` says otherwise:
/// instances of a template have a slice of their own (systemd.slice(5), systemd.unit(5)).
fn unit_cgroup(unit: &str) -> Result<String, String> {
    if unit.contains('/') || !unit.ends_with(".service") {
        return Err(format!(
            "select.systemdUnit `{unit}` must name a unit that ends in `.service`"
        ));
    }
    match unit.split_once('@') {
        Some((template, _)) if !template.is_empty() => {
            let slice = template.replace('-', "\\x2d");
            Ok(format!("/system.slice/system-{slice}.slice/{unit}"))
        }
        _ => Ok(format!("/system.slice/{unit}")),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inbound {
    pub mode: RawInboundMode,
    pub ports: Option<Vec<u16>>,
    #[serde(default, deserialize_with = "parsed_list")]
    pub allow: Vec<SpiffeId>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RawInboundMode {
    Strict,
    Permissive,
    Disabled,
}

impl From<RawInboundMode> for InboundMode {
    fn from(mode: RawInboundMode) -> Self {
        match mode {
            RawInboundMode::Strict => Self::Strict,
            RawInboundMode::Permissive => Self::Permissive,
            RawInboundMode::Disabled => Self::Disabled,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outbound {
    pub mode: RawOutboundMode,
    #[serde(default, deserialize_with = "parsed_list")]
    pub bypass: Vec<Destination>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RawOutboundMode {
    Require,
    Prefer,
    Disabled,
}

impl From<RawOutboundMode> for OutboundMode {
    fn from(mode: RawOutboundMode) -> Self {
        match mode {
            RawOutboundMode::Require => Self::Require,
            RawOutboundMode::Prefer => Self::Prefer,
            RawOutboundMode::Disabled => Self::Disabled,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Peer {
    #[serde(rename = "match", deserialize_with = "parsed_list")]
    pub destinations: Vec<Destination>,
    #[serde(deserialize_with = "parsed_list")]
    pub spiffe_ids: Vec<SpiffeId>,
}

/// A length of time, as `10s`, `5m` or `24h`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Period(pub Duration);

impl TryFrom<String> for Period {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let period =
            humantime::parse_duration(&text).map_err(|error| format!("`{text}`: {error}"))?;
        if period.is_zero() {
            return Err(format!("`{text}` is no time at all"));
        }
        Ok(Self(period))
    }
}

fn default_instance() -> String {
    DEFAULT_INSTANCE.to_owned()
}

fn default_run_dir() -> PathBuf {
    DEFAULT_RUN_DIR.into()
}

fn default_svid_ttl() -> Period {
    Period(Duration::from_secs(24 * 60 * 60))
}

/// A value that is parsed from its text.
fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: TryFrom<String, Error = String>,
{
    T::try_from(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// A list of values that are parsed from their texts.
fn parsed_list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: TryFrom<String, Error = String>,
{
    Vec::<String>::deserialize(deserializer)?
        .into_iter()
        .map(|text| T::try_from(text).map_err(serde::de::Error::custom))
        .collect()
}
