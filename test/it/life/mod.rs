//! The tunnel, from its admission to its end.

mod addresses;
mod admission;
mod alpn;
mod asking;
mod back;
mod certificates;
mod coming;
mod distance;
mod doors;
mod fleet;
mod hosts;
mod origin;
mod plain;
mod proxies;
mod redirect;
mod reload;
mod rolling;
mod services;
mod silence;
mod succession;
