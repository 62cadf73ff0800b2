//! One thread a core: epoll loop, sockets, steering, batching.

pub mod outbox;
pub mod socket;
pub mod wheel;
