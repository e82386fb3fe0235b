//! Many backends behind one gateway: who gets which requests, and who may.

mod balance;
mod carve;
mod crowd;
mod desk;
mod hold;
mod model;
mod names;
mod reload;
mod table;
mod taken;
mod thousands;
