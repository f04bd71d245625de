//! Alerts (RFC 8446, 6).

use std::fmt;

/// An `AlertDescription`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Alert(pub u8);

/// The alert that ends one direction in order, as the content of a record.
pub const CLOSE_NOTIFY: [u8; 2] = Alert::CLOSE_NOTIFY.content();

impl Alert {
    pub const CLOSE_NOTIFY: Self = Self(0);
    pub const UNEXPECTED_MESSAGE: Self = Self(10);
    pub const BAD_RECORD_MAC: Self = Self(20);
    pub const RECORD_OVERFLOW: Self = Self(22);
    pub const ILLEGAL_PARAMETER: Self = Self(47);
    pub const DECODE_ERROR: Self = Self(50);
    pub const INTERNAL_ERROR: Self = Self(80);
    pub const USER_CANCELED: Self = Self(90);

    /// As the content of a record. The level says nothing any more, but has to be there.
    #[must_use]
    pub const fn content(self) -> [u8; 2] {
        const WARNING: u8 = 1;
        const FATAL: u8 = 2;
        let is_closure = self.0 == Self::CLOSE_NOTIFY.0 || self.0 == Self::USER_CANCELED.0;
        [if is_closure { WARNING } else { FATAL }, self.0]
    }
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let description = rustls::AlertDescription::from(self.0);
        match description.as_str() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
