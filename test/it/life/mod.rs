//! B: the tunnel, from its admission to its end.

mod admission;
mod alpn;
mod coming;
mod origin;
mod silence;
