//! `cargo demo`: gateway and client with the demo origin, on loopback.
fn main() {}
