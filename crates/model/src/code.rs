//! Session and stream error codes: moq-lite's current registry, sent on every lite version.

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$cdoc:meta])* $konst:ident = $value:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl $name {
            $($(#[$cdoc])* #[doc = concat!("(", stringify!($value), ")")] pub const $konst: Self = Self($value);)*

            /// A short lower-case name; codes of the application (64 and above) are "application".
            pub fn name(self) -> &'static str {
                match self.0 {
                    $($value => $text,)*
                    64.. => "application",
                    _ => "unknown",
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{} ({:#x})", self.name(), self.0)
            }
        }
    };
}

codes! {
    /// Code of a session close.
    SessionCode {
        /// Nothing wrong.
        NONE = 0x0 "no error",
        /// A failure of the relay itself.
        INTERNAL = 0x1 "internal error",
        /// The credential does not grant the session or its role; clients stop reconnecting.
        UNAUTHORIZED = 0x2 "unauthorized",
        /// The peer broke the protocol or a limit.
        PROTOCOL_VIOLATION = 0x3 "protocol violation",
        /// A malformed key-value parameter.
        KEY_VALUE_FORMATTING = 0x6 "key-value formatting",
        /// The session was still open when the drain window ended.
        GOAWAY_TIMEOUT = 0x10 "goaway timeout",
        /// The peer did not act in time.
        TIMEOUT = 0x11 "timeout",
        /// No common version.
        VERSION = 0x15 "version",
        /// Memory is short, and the session holds the largest share of it. No draft defines a code for this;
        /// the value lies in the application range.
        MEMORY_SHARE = 0x4d "memory share exceeded",
    }
}

codes! {
    /// Code of a stream reset or a refused request.
    StreamCode {
        /// A failure of the relay itself.
        INTERNAL = 0x0 "internal error",
        /// The receiver no longer wants the data.
        CANCEL = 0x1 "cancelled",
        /// Not delivered in time.
        DELIVERY_TIMEOUT = 0x2 "delivery timeout",
        /// The session went away.
        SESSION_CLOSED = 0x3 "session closed",
        /// The peer is draining.
        GOING_AWAY = 0x4 "going away",
        /// The reader is too far behind.
        TOO_FAR_BEHIND = 0x5 "too far behind",
        /// The session has reached its limit of open requests of this kind (draft-ietf-moq-transport-17, stream
        /// reset codes; moq-lite has no code for it).
        EXCESSIVE_LOAD = 0x9 "excessive load",
        /// The objects of the track are inconsistent.
        MALFORMED_TRACK = 0x12 "malformed track",
        /// A control request was not answered in time.
        CONTROL_TIMEOUT = 0x31 "control timeout",
        /// A group is over its limit.
        GROUP_TOO_LARGE = 0x32 "group too large",
        /// No such track, group or broadcast.
        NOT_FOUND = 0x33 "not found",
        /// Superseded and over its age budget.
        OLD = 0x34 "old",
        /// Dropped from the cache.
        EVICTED = 0x35 "evicted",
        /// No route to the broadcast.
        UNROUTABLE = 0x36 "unroutable",
        /// A payload did not have its declared size.
        WRONG_SIZE = 0x37 "wrong size",
        /// A frame is over its limit.
        FRAME_TOO_LARGE = 0x38 "frame too large",
        /// A timestamp contradicts its track.
        TIMESTAMP_MISMATCH = 0x39 "timestamp mismatch",
    }
}

impl StreamCode {
    /// Converts a code received from a peer. Releases before the current registry numbered stream and session
    /// errors in one space; codes that exist only there are mapped to the current ones, so that they stay
    /// meaningful when relayed.
    pub fn from_peer(code: u32) -> Self {
        match code {
            6 => Self::CANCEL,
            13 => Self::NOT_FOUND,
            14 => Self::WRONG_SIZE,
            15 | 16 => Self::MALFORMED_TRACK,
            17 => Self::NOT_FOUND,
            24 => Self::CANCEL,
            25 => Self::SESSION_CLOSED,
            26 => Self::TOO_FAR_BEHIND,
            27 => Self::FRAME_TOO_LARGE,
            29 => Self::TIMESTAMP_MISMATCH,
            30 => Self::UNROUTABLE,
            31 => Self::EVICTED,
            code => Self(code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_old_registry_get_their_present_number() {
        assert_eq!(StreamCode::from_peer(13), StreamCode::NOT_FOUND);
        assert_eq!(StreamCode::from_peer(31), StreamCode::EVICTED);
        // In both registries, with one meaning for a reader: not translated.
        for code in [0, 1, 2, 0x12, 0x33, 64, 71] {
            assert_eq!(StreamCode::from_peer(code), StreamCode(code));
        }
    }
}
