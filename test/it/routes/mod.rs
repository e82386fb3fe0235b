//! Many backends behind one gateway: who gets which requests, and who may.

mod asking;
mod authority;
mod balance;
mod carve;
mod crowd;
mod hold;
mod model;
mod names;
mod reload;
mod table;
mod taken;
mod thousands;
