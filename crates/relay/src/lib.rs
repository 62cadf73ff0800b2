//! The relay as a library: configuration and wire-up.
