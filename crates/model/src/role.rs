//! Role of a client.

/// Direction to which a client limits itself: it only publishes or only subscribes (as sent by moq-net 0.3.18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The client only publishes.
    Publisher,
    /// The client only subscribes.
    Subscriber,
}
