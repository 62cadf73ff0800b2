//! Bytes to messages and back, for every protocol version the relay speaks.
