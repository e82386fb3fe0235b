//! What must hold, as tests of whole programs. Each carries its number of the acceptance list.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(clippy::print_stdout, reason = "figures, for who runs a test to see them")]

mod binaries;
mod deliver;
mod doors;
mod exchange;
mod hostile;
mod life;
mod page;
mod recipes;
mod routes;
mod simulation;
mod tidy;
