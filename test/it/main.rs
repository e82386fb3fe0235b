//! What must hold, as tests of whole programs. `docs/guarantees.md` says which test shows what.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(clippy::too_many_lines, reason = "a test tells one story, from its beginning to its end")]
#![allow(clippy::print_stdout, reason = "figures, for who runs a test to see them")]

// With the feature `heavy` only what has tests that move gigabytes: to optimize the others takes minutes.
#[cfg(not(feature = "heavy"))]
mod binaries;
#[cfg(not(feature = "heavy"))]
mod deliver;
#[cfg(not(feature = "heavy"))]
mod doctor;
#[cfg(not(feature = "heavy"))]
mod documents;
#[cfg(not(feature = "heavy"))]
mod doors;
mod exchange;
#[cfg(not(feature = "heavy"))]
mod gate;
mod hostile;
#[cfg(not(feature = "heavy"))]
mod life;
#[cfg(not(feature = "heavy"))]
mod observe;
#[cfg(not(feature = "heavy"))]
mod page;
#[cfg(not(feature = "heavy"))]
mod recipes;
#[cfg(not(feature = "heavy"))]
mod routes;
#[cfg(not(feature = "heavy"))]
mod simulation;
#[cfg(not(feature = "heavy"))]
mod tidy;
