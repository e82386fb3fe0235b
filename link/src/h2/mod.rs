//! HTTP/2 on a connection, as both ends need it around the h2 crate.

pub mod cork;
pub mod goaway;
mod growing;
pub mod keepalive;
pub mod window;
