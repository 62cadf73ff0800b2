//! The session engine: dialects, egress, fan-out, on any transport. Sans-IO.

pub mod transport;
