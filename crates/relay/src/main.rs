//! The moq-relay binary.
fn main() {}
