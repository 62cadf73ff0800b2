//! Ids, never reused within a process.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// One session (one connection) of this process. The worker that owns it is in its top 16 bits.
    SessionId
}
id! {
    /// One log: one track of one incarnation of a broadcast.
    LogId
}
id! {
    /// One downstream subscription or track-info request, unique within its session.
    SubId
}
id! {
    /// Generation of a log's writer. A writer of an older epoch is fenced.
    Epoch
}

/// Index of a worker in the reuseport group, `0..N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u16);

impl SessionId {
    const SEQUENCE_BITS: u32 = 48;

    /// The `sequence`-th session of `worker`.
    pub fn new(worker: WorkerId, sequence: u64) -> Self {
        Self((u64::from(worker.0) << Self::SEQUENCE_BITS) | (sequence & ((1 << Self::SEQUENCE_BITS) - 1)))
    }

    /// The worker that owns the session.
    pub fn worker(self) -> WorkerId {
        WorkerId((self.0 >> Self::SEQUENCE_BITS) as u16)
    }
}
