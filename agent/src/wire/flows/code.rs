//! The error codes of frames. An unknown code is passed on as it is: a later agent may have more of
//! them, and all of them mean the same for the flow.

use std::fmt;

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$code_doc:meta])* $code:ident = $number:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub u8);

        impl $name {
            $($(#[$code_doc])* pub const $code: Self = Self($number);)*
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $(Self::$code => f.write_str($text),)*
                    Self(number) => write!(f, "code {number}"),
                }
            }
        }
    };
}

codes! {
    /// Why a flow is not accepted.
    RefusalCode {
        UNREACHABLE = 1, "the application cannot be reached";
        NOT_ALLOWED = 2, "the peer's policy does not allow it";
        BUSY = 3, "the peer has too much to do";
        INTERNAL = 4, "the peer's agent is in trouble";
    }
}

codes! {
    /// Why a flow is reset.
    ResetCode {
        APPLICATION = 1, "the application has reset the connection";
        REVOKED = 2, "what made the session good is gone";
        TIMEOUT = 3, "nothing has moved for too long";
        INTERNAL = 4, "the peer's agent is in trouble";
    }
}

codes! {
    /// Why a session is not used again.
    GoAwayCode {
        IDLE = 1, "idle for too long";
        AGE = 2, "open for too long";
        CHANGED = 3, "policy, trust or identity have changed";
        SHUTDOWN = 4, "the peer's agent ends";
        VIRTUAL = 5, "the address that was dialled is not the peer's own: it may lead to others as well";
    }
}
