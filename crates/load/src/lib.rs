//! Load generator and hostile clients.
