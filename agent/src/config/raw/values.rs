//! Values with a syntax of their own: durations, sizes, and types that parse themselves.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use crate::desired::PodUid;

/// Address and port of a resolver.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Server(pub SocketAddr);

impl TryFrom<String> for Server {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            format!(
                "`{text}` is not the address and port of a resolver; write it like `10.0.0.53:53` or `[fd00::53]:53`"
            )
        })
    }
}

/// The uid of a pod.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Uid(pub PodUid);

impl TryFrom<String> for Uid {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error| format!("`{text}` is no pod's uid: {error}"))
    }
}

/// A length of time, as `10s`, `5m` or `24h`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Period(pub Duration);

impl TryFrom<String> for Period {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let period = humantime::parse_duration(&text).map_err(|_| {
            format!("`{text}` is not a length of time; write it like `500ms`, `10s`, `5m` or `24h`")
        })?;
        if period.is_zero() {
            return Err(format!("`{text}` must be longer than zero"));
        }
        Ok(Self(period))
    }
}

/// A length of time, or `never`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Limit(pub Option<Duration>);

impl TryFrom<String> for Limit {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self(None));
        }
        Period::try_from(text).map(|period| Self(Some(period.0)))
    }
}

/// A number of bytes, as `65536`, `512KiB` or `64MiB`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Bytes(pub usize);

impl TryFrom<String> for Bytes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
        let (number, unit) = units
            .iter()
            .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
            .unwrap_or((&text, 1));
        let number: usize = number.trim_end().parse().map_err(|_| {
            format!("`{text}` is not a number of bytes; write it like `65536`, `512KiB` or `64MiB`")
        })?;
        number
            .checked_mul(unit)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is more bytes than can be counted"))
    }
}

/// A value that is parsed from its text.
///
/// # Errors
/// If it is none.
pub fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: TryFrom<String, Error = String>,
{
    T::try_from(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// A value that is parsed from its text, if there is one.
pub fn parsed_option<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: TryFrom<String, Error = String>,
{
    parsed(deserializer).map(Some)
}

/// A list of values that are parsed from their texts.
pub fn parsed_list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: TryFrom<String, Error = String>,
{
    Vec::<String>::deserialize(deserializer)?
        .into_iter()
        .map(|text| T::try_from(text).map_err(serde::de::Error::custom))
        .collect()
}
