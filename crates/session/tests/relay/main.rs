//! Relay sessions driven over an in-memory carrier by peers that speak raw moq-lite.

mod announce;
mod bridge;
mod control;
mod datagram;
mod delivery;
mod end;
mod fetch;
mod harness;
mod hear;
mod hostile;
mod leave;
mod legacy;
mod limit;
mod logs;
mod merge;
mod pace;
mod peer;
mod probe;
mod range;
mod record;
mod resume;
mod revise;
mod routes;
mod show;
mod slow;
mod tidy;
