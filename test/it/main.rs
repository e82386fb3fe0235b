//! What must hold, as tests of whole programs. `docs/guarantees.md` says which test shows what.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(clippy::too_many_lines, reason = "a test tells one story, from its beginning to its end")]
#![allow(clippy::print_stdout, reason = "figures, for who runs a test to see them")]

mod binaries;
mod deliver;
mod doctor;
mod documents;
mod doors;
mod exchange;
mod gate;
mod hostile;
mod life;
mod observe;
mod page;
mod recipes;
mod routes;
mod simulation;
mod tidy;
