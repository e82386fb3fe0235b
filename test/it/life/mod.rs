//! B: the tunnel, from its admission to its end.

mod alpn;
mod coming;
