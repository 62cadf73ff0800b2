//! The control-plane state machine: routes, wants, permits. Sans-IO.
